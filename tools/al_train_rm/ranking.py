"""What al-train-rm trains on: the order of a prompt's completions, or the class of a text."""

from __future__ import annotations

import re
from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import orjson

from al_train_rm import beginnings
from alignlib.records import fields
from alignlib.records.jsonl import DataError, Record, Skip
from alignlib.training.objective import Objective

if TYPE_CHECKING:
    from torch import Tensor

    from alignlib.models.encoding import Encoder
    from alignlib.models.example import Example
    from alignlib.models.logps import Head
    from alignlib.models.packs import Pack
    from alignlib.models.policy import Model, RewardModel
    from alignlib.training.examples import Examples

M = TypeVar("M", bound="Model")


class Rated(NamedTuple):
    """What a model says of a pack, and the losses of each example."""

    scores: Tensor  # [E, K]
    read: Tensor | None  # [E * K, H], what the head read; None for a model without such a head
    loss: Tensor  # [E]: the ranking's, over its beginnings too
    nll: Tensor  # [E]: `Ranking.nll`
    beginnings: Tensor | None  # [E]: pair accuracy over its beginnings; where it has none, over the whole


@dataclass
class Preferences(Objective[M]):
    """What orders a prompt's completions: -log sigmoid of every score gap that their rewards order."""

    margin: float = 0.0
    soft: float = 0.0

    def example(self, encoder: Encoder, record: Record) -> Example:
        judged = {"chosen", "rejected"} <= record.keys() and "rewards" not in record  # a verdict on its completions
        if "completions" in record and not judged:
            fields.require_completions(record, "rewards")
            completions, rewards = record["completions"], record["rewards"]
        else:
            fields.require(record, "prompt", "chosen", "rejected")
            completions, rewards = [record["chosen"], record["rejected"]], [1, 0]
            record = {name: value for name, value in record.items() if name not in fields.ALIGNED}
        fields.require_float32(rewards, "rewards")
        rewards = array("f", rewards).tolist()  # as the loss has them: 0.1 + 0.2 is no better than 0.3
        if len(set(rewards)) == 1:
            raise Skip("rewards: all equal, no preference")
        example = encoder.encode(record, completions)
        example.values["rewards"] = rewards
        return example

    def size(self, example: Example) -> float:
        rewards = example.values["rewards"]
        return sum(one > other for one in rewards for other in rewards)

    def ranking(self, scores: Tensor, rewards: Tensor) -> Tensor:
        """The loss of each example: [E, K], [E, K] -> [E]."""
        from alignlib.training import losses

        return losses.ranking(scores, rewards, self.margin, self.soft)

    def figures(self, scores: Tensor, rewards: Tensor) -> dict[str, Tensor]:
        """Of each example, [E]: pair accuracy, the scores of its best and its worst completion."""
        best = scores.gather(1, rewards.argmax(1, keepdim=True))[:, 0]
        worst = scores.gather(1, rewards.argmin(1, keepdim=True))[:, 0]
        return {"accuracy": pair_accuracy(scores, rewards), "best_score": best, "worst_score": worst}


@dataclass
class Ranking(Preferences["RewardModel"]):
    """By one score a text.

    lm_coef      what the likelihood of the best completion counts beside it
    prefixes     random beginnings that are ranked too, drawn by `seed`
    output_head  what turns hidden states into words' logits, for `lm_coef`; set once the model is loaded
    """

    lm_coef: float = 0.0
    prefixes: int = 0
    seed: int = 0
    output_head: Head | None = None

    def example(self, encoder: Encoder, record: Record) -> Example:
        example = super().example(encoder, record)
        example.values |= beginnings.cut(example, self.prefixes, self.seed)
        return example

    def size(self, example: Example) -> float:
        """Its pairs, as often as they are ranked: whole, and by each of their beginnings."""
        return super().size(example) * (1 + beginnings.count(example, self.prefixes))

    def __call__(self, model: RewardModel, batch: Pack) -> tuple[Tensor, dict[str, Tensor]]:
        rated = self.rate(model, batch)
        figures = self.all_figures(rated, batch)
        loss = (rated.loss + self.added(rated.nll, batch)).sum()
        return loss, {name: values.sum() for name, values in figures.items()}

    def all_figures(self, rated: Rated, batch: Pack) -> dict[str, Tensor]:
        """`figures`, and those of what else is trained on."""
        figures = self.figures(rated.scores, batch.values["rewards"])
        if self.lm_coef:
            figures["lm_loss"] = rated.nll
        if rated.beginnings is not None:
            figures["prefix_accuracy"] = rated.beginnings
        return figures

    def added(self, nll: Tensor, batch: Pack) -> Tensor:
        """What --lm-coef adds to each example's loss, [E]; as a step's loss is a mean over pairs, it goes by pairs."""
        pairs = ordered(batch.values["rewards"]).sum((1, 2))
        if self.prefixes:
            pairs = pairs * (1 + self.prefixes * has_beginnings(batch))
        return self.lm_coef * pairs * nll

    def rate(self, model: RewardModel, batch: Pack) -> Rated:
        import torch

        rewards = batch.values["rewards"]
        if not hasattr(model.core, "score"):
            scores = model.scores(batch)
            loss = self.ranking(scores, rewards)
            return Rated(scores, None, loss, loss.new_zeros(loss.shape), None)
        with model.precision():
            hidden = model.hidden(batch)
            read = model.pooled(hidden, batch)
            scores = model.head(read).view(batch.shape)
        loss = self.ranking(scores, rewards)
        nll = self.nll(model, hidden, batch) if self.lm_coef else loss.new_zeros(loss.shape)
        if not self.prefixes:
            return Rated(scores, read, loss, nll, None)
        with model.precision():
            early = model.head(hidden[beginnings.last_places(batch, self.prefixes)].flatten(0, 1))
        early, there = early.view(self.prefixes, *batch.shape), has_beginnings(batch)
        for beginning in early:
            loss = loss + self.ranking(beginning, rewards) * there
        accuracy = [pair_accuracy(beginning.detach(), rewards) for beginning in early]
        return Rated(scores, read, loss, nll, torch.stack(accuracy).mean(0))

    def nll(self, model: RewardModel, hidden: Tensor, batch: Pack) -> Tensor:
        """Mean -log pi(token) of each example's best completion: [E]."""
        import torch

        from alignlib.models.logps import token_logps

        assert self.output_head is not None
        rewards = batch.values["rewards"]
        best = rewards.argmax(1) + torch.arange(len(rewards), device=rewards.device) * rewards.shape[1]  # of E * K
        wanted = torch.isin(batch.owner, best)
        with model.precision():
            logps = token_logps(self.output_head, hidden[batch.sources[wanted]], batch.targets[wanted],
                                model.core.config.vocab_size)
        sums = torch.zeros(rewards.numel(), dtype=torch.float64, device=logps.device)
        sums = sums.index_add(0, batch.owner[wanted], logps.double())
        return (-sums[best] / batch.counts().flatten()[best].clamp(min=1)).float()


def ordered(rewards: Tensor) -> Tensor:
    """Which of two completions has the higher reward: [E, K] -> [E, K, K]."""
    return rewards[:, :, None] > rewards[:, None, :]


def pair_accuracy(scores: Tensor, rewards: Tensor) -> Tensor:
    """The share of the pairs ordered by rewards that scores order alike, a tie as half: [E, K], [E, K] -> [E]."""
    gaps, better = scores[:, :, None] - scores[:, None, :], ordered(rewards)
    right = (gaps > 0).float() + 0.5 * (gaps == 0).float()
    return (right * better).sum((1, 2)) / better.sum((1, 2))


def has_beginnings(batch: Pack) -> Tensor:
    """Whether each example has any: [E]."""
    return batch.values[beginnings.column(0)][:, 0] != beginnings.NONE


@dataclass
class Classes(Objective["RewardModel"]):
    """The cross-entropy of a text's class; a class that is no text has its JSON for a name."""

    def example(self, encoder: Encoder, record: Record) -> Example:
        from alignlib.models.example import Example

        fields.require(record, "text", "label")
        label = record["label"]
        name = label if isinstance(label, str) else orjson.dumps(label).decode()
        if name not in self.names:
            self.names.append(name)
        example = Example(encoder.prompt({"prompt": ""}), [encoder.completion(record["text"], encoder.eos)])
        example = encoder.fit(example)
        example.values["label"] = [self.names.index(name)]
        return example

    def settle(self, examples: Examples, held_out: Examples) -> None:
        """The class names, sorted, so that a class's number does not depend on the order of the data.

        Raises DataError for one class only.
        """
        order = sorted(self.names, key=by_number)
        if len(order) < 2:
            raise DataError(f"label: one class only, {order[0]}: a classifier needs two or more")
        renumber(self, order, "label", examples, held_out)

    def __call__(self, model: RewardModel, batch: Pack) -> tuple[Tensor, dict[str, Tensor]]:
        from torch.nn.functional import cross_entropy

        logits, labels = model.logits(batch), batch.values["label"][:, 0]
        right = (logits.argmax(-1) == labels).float()
        return cross_entropy(logits, labels, reduction="sum"), {"accuracy": right.sum()}


def renumber(objective: Objective[Any], order: list[str], name: str, *parts: Examples) -> None:
    """Put the objective's names in this order, and their numbers in the examples' values of that name."""
    import numpy as np

    places = np.array([order.index(met) for met in objective.names])
    for examples in filter(len, parts):
        examples.values[name] = places[examples.values[name]]
    objective.names = order


def by_number(name: str) -> tuple[bool, int, str]:
    """What class names are sorted by: whole numbers come first, 9 before 10, then the others as texts."""
    number = re.fullmatch("-?[0-9]+", name)
    return not number, int(name) if number else 0, name
