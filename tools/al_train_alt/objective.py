"""ALT's loss: the likelihood of completions under their conditions, near to a reference, with some entropy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from alignlib.records.jsonl import DataError, Record, Skip
from alignlib.training.objective import Objective

if TYPE_CHECKING:
    from torch import Tensor

    from al_train_alt.pool import Pool
    from alignlib.models.encoding import Encoder
    from alignlib.models.example import Example
    from alignlib.models.packs import Pack
    from alignlib.models.policy import Policy
    from alignlib.training.engine import AskingEngine, Engine
    from alignlib.training.examples import Examples
    from alignlib.training.run_folder import Run


@dataclass
class Conditional(Objective["Policy"]):
    """-log pi(y_t | condition, x) + kl_coef * KL(pi_ref || pi)_t - entropy_coef * H(pi)_t, a mean over tokens.

    kl_coef       moves towards `kl_target` nats a token, if there is one, after each step of `batch_size` records
    ref_sees      "prompt": the reference reads the bare prompt; "condition": what the policy reads
    role          in whose turn of a conversation the condition stands
    first_new     the first of quark's tokens: the reference knows those before it
    reference     and the engine that asks it, by `refer`; None: no KL
    count         of Examples made so far: the next one's number, which its values hold
    parts         the Examples to train on and the held-out ones, numbered as one, from `settle` on
    """

    kl_coef: float
    entropy_coef: float
    kl_target: float | None
    ref_sees: str
    batch_size: int
    role: str = "user"
    first_new: int | None = None
    sized: tuple[str, ...] = field(default=("nll", "kl", "entropy"), init=False)
    reference: Policy | None = field(default=None, init=False)
    engine: AskingEngine | Engine | None = field(default=None, init=False)
    count: int = field(default=0, init=False)
    parts: tuple[Sequence[Example], Sequence[Example]] = field(default=((), ()), init=False)

    def __post_init__(self) -> None:
        self.state["kl_coef"] = self.kl_coef

    def refer(self, policy: Policy, reference: Policy, engine: AskingEngine | Engine) -> None:
        """Take the KL to this reference, over the tokens that both know."""
        self.reference, self.engine = reference, engine
        known = min(model.core.config.vocab_size for model in (policy, reference))
        self.first_new = min(known, self.first_new or known)

    def example(self, encoder: Encoder, record: Record) -> Example:
        if self.first_new and any(max(row, default=0) >= self.first_new for row in record.get("completion_ids", ())):
            # A policy may say one of quark's tokens in the middle of a text, where the reference cannot read it.
            record = {name: value for name, value in record.items() if name not in ("completion_ids", "end_ids")}
        example = encoder.encode(record, record["completions"], record["condition"], self.role)
        if self.ref_sees == "prompt":
            bare = encoder.begin(record)
            example.bare = encoder.shorten(bare.prompt, len(example.prompt), bare.head)
        if not (example.bare if self.ref_sees == "prompt" else example.prompt):
            raise ValueError("empty, and the tokenizer has no token for the reference to begin with")
        example.values["number"] = [self.count] * len(example.completions)
        self.count += 1
        return example

    def settle(self, examples: Examples, held_out: Examples) -> None:
        """Take them as they are numbered, for the reference."""
        self.parts = examples, held_out

    def referred(self, number: int) -> Example:
        """The Example of this number as the reference sees it."""
        from alignlib.models.example import Example

        examples, held_out = self.parts
        example = examples[number] if number < len(examples) else held_out[number - len(examples)]
        return Example(example.bare or example.prompt, example.completions)

    def size(self, example: Example) -> float:
        return sum(map(len, example.completions))

    def __call__(self, model: Policy, batch: Pack) -> tuple[Tensor, dict[str, Tensor]]:
        import torch

        from alignlib.models.shards import is_sharded
        from alignlib.training import losses

        target = None
        if self.reference and self.engine:
            reference, numbers = self.reference, batch.values["number"][:, 0].tolist()
            bare = reference.pack(list(map(self.referred, numbers)))
            with torch.no_grad(), reference.precision():
                target = reference.logits, self.engine.ask(lambda: reference.hidden(bare))[bare.sources]
        with model.precision():
            loss, parts = losses.conditional(
                model.logits, model.hidden(batch)[batch.sources], batch.targets, model.core.config.vocab_size,
                kl_coef=self.state["kl_coef"], entropy_coef=self.entropy_coef, reference=target, known=self.first_new,
                in_step=is_sharded(model.model))
        return loss.sum(), dict(zip(self.sized, parts.sum(0), strict=True))

    def stepped(self, entry: dict[str, Any]) -> None:
        """Adapt the KL's coefficient, if there is a target for it; the log has the one that was used."""
        from alignlib.training import losses

        if self.kl_target:
            entry["kl_coef"] = self.state["kl_coef"]
            self.state["kl_coef"] = losses.adapted(entry["kl_coef"], entry["kl"], self.kl_target, self.batch_size)


@dataclass
class Drawn:
    """What is drawn of a pool, as Examples, for Session.take; `crc`: of the input that the pool was made of."""

    pool: Pool
    crc: int
    objective: Conditional
    encoder: Encoder
    run: Run

    def __iter__(self) -> Iterator[Example]:
        """Those that are too long are counted in the run. Raises DataError, for bad ones as --on-error says."""
        for where, record in self.pool.training():
            try:
                yield self.objective.example(self.encoder, record)
            except Skip:
                self.run.skipped += 1
            except ValueError as error:
                self.run.leave_out(DataError(f"{where}: {error}"))

    def skim(self) -> None:
        """All of the input has been read."""
