"""al-train-rm --more: one reward model for many preferences, whose domains are weighed by their gradients at its head.

For each domain t of a step, with g_t the gradient of its mean ranking loss l_t by the reward head alone:

    m_t <- (1 - alpha) m_t + alpha g_t
    n_t  = m_t, normalised
    lambda = the point of the simplex with the least |sum_t lambda_t n_t|^2

Source: Zeng et al. 2023 (arXiv 2312.07401). Momentum starts at zero; the authors' code starts it at the head's random
weights, which are no gradient. Their solver takes Frank-Wolfe steps, cut off at the vertices; here it is exact.
"""

import math
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import add
from typing import Any, ClassVar, NamedTuple

import click
import torch
from torch import Tensor
from torch.autograd import grad

from al_train_rm.ranking import Ranking, ordered, renumber
from alignlib import ranks
from alignlib.models.encoding import Encoder
from alignlib.models.example import Example
from alignlib.models.packs import Pack
from alignlib.models.policy import RewardModel
from alignlib.records import fields
from alignlib.records.jsonl import DataError, Record
from alignlib.training.batches import Order
from alignlib.training.examples import Examples

NORMALIZERS = ("none", "l2", "loss", "loss+")


class PackSums(NamedTuple):
    """What is kept of a pack until its step's weights are known; by domain where it says [T]."""

    loss: Tensor  # [T], with its graph: the ranking loss
    added: Tensor  # (), with its graph: what --lm-coef adds
    gradients: Tensor  # [T, H] of the loss by the head
    counted: tuple[Tensor, ...]  # four of [T]: the loss, pairs, accuracy, examples


@dataclass(frozen=True)
class Balanced:
    """`size` examples of each group, in turn; a smaller group goes round as often as it takes."""

    groups: tuple[Sequence[int] | Tensor, ...]
    size: int

    def __len__(self) -> int:
        return len(self.groups) * self.size

    def draw(self, generator: torch.Generator) -> Tensor:
        drawn = []
        for group in self.groups:
            rounds = [torch.randperm(len(group), generator=generator)
                      for _ in range(math.ceil(self.size / len(group)))]
            drawn.append(torch.as_tensor(group)[torch.cat(rounds)[:self.size]])
        return torch.stack(drawn, 1).flatten()


@dataclass
class More(Ranking):
    """`Ranking`, its domains weighed by their gradients at the head, anew each step."""

    whole_step: ClassVar[bool] = True
    alpha: float = 0.99
    normalize: str = "l2"
    no_reweight: bool = False
    resample: int | None = None  # records of each domain an epoch
    held: list[PackSums] = field(default_factory=list, init=False)  # of the step's packs
    shares: dict[int, tuple[float, float]] = field(default_factory=dict, init=False)  # of held-out examples, pairs
    figures_of_step: dict[str, float] = field(default_factory=dict, init=False)

    def example(self, encoder: Encoder, record: Record) -> Example:
        fields.require(record, "domain")
        if record["domain"] not in self.names:
            self.names.append(record["domain"])
        example = super().example(encoder, record)
        example.values["domain"] = [self.names.index(record["domain"])] * len(example.completions)
        return example

    def settle(self, examples: Examples, held_out: Examples) -> None:
        """Number the domains by name. Raises DataError for those that say nothing."""
        renumber(self, sorted(self.names), "domain", examples, held_out)
        self.expect(held_out)
        counts = Counter(examples.first_values("domain").tolist())
        for number, name in enumerate(self.names):
            if counts[number] == 1:
                raise DataError(f"domain {name!r}: one record only with two different scores is left")
            if not counts[number] and number not in self.shares:
                raise DataError(f"domain {name!r}: no record with two different scores is left")
        if len(counts) < 2:
            (only,) = counts
            raise DataError(f"one domain only, {self.names[only]!r}: --more weighs several")
        for number in self.shares.keys() - counts.keys():
            print(f"warning: domain {self.names[number]!r}: evaluated, but nothing to train on", file=sys.stderr)

    def expect(self, held_out: Examples) -> None:
        """What part of an evaluation each domain is: means over examples or pairs are told by domain too."""
        records: Counter[int] = Counter()
        pairs: Counter[int] = Counter()
        for example in held_out:
            number = int(example.values["domain"][0])
            records[number] += 1
            pairs[number] += int(self.size(example))
        self.shares = {number: (records[number] / records.total(), pairs[number] / pairs.total())
                       for number in sorted(records)}
        self.sized = tuple(f"loss_{self.names[number]}" for number in self.shares)

    def order(self, examples: Examples, batch_size: int) -> Order:
        """With --resample as many of each domain. Raises UsageError."""
        if not self.resample:
            return super().order(examples, batch_size)
        domains = torch.from_numpy(examples.first_values("domain"))
        numbers = domains.unique().tolist()
        if batch_size % len(numbers):
            raise click.UsageError(f"--batch-size {batch_size}: not the same number of each of {len(numbers)} domains")
        return Balanced(tuple((domains == number).nonzero()[:, 0] for number in numbers), self.resample)

    def __call__(self, model: RewardModel, batch: Pack) -> tuple[Tensor, dict[str, Tensor]]:
        domain = batch.values["domain"][:, 0]
        rated = self.rate(model, batch)
        scores, read, loss = rated.scores, rated.read, rated.loss
        figures, added = self.all_figures(rated, batch), self.added(rated.nll, batch).sum()
        sums = {name: values.sum() for name, values in figures.items()}
        if torch.is_grad_enabled():
            assert read is not None
            self.hold(read.detach().float(), scores.detach(), batch, loss, figures["accuracy"].detach(), added)
        else:
            for number, (records, pairs) in self.shares.items():
                sums[f"accuracy_{self.names[number]}"] = figures["accuracy"][domain == number].sum() / records
                sums[f"loss_{self.names[number]}"] = loss[domain == number].sum() / pairs
        return loss.sum() + added, sums

    def hold(self, read: Tensor, scores: Tensor, batch: Pack, loss: Tensor, accuracy: Tensor, added: Tensor) -> None:
        """Keep of a pack what the step's loss and weights are made of. [E * K, H], [E, K]; of each example [E]."""
        rewards, domain = batch.values["rewards"], batch.values["domain"][:, 0]
        free = scores.requires_grad_()
        plain = self.ranking(free, rewards)
        by_score, = grad(plain.sum(), free)
        zeros = scores.new_zeros(len(self.names))
        pairs = ordered(rewards).sum((1, 2)).to(zeros.dtype)
        whose = domain.repeat_interleave(rewards.shape[1])
        gradients = head_gradients(by_score.flatten(), read, whose, len(zeros))
        counted = tuple(zeros.index_add(0, domain, values.detach()).cpu()
                        for values in (plain, pairs, accuracy, torch.ones_like(accuracy)))
        self.held.append(PackSums(zeros.index_add(0, domain, loss), added, gradients.cpu(), counted))

    def step_loss(self, counts: Sequence[bool]) -> Tensor:
        """T * sum_t lambda_t * (the domain's sum of ranking losses), over the T domains of the step; what is added."""
        loss = reduce(add, (pack.loss * count for pack, count in zip(self.held, counts, strict=True)))
        added = reduce(add, (pack.added * count for pack, count in zip(self.held, counts, strict=True)))
        mine = [(pack.gradients, *pack.counted) for pack, count in zip(self.held, counts, strict=True) if count]
        self.held = []
        every = [pack for packs in ranks.gather(mine) for pack in packs]
        gradients, sums, pairs, accuracy, examples = (reduce(add, tensors) for tensors in zip(*every, strict=True))
        there = pairs > 0
        means, gradients = sums[there] / pairs[there], gradients[there] / pairs[there, None]
        weights = self.weights(gradients, means, there)
        places = there.nonzero()[:, 0].tolist()
        self.figures_of_step = {
            f"{name}_{self.names[place]}": value for name, values in
            (("lambda", weights), ("loss", means), ("accuracy", accuracy[there] / examples[there]))
            for place, value in zip(places, values.tolist(), strict=True)}
        return len(weights) * (weights.to(loss.device) * loss[there.to(loss.device)]).sum() + added

    def weights(self, gradients: Tensor, means: Tensor, there: Tensor) -> Tensor:
        """Lambda, of the D domains that are in the step, by its gradients [D, H] and mean losses [D]; `there` [T]."""
        if self.no_reweight:
            return torch.full_like(means, 1 / len(means))
        momentum = self.state.get("momentum", torch.zeros(len(there), gradients.shape[1]))
        momentum[there] = (1 - self.alpha) * momentum[there] + self.alpha * gradients
        self.state["momentum"] = momentum
        return min_norm(normalised(momentum[there], means, self.normalize)).to(means.dtype)

    def stepped(self, entry: dict[str, Any]) -> None:
        entry |= self.figures_of_step


def head_gradients(by_score: Tensor, embeddings: Tensor, domain: Tensor, domains: int) -> Tensor:
    """The gradient by a linear head of each domain's loss: [N], [N, H], [N] numbers of domains -> [domains, H].

    by_score: the loss's gradient by each score; a score is the head's product with its embedding.
    """
    sums = embeddings.new_zeros(domains, embeddings.shape[1])
    return sums.index_add(0, domain, by_score[:, None] * embeddings)


def normalised(gradients: Tensor, losses: Tensor, kind: str) -> Tensor:
    """Gradients [T, H] of comparable length, by their own or by their losses [T]; a norm or a loss of 0 counts as 1.

    none m, l2 m / |m|, loss m / ((l + 1) / sum(l + 1)), loss+ m / (|m| l)
    """
    norms = gradients.norm(dim=1)
    norms = torch.where(norms > 0, norms, 1)
    by = {"none": torch.ones_like(norms), "l2": norms, "loss": (losses + 1) / (losses + 1).sum(),
          "loss+": norms * torch.where(losses > 0, losses, 1)}[kind]
    return gradients / by[:, None]


def min_norm(vectors: Tensor) -> Tensor:
    """The point of the simplex whose combination of `vectors` [T, H] is shortest: [T], float64.

    All zero: 1 / T each. Not finite: NaN, for the trainer to find in the loss.

    Least squares that may not be negative: min over x >= 0 of |V'x|^2 + (1'x - 1)^2 is, along each ray x = s lambda,
    |V'lambda|^2 / (1 + |V'lambda|^2) at best, so x / sum(x) is the point. Solved by scipy's nnls.
    """
    from scipy.optimize import nnls

    vectors = vectors.double()
    longest = vectors.norm(dim=1).max()
    if longest == 0 or not longest.isfinite():
        return vectors.new_full((len(vectors),), 1 / len(vectors) if longest == 0 else float("nan"))
    columns = (vectors / longest).T
    point, _ = nnls(torch.cat([columns, columns.new_ones(1, len(vectors))]).numpy(), [0.0] * len(columns) + [1.0])
    weights = torch.from_numpy(point)
    return weights / weights.sum()
