"""What al-train-rm trains on for reward models that say what every next token is worth.

next-token  -log sigmoid(beta (log pi_r(y_w) - log pi_r(y_l))): DPO without a reference, so that the log-probabilities
            themselves are rewards (GenARM, Xu et al. 2025, arXiv 2410.08193)
vocabulary  in turns, step by step: the ranking of whole texts by the value of their last token, and the consistency of
            the better text's values, each with the best one after it (Rashid et al. 2025, arXiv 2502.04517)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from al_train_rm.ranking import Preferences, ordered
from alignlib.models.packs import Pack
from alignlib.models.token_rewards import NextTokenReward, VocabularyReward
from alignlib.training import losses

if TYPE_CHECKING:
    from alignlib.models.example import Example
    from alignlib.training.objective import Ask


@dataclass
class NextToken(Preferences[NextTokenReward]):
    """The order of log-probabilities, times `beta`."""

    beta: float = 1.0

    def __call__(self, model: NextTokenReward, batch: Pack) -> tuple[Tensor, dict[str, Tensor]]:
        scores, rewards = model.scores(batch), batch.values["rewards"]
        loss = self.ranking(self.beta * scores, rewards)
        return loss.sum(), {name: values.sum() for name, values in self.figures(scores, rewards).items()}


@dataclass
class Values(Preferences[VocabularyReward]):
    """The order of texts' values in even steps and in evaluations, in odd ones the consistency."""

    turn: str = "ranking"

    def before(self, step: int | None, indices: Sequence[int], examples: Sequence[Example],
               ask: Ask[VocabularyReward]) -> None:
        self.turn = "consistency" if step is not None and step % 2 else "ranking"

    def __call__(self, model: VocabularyReward, batch: Pack) -> tuple[Tensor, dict[str, Tensor]]:
        rewards = batch.values["rewards"]
        with model.precision():
            hidden = model.hidden(batch)
            scores = model.scores_from(hidden, batch)
            apart = self.consistency(model, hidden, batch) if self.consistent else None
        loss, figures = self.ranking(scores, rewards), self.figures(scores.detach(), rewards)
        if apart is not None:
            figures["consistency"] = apart
            if self.turn == "consistency":
                loss = apart * ordered(rewards).sum((1, 2))  # a step's loss is a mean over pairs
        return loss.sum(), {name: values.detach().sum() for name, values in figures.items()}

    @property
    def consistent(self) -> bool:
        """Whether the consistency is wanted: in its steps, and in evaluations."""
        return self.turn == "consistency" or not torch.is_grad_enabled()

    def consistency(self, model: VocabularyReward, hidden: Tensor, batch: Pack) -> Tensor:
        """Its mean over the tokens of each example's best completion but the last, 0 of none: [E]."""
        rewards = batch.values["rewards"]
        best = rewards.argmax(1) + torch.arange(len(rewards), device=rewards.device) * rewards.shape[1]  # of E * K
        wanted = torch.isin(batch.owner, best)
        owner = batch.owner[wanted]
        values, after = model.values(hidden[batch.sources[wanted]], batch.targets[wanted])
        follows = owner[1:] == owner[:-1]
        apart = losses.consistency(values[:-1][follows], after[1:][follows])
        whose = owner[:-1][follows] // rewards.shape[1]
        sums = apart.new_zeros(len(rewards)).index_add(0, whose, apart)
        return sums / torch.bincount(whose, minlength=len(rewards)).clamp(min=1)
