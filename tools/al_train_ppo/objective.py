"""The losses of al-train-ppo on a rollout's packs: the policy's, by --method, and the critic's."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from alignlib.training.objective import Objective

if TYPE_CHECKING:
    from torch import Tensor

    from al_train_ppo.rollout import Rollout
    from al_train_ppo.settings import Settings
    from alignlib.models.example import Example
    from alignlib.models.packs import Pack
    from alignlib.models.policy import Policy, RewardModel


@dataclass
class Surrogate(Objective["Policy"]):
    """The policy's loss: the clipped ratio of PPO on tokens, or of RLOO on whole answers; GRPO's with the KL beside it.

    rollout  whose packs are read
    state    kl_coef, where it follows a target
    seen     by example, the log-probabilities of a rollout whose packs are read once, and were not before
    """

    settings: Settings
    rollout: Rollout | None = field(default=None, init=False)
    seen: dict[int, Tensor] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.sized = ("kl_loss",)
        if self.settings.kl_target is not None:
            self.state = {"kl_coef": self.settings.kl_coef}

    @property
    def kl_coef(self) -> float:
        coefficient: float = self.state.get("kl_coef", self.settings.kl_coef)
        return coefficient

    def size(self, example: Example) -> float:
        answers = len(example.completions)
        if self.settings.method == "rloo" or self.settings.loss_mean == "answer":
            return answers
        if self.settings.loss_mean == "constant":
            return answers * self.settings.max_new_tokens
        return sum(map(len, example.completions))

    def __call__(self, model: Policy, batch: Pack) -> tuple[Tensor, dict[str, Tensor]]:
        from al_train_ppo.rollout import by_example
        from alignlib.training import losses

        assert self.rollout is not None
        settings, rollout = self.settings, self.rollout
        new = model.token_logps(batch, settings.temperature)  # [N]
        if "old" in rollout.tokens:
            old = rollout.tokens_of("old", batch)
        else:
            old = new.detach()
            self.seen |= by_example(batch, old)
        counts = batch.counts().clamp(min=1)
        if settings.method == "rloo":
            ratio = (batch.sums(new) - batch.sums(old)).float().exp()  # [E, K]; of two long sums: taken in float64
            advantages = batch.values["advantages"]
            terms = losses.clipped_ratio(ratio, advantages, settings.clip_ratio)
            return terms.sum(), {"clip_share": self.clipped(ratio).mean(1).sum()}
        ratio = (new - old).exp()
        if settings.method == "ppo":
            advantages = rollout.tokens_of("advantages", batch)
        else:
            advantages = batch.values["advantages"].flatten()[batch.owner]
        terms = losses.clipped_ratio(ratio, advantages, settings.clip_ratio)
        figures = {"clip_share": (batch.sums(self.clipped(ratio)) / counts).mean(1).sum()}
        if settings.method == "grpo" and self.kl_coef:
            kl = losses.kl_estimate(new, rollout.tokens_of("reference", batch))
            terms = terms + self.kl_coef * kl
            figures["kl_loss"] = self.mean(kl.detach(), batch, counts)
        return self.mean(terms, batch, counts), figures

    def mean(self, terms: Tensor, batch: Pack, counts: Tensor) -> Tensor:
        """The terms [N] summed as --loss-mean wants them, to be divided by what `size` counts."""
        return (batch.sums(terms) / counts).sum().float() if self.settings.loss_mean == "answer" else terms.sum()

    def clipped(self, ratio: Tensor) -> Tensor:
        return ((ratio.detach() - 1).abs() > self.settings.clip_ratio).float()

    def stepped(self, entry: dict[str, Any]) -> None:
        """Let the KL's coefficient follow its target."""
        from alignlib.training import losses

        if self.settings.kl_target is not None:
            entry["kl_coef"] = self.kl_coef
            assert self.rollout is not None
            answers = self.rollout.scores.numel()
            self.state["kl_coef"] = losses.adapted(self.kl_coef, entry["kl"], self.settings.kl_target, answers)


@dataclass
class ValueLoss(Objective["RewardModel"]):
    """The critic's loss: how far its values, read before each token, are from the returns; a mean over tokens."""

    clip: float
    rollout: Rollout | None = field(default=None, init=False)

    def size(self, example: Example) -> float:
        return sum(map(len, example.completions))

    def __call__(self, model: RewardModel, batch: Pack) -> tuple[Tensor, dict[str, Tensor]]:
        from alignlib.training import losses

        assert self.rollout is not None
        old, returns = self.rollout.tokens_of("values", batch), self.rollout.tokens_of("returns", batch)
        return losses.clipped_values(values_of(model, batch), old, returns, self.clip).sum(), {}


def values_of(critic: RewardModel, batch: Pack) -> Tensor:
    """What the critic expects of an answer before each of its tokens is written: [N], float32."""
    with critic.precision():
        return critic.head(critic.hidden(batch)[batch.sources])[:, 0]
