"""The losses of al-train-exo, each declared once, and the objective that computes them on groups of completions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from alignlib.records import fields
from alignlib.records.conversations import with_completions
from alignlib.records.jsonl import Record
from alignlib.training.objective import Objective

if TYPE_CHECKING:
    from torch import Tensor

    from alignlib.models.encoding import Encoder, Example
    from alignlib.models.packs import Pack
    from alignlib.models.policy import Policy


@dataclass(frozen=True)
class Loss:
    """A choice of --loss. The function of training.losses that bears its name gets what it `takes`, in this order.

    takes           tensors of groups of K' completions (`Contrast.groups`), and options by their names
    reference_free  whether --reference-free may put the policy's log-probabilities for the log-ratios
    importance      whether --importance may weigh its pairs

    What it takes says what it needs: log-ratios a reference, rewards groups of any width, all else pairs.
    """

    takes: tuple[str, ...]
    reference_free: bool = False
    importance: bool = False

    @property
    def pairs(self) -> bool:
        """Whether it is of two completions, the better one and the other."""
        return "rewards" not in self.takes

    @property
    def reference(self) -> bool:
        return "log_ratio" in self.takes

    def heeds(self, option: str) -> bool:
        """Whether the option changes anything for it."""
        own = {"reference_free": self.reference_free, "importance": self.importance, "sft_reg": self.pairs,
               "ref": self.reference}
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

    def __post_init__(self) -> None:
        self.needs = LOSSES[self.loss]

    def example(self, encoder: Encoder, record: Record) -> Example:
        stored = ["ref_logps"] if self.needs.reference and self.ref == "ref_logps" else []
        if "rewards" not in record:
            record = with_verdict(record)
        fields.require_completions(record, "rewards", *stored)
        rewards, width = record["rewards"], self.width(len(record["rewards"]))
        if len(rewards) < 2:
            raise ValueError("completions: one alone has nothing to be compared with")
        if len(rewards) % width:
            raise ValueError(f"completions: {len(rewards)} make no groups of {width}")
        if self.needs.pairs and any(rewards[i] == rewards[i + 1] for i in range(0, len(rewards), 2)):
            raise ValueError("rewards: a tie, no preference (al-pref2rw --to pref sorts them out)")
        example = encoder.encode(record, record["completions"])
        example.values["rewards"] = [float(reward) for reward in rewards]
        if stored:
            temperature = record.get("ref_logps_temperature", 1.0)
            if temperature != self.temperature:
                raise ValueError(f"ref_logps: made at temperature {temperature}, not {self.temperature}")
            example.values["ref_logps"] = [float(logp) for logp in record["ref_logps"]]
        return example

    def width(self, completions: int) -> int:
        """Completions a group, of so many in a record."""
        return 2 if self.needs.pairs else self.num_contrastive or completions

    def size(self, example: Example) -> float:
        return len(example.completions) / self.width(len(example.completions))

    def __call__(self, model: Policy, batch: Pack) -> tuple[Tensor, dict[str, Tensor]]:
        logps, rewards = model.logps(batch, self.temperature), batch.values["rewards"]  # [E, K]
        tensors = {"logps": logps.float(), "rewards": rewards}
        if self.needs.reference:  # the small difference of two long sums: taken in float64
            tensors["log_ratio"] = (logps - batch.values["ref_logps"]).float()
        if "mean_logps" in self.needs.takes:
            tensors["mean_logps"] = (logps / batch.counts().clamp(min=1)).float()
        loss = self.group_losses(self.groups(tensors))
        judged = tensors[next(name for name in self.needs.takes if name in tensors and name != "rewards")].detach()
        best, worst = rewards.argmax(1, keepdim=True), rewards.argmin(1, keepdim=True)
        margin = self.beta_pi * (judged.gather(1, best) - judged.gather(1, worst))[:, 0]
        accuracy = (margin > 0).float() + 0.5 * (margin == 0).float()
        figures = {"margin": margin.sum(), "accuracy": accuracy.sum()}
        if self.needs.reference:  # of completions that the reference drew, an estimate of KL(pi_ref || pi)
            figures["kl"] = -tensors["log_ratio"].detach().mean(1).sum()
        return loss.sum(), figures

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


def with_verdict(record: Record) -> Record:
    """The record with rewards 1 and 0 where chosen and rejected are its completions, or it has none."""
    record = with_completions(record)
    verdict = [record.get("chosen"), record.get("rejected")]
    if record.get("completions") not in (verdict, verdict[::-1]) or None in verdict:
        return record
    return {**record, "rewards": [float(text == record["chosen"]) for text in record["completions"]]}
