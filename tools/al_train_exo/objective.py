"""The losses of al-train-exo, each declared once, and the objective that computes them on groups of completions."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import click

from alignlib.models.example import Example
from alignlib.records import fields
from alignlib.records.conversations import with_completions
from alignlib.records.jsonl import DataError, Record, kind
from alignlib.training.objective import Objective

if TYPE_CHECKING:
    from torch import Tensor

    from alignlib.models.encoding import Encoder
    from alignlib.models.packs import Pack
    from alignlib.models.policy import Policy
    from alignlib.training.batches import Batches, Order
    from alignlib.training.examples import Examples
    from alignlib.training.objective import Ask


@dataclass(frozen=True)
class Loss:
    """A choice of --loss. The function of training.losses that bears its name gets what it `takes`, in this order.

    takes           tensors of groups of K' completions (`Contrast.groups`), and options by their names
    reference_free  whether --reference-free may put the policy's log-probabilities for the log-ratios
    importance      whether --importance may weigh its pairs

    What it takes says what it needs: log-ratios a reference, rewards groups of any width, good completions one by one,
    all else pairs; the mismatched log-ratio the batch's answers to other prompts.
    """

    takes: tuple[str, ...]
    reference_free: bool = False
    importance: bool = False

    @property
    def pairs(self) -> bool:
        """Whether it is of two completions, the better one and the other."""
        return not self.single and "rewards" not in self.takes

    @property
    def single(self) -> bool:
        """Whether it is of each completion by itself, a good or a bad one."""
        return "good" in self.takes

    @property
    def mismatched(self) -> bool:
        return "mismatched" in self.takes

    @property
    def reference(self) -> bool:
        return "log_ratio" in self.takes

    def heeds(self, option: str) -> bool:
        """Whether the option changes anything for it."""
        own = {"reference_free": self.reference_free, "importance": self.importance, "sft_reg": self.pairs,
               "ref": self.reference, "kto_threshold": self.single, "num_contrastive": not self.single}
        return own.get(option, option in self.takes)


def heeding(option: str) -> str:
    """The losses for which an option changes anything, for --help and messages; "" where it is of no loss."""
    return ", ".join(name for name, loss in LOSSES.items() if loss.heeds(option))


LOSSES = {
    "exo-pref": Loss(("log_ratio", "beta_pi", "smoothing")),
    "dpo-pref": Loss(("log_ratio", "beta_pi", "smoothing"), reference_free=True, importance=True),
    "ipo": Loss(("log_ratio", "beta_pi"), reference_free=True),
    "robust": Loss(("log_ratio", "beta_pi", "smoothing"), reference_free=True, importance=True),
    "simpo": Loss(("mean_logps", "beta_pi", "gamma")),
    "orpo": Loss(("mean_logps", "orpo_lambda")),
    "kto": Loss(("log_ratio", "good", "beta_pi", "mismatched", "kto_good", "kto_bad")),
    "exo-rw": Loss(("log_ratio", "rewards", "beta_pi", "beta_r")),
    "dpo-rw": Loss(("log_ratio", "rewards", "beta_pi", "beta_r")),
}


@dataclass
class Contrast(Objective["Policy"]):
    """A loss on groups of K' completions, from log-probabilities of the policy and, where it needs one, a reference."""

    loss: str
    beta_pi: float
    beta_r: float
    temperature: float
    num_contrastive: int | None
    ref: str
    smoothing: float
    reference_free: bool
    importance: bool
    sft_reg: float
    gamma: float
    orpo_lambda: float
    kto_threshold: float
    kto_good: float
    kto_bad: float

    def __post_init__(self) -> None:
        self.needs = LOSSES[self.loss]
        self.sized = ("margin", "accuracy") if self.needs.single else ()
        self.longest = 0  # tokens of a prompt and an answer: its Encoder's max_length
        self.mismatched = 0.0  # the mean log-ratio of the step's answers to other prompts, at least 0
        self.reference_means: list[float] = []  # the reference's `step_means`

    def example(self, encoder: Encoder, record: Record) -> Example:
        if self.needs.single:
            return self.judged_example(encoder, record)
        stored = ["ref_logps"] if self.needs.reference and self.ref == "ref_logps" else []
        if "rewards" not in record:
            record = with_verdict(record)
        fields.require_completions(record, "rewards", *stored)
        fields.require_float32(record["rewards"], "rewards")
        if "beta_r" in self.needs.takes:
            fields.require_float32([reward / self.beta_r for reward in record["rewards"]], "rewards / --beta-r")
        rewards = array("f", record["rewards"]).tolist()  # as the loss has them: 0.1 + 0.2 is no better than 0.3
        width = self.width(len(rewards))
        if len(rewards) < 2:
            raise ValueError("completions: one alone has nothing to be compared with")
        if len(rewards) % width:
            raise ValueError(f"completions: {len(rewards)} make no groups of {width}")
        if self.needs.pairs and any(rewards[i] == rewards[i + 1] for i in range(0, len(rewards), 2)):
            raise ValueError("rewards: a tie, no preference (al-pref2rw --to pref sorts them out)")
        example = encoder.encode(record, record["completions"])
        example.values["rewards"] = rewards
        if stored:
            temperature = record.get("ref_logps_temperature", 1.0)
            if temperature != self.temperature:
                raise ValueError(f"ref_logps: made at temperature {temperature}, not {self.temperature}")
            example.values["ref_logps"] = [float(logp) for logp in record["ref_logps"]]
        return example

    def judged_example(self, encoder: Encoder, record: Record) -> Example:
        """Of a record whose completions are good or bad, by its label or by their rewards."""
        if "rewards" not in record:
            record = with_label(with_verdict(record))
        fields.require_completions(record, "rewards")
        example = encoder.encode(record, record["completions"])
        example.values["good"] = [float(reward > self.kto_threshold) for reward in record["rewards"]]
        return example

    def settle(self, examples: Examples, held_out: Examples) -> None:
        """Raises DataError for completions of one kind alone, UsageError for a single held-out record."""
        if not self.needs.single:
            return
        good = examples.values["good"]
        if good.all() or not good.any():
            which, none = ("above", "bad") if good.all() else ("at most", "good")
            raise DataError(f"all rewards are {which} --kto-threshold {self.kto_threshold:g}: none of the completions "
                            f"is a {none} one, and --loss {self.loss} learns from both (a label true is 1, false 0)")
        if len(held_out) == 1:
            raise click.UsageError(f"--loss {self.loss}: --eval has one record, and no others' answers to compare with")

    def order(self, examples: Examples, batch_size: int) -> Order:
        """Raises UsageError for batches of one, where the loss is of others' answers too."""
        number = len(examples)
        if self.needs.mismatched and number % batch_size in (1, 1 % batch_size):
            cure = next((f": --batch-size {size} leaves none" for size in range(batch_size + 1, number + 1)
                         if number % size != 1), "")
            raise click.UsageError(f"--loss {self.loss} needs others' answers in each step, and --batch-size "
                                   f"{batch_size} leaves one of {number} records alone{cure}")
        return super().order(examples, batch_size)

    def before(self, step: int | None, indices: Sequence[int], examples: Sequence[Example], ask: Ask[Policy]) -> None:
        if self.needs.mismatched:
            mean = self.mean_mismatched([examples[i] for i in indices], ask)
            self.mismatched = max(0.0, mean - self.reference_means[-1 if step is None else step])

    def step_means(self, examples: Sequence[Example], held_out: Sequence[Example], batches: Batches,
                   ask: Ask[Policy]) -> list[float]:
        """`mean_mismatched` of each step, and of an evaluation, by the model that `ask` asks."""
        steps = ([examples[i] for i in batches.at(step)] for step in range(len(batches)))
        return [self.mean_mismatched(some, ask) for some in chain(steps, [held_out] if held_out else [])]

    def mean_mismatched(self, examples: Sequence[Example], ask: Ask[Policy]) -> float:
        """The mean log-probability of each prompt's next record's answers, over a step's examples."""
        rows = ask(mismatched_examples(examples, self.longest), self.sum_logps)
        return math.fsum(map(math.fsum, rows)) / sum(map(len, rows))

    def sum_logps(self, model: Policy, batch: Pack) -> Tensor:
        return model.logps(batch, self.temperature)

    def width(self, completions: int) -> int:
        """Completions a group, of so many in a record."""
        return 1 if self.needs.single else 2 if self.needs.pairs else self.num_contrastive or completions

    def size(self, example: Example) -> float:
        return len(example.completions) / self.width(len(example.completions))

    def __call__(self, model: Policy, batch: Pack) -> tuple[Tensor, dict[str, Tensor]]:
        logps = self.sum_logps(model, batch)  # [E, K]
        tensors = {"logps": logps.float()}
        tensors |= {name: batch.values[name] for name in ("rewards", "good") if name in batch.values}
        if self.needs.reference:  # the small difference of two long sums: taken in float64
            tensors["log_ratio"] = (logps - batch.values["ref_logps"]).float()
        if "mean_logps" in self.needs.takes:
            tensors["mean_logps"] = (logps / batch.counts().clamp(min=1)).float()
        loss = self.group_losses(self.groups(tensors))
        margin = self.margins({name: tensor.detach() for name, tensor in tensors.items()})
        accuracy = (margin > 0).float() + 0.5 * (margin == 0).float()
        figures = {"margin": margin.sum(), "accuracy": accuracy.sum()}
        if self.needs.mismatched:
            figures["kl"] = logps.new_tensor(self.mismatched * batch.shape[0])
        elif self.needs.reference:  # of completions that the reference drew, an estimate of KL(pi_ref || pi)
            figures["kl"] = -tensors["log_ratio"].detach().mean(1).sum()
        return loss.sum(), figures

    def margins(self, tensors: dict[str, Tensor]) -> Tensor:
        """How far the best completion of each record is ahead of the worst, [E]; of single ones, [E, K]: how far each
        is on its side of the mismatched."""
        judged = tensors[next(name for name in self.needs.takes if name in tensors and name != "rewards")]
        scale = self.beta_pi if "beta_pi" in self.needs.takes else 1.0
        if self.needs.single:
            return scale * (2 * tensors["good"] - 1) * (judged - self.mismatched)
        rewards = tensors["rewards"]
        best, worst = rewards.argmax(1, keepdim=True), rewards.argmin(1, keepdim=True)
        return scale * (judged.gather(1, best) - judged.gather(1, worst))[:, 0]

    def groups(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """[E, K] each -> [G, K'], groups of K'; of pairs the preferred completion comes into column 0."""
        grouped = {name: tensor.view(-1, self.width(tensor.shape[1])) for name, tensor in tensors.items()}
        if not self.needs.pairs:
            return grouped
        order = grouped["rewards"].argsort(1, descending=True)
        return {name: tensor.gather(1, order) for name, tensor in grouped.items()}

    def group_losses(self, groups: dict[str, Tensor]) -> Tensor:
        """The loss of each group: [G]."""
        from alignlib.training import losses

        values: dict[str, Any] = {**vars(self), **groups}
        if self.reference_free:
            values["log_ratio"] = groups["logps"]
        function = getattr(losses, self.loss.replace("-", "_"))
        loss: Tensor = function(*(values[name] for name in self.needs.takes))
        if self.importance:
            loss = loss * losses.importance(groups["log_ratio"])
        return loss - self.sft_reg * groups["logps"][:, 0] if self.needs.pairs else loss


def mismatched_examples(examples: Sequence[Example], longest: int) -> list[Example]:
    """Each prompt with the answers of the next record, the last with the first's, cut to `longest` tokens together."""
    return [Example(one.prompt, [ids[:longest - len(one.prompt)] for ids in other.completions])
            for one, other in zip(examples, [*examples[1:], examples[0]], strict=True)]


def with_label(record: Record) -> Record:
    """The record with rewards 1 or 0 by its label, true or false, which is of its completions, or of its answer."""
    if "rewards" in record or "label" not in record:  # of a preference's verdict; of none
        return record
    if not isinstance(record["label"], bool):
        raise ValueError(f"label: expected true or false, got {kind(record['label'])}")
    if "completions" not in record and "chosen" in record:
        record = {**record, "completions": [record["chosen"]]}
    fields.require_completions(record)
    return {**record, "rewards": [float(record["label"])] * len(record["completions"])}


def with_verdict(record: Record) -> Record:
    """The record with rewards 1 and 0 where chosen and rejected are its completions, or it has none."""
    record = with_completions(record)
    verdict = [record.get("chosen"), record.get("rejected")]
    if record.get("completions") not in (verdict, verdict[::-1]) or None in verdict:
        return record
    return {**record, "rewards": [float(text == record["chosen"]) for text in record["completions"]]}
