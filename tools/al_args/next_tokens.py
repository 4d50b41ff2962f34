"""Guidance by reward models that say what every next token is worth: each is asked once a step, about all of them.

next-token          log pi(v) + sum over the reward models of weight * log pi_r(v)       GenARM (Xu et al. 2025)
greedy, stochastic  logit(v) + weight * V(v), v: the topk tokens with the largest logits     (Rashid et al. 2025)

The texts are drawn by al-sample's engine, in its batches, by its draws: each model reads all rows in one pass a step.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from al_args.settings import Search
from al_args.token_by_token import GuidedDraw
from alignlib.decoding.draws import Draw
from alignlib.decoding.sampler import Rows
from alignlib.models.encoding import Encoder
from alignlib.models.scoring import PackScorer
from alignlib.models.token_rewards import TokenReward


@dataclass(slots=True)
class NextDraw(GuidedDraw):
    """A completion, its prompt as each reward model reads it, and what each has said of it; nan: it was not asked."""

    prompts: list[list[int]] = field(default_factory=list)
    said: list[float] = field(default_factory=list)


@dataclass
class Guide:
    """A reward model and how it reads: prompts by `encoder`, texts that are done by `reader`."""

    path: str
    model: TokenReward
    encoder: Encoder
    reader: Encoder
    scorer: PackScorer

    def rows(self, batch: Sequence[NextDraw], number: int) -> Rows:
        """The texts of a batch, of which it is reward model `number`."""
        return Rows(self.model, [(draw.record, draw.prompts[number]) for draw in batch])


class Products:
    """A Guidance: the policy's distribution times those of the guides, each to the power of its weight.

    vocabulary  tokens that all models know
    calls       rows that reward models were asked about
    """

    def __init__(self, guides: Sequence[Guide], weights: Sequence[float], batch: Sequence[NextDraw], vocabulary: int):
        self.guides, self.weights, self.vocabulary, self.calls = guides, weights, vocabulary, 0
        self.texts = [guide.rows(batch, number) for number, guide in enumerate(guides)]
        self.logits: list[tuple[Tensor, Tensor]] = []  # [R, vocabulary] of this step, and their logsumexp [R]

    def guide(self, logits: Tensor, rows: Sequence[Draw]) -> Tensor:
        total, self.logits = logits[:, :self.vocabulary].float(), []
        for guide, weight, texts in zip(self.guides, self.weights, self.texts, strict=True):
            own = texts.logits().float()
            norms = own.logsumexp(-1)
            must_be_finite(norms, rows, f"{guide.path}: the reward model's logits are not finite")
            total = total + weight * own[:, :self.vocabulary].to(total.device)
            self.logits.append((own, norms))
            self.calls += sum(not row.reason for row in rows)
        weighed = total.amax(-1).where(logits.amax(-1).isfinite(), 0.0)  # the model's own are looked at later
        must_be_finite(weighed, rows, "log-probabilities + weights * rewards are not finite")
        return total

    def take(self, tokens: Tensor, rows: Sequence[NextDraw]) -> None:
        for number, ((own, norms), texts) in enumerate(zip(self.logits, self.texts, strict=True)):
            there = tokens.to(own.device).clamp(min=0)
            logps = own.gather(1, there[:, None])[:, 0] - norms
            for row, logp in zip(rows, logps.tolist(), strict=True):
                if not row.reason:
                    row.said[number] += logp
            texts.read(there)

    def keep(self, rows: Tensor) -> None:
        for texts in self.texts:
            texts.keep(rows.to(texts.policy.device))


class Candidates:
    """A Guidance: of the policy's likeliest tokens those that `search` asks for, by logit + weight * value.

    The values are asked for where a row has more than one candidate left.
    """

    def __init__(self, guide: Guide, search: Search, batch: Sequence[NextDraw], vocabulary: int):
        self.path, self.search, self.vocabulary, self.calls = guide.path, search, vocabulary, 0
        self.texts = guide.rows(batch, 0)
        self.values: Tensor | None = None  # of this step

    def guide(self, logits: Tensor, rows: Sequence[Draw]) -> Tensor:
        best = logits[:, :self.vocabulary].float().topk(self.search.topk)
        must_be_finite(best.values[:, 0], rows, "the model's logits are not finite")
        scores, self.values = best.values, None
        if self.search.margin is not None:
            scores = scores.masked_fill(scores < scores[:, :1] - self.search.margin, -torch.inf)
        several = zip(scores.gt(-torch.inf).sum(-1).gt(1).tolist(), rows, strict=True)
        asked = sum(open_ and not row.reason for open_, row in several)
        if self.search.weight and asked:
            self.values, self.calls = self.texts.logits().float(), self.calls + asked
            values = self.values.to(scores.device).gather(1, best.indices)
            must_be_finite(values.sum(-1), rows, f"{self.path}: the reward model's values are not finite")
            scores = scores + self.search.weight * values
            must_be_finite(scores.amax(-1), rows, f"logit + {self.search.weight:g} * value is not finite")
        below = scores - scores.amax(-1, keepdim=True)  # the same shares; no temperature is too low for them
        return torch.full_like(logits[:, :self.vocabulary], -torch.inf, dtype=below.dtype).scatter(
            1, best.indices, below)

    def take(self, tokens: Tensor, rows: Sequence[NextDraw]) -> None:
        there = tokens.to(self.texts.policy.device).clamp(min=0)
        worth = [math.nan] * len(rows) if self.values is None else self.values.gather(1, there[:, None])[:, 0].tolist()
        for row, value in zip(rows, worth, strict=True):
            if not row.reason:
                row.said[0] = value
        self.texts.read(there)

    def keep(self, rows: Tensor) -> None:
        self.texts.keep(rows.to(self.texts.policy.device))


def must_be_finite(numbers: Tensor, rows: Sequence[Draw], what: str) -> None:
    """Raises FloatingPointError, naming the record, where a row at work has a number that is none: [R]."""
    for row, fine in zip(rows, numbers.isfinite().tolist(), strict=True):
        if not fine and not row.reason:
            raise FloatingPointError(f"{row.where}: {what}")


def settle(guides: Sequence[Guide], weights: Sequence[float], draws: Sequence[NextDraw]) -> None:
    """Give draws that are done their rewards: al-score's by the one reward model; of several, their weighted sum.

    What a guide has said on the way is its reward where it has read the text as al-score does; else it reads anew.
    """
    for number, guide in enumerate(guides):
        late = []
        for draw in draws:
            own = {"finish_reasons": [draw.reason], "completion_ids": [draw.ids], "end_ids": [draw.end]}
            example = guide.reader.encode({**draw.about, **own}, [draw.text])
            was_cut = draw.reason == "stop" and draw.end is None  # at a stop string: its ids are new ones
            was_read = [*draw.ids, *([] if draw.end is None else [draw.end])]
            same = example.prompt == draw.prompts[number] and example.completions == [was_read] and not was_cut
            if not same or math.isnan(draw.said[number]):
                late.append((draw, example))
        scored = guide.scorer.score([example for _, example in late])
        for (draw, _), row in zip(late, scored, strict=True):
            [draw.said[number]] = row["rewards"]
    for draw in draws:
        alone = len(guides) == 1
        draw.reward = draw.said[0] if alone else math.fsum(map(math.prod, zip(weights, draw.said, strict=True)))

