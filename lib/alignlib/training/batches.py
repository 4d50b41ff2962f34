"""The batches of a run: their order, a function of the seed and the step alone, and the packs of each step."""

import heapq
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from alignlib import ranks
from alignlib.models.example import Example
from alignlib.models.packs import Pack
from alignlib.models.policy import Model
from alignlib.training.recipe import Recipe


class Order(Protocol):
    """In what order an epoch goes through the data."""

    def __len__(self) -> int:
        """Examples an epoch."""

    def draw(self, generator: torch.Generator) -> Tensor:
        """The examples of an epoch, by number: 8 bytes each, not a list's 40."""


@dataclass(frozen=True)
class Shuffled:
    """Each of `count` examples once."""

    count: int

    def __len__(self) -> int:
        return self.count

    def draw(self, generator: torch.Generator) -> Tensor:
        return torch.randperm(self.count, generator=generator)


def mixed(seed: int, number: int) -> int:
    """A seed for torch of a run's seed and a number within it, other for each; torch's on CPUs are 32 bits wide."""
    wide = ((seed << 20) + number) % 2**63
    return wide if wide < 2**32 else int(np.random.SeedSequence(wide).generate_state(1)[0])


def part_of(count: int, share: float) -> int:
    """So much of so many things, rounded up, of the share as it is written: no product of binary numbers is.

    >>> part_of(100, 1.1), math.ceil(100 * 1.1)
    (110, 111)
    """
    return math.ceil(count * Fraction(str(share)))


class Batches:
    """The batches of a run, one a step: the numbers of its examples.

    A function of the order, the seed and the step alone, whatever was asked before. An epoch's last batch may be small
    but is never dropped. The order of an epoch is drawn once and kept until another epoch's is wanted.
    """

    def __init__(self, order: Order, recipe: Recipe):
        self.order, self.size, self.seed = order, recipe.batch_size, recipe.seed
        self.an_epoch = math.ceil(len(order) / recipe.batch_size)  # steps
        self.steps = recipe.steps or part_of(self.an_epoch, recipe.epochs)
        self._epoch, self._drawn = -1, torch.empty(0)

    def __len__(self) -> int:
        return self.steps

    def at(self, step: int) -> list[int]:
        """The examples of a step, counted from 0."""
        epoch, place = divmod(step, self.an_epoch)
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(mixed(self.seed, epoch))
            self._epoch, self._drawn = epoch, self.order.draw(generator)
        numbers: list[int] = self._drawn[place * self.size:(place + 1) * self.size].tolist()
        return numbers


def packs_of(indices: Sequence[int], model: Model, examples: Sequence[Example],
             recipe: Recipe) -> Iterator[tuple[Pack, bool, bool]]:
    """This rank's packs of the examples `indices`, each of which goes to one rank; all ranks get equally many packs.

    With each whether it counts (where examples are too few, one keeps the other ranks company), whether it is the last.
    """
    parts = deal([examples[i].length for i in indices], ranks.size())
    plans = [model.plan(examples, [indices[i] for i in part], recipe.pack_tokens) for part in parts]
    passes = max(map(len, plans))
    mine = plans[ranks.rank()]
    while len(mine) < passes and any(len(pack) > 1 for pack in mine):
        longest = max(mine, key=len)
        mine.remove(longest)
        mine += [longest[::2], longest[1::2]]
    mine += [[]] * (passes - len(mine))
    for number, pack in enumerate(mine, 1):
        held = pack or indices[:1]
        yield model.pack([examples[i] for i in held], held), bool(pack), number == passes


def deal(lengths: Sequence[int], hands: int) -> list[list[int]]:
    """Deal things of these lengths into hands of about the same total: the longest first, to who has least.

    >>> deal([5, 1, 4, 3], 2)
    [[0, 1], [2, 3]]
    """
    held = [(0, hand) for hand in range(hands)]
    dealt: list[list[int]] = [[] for _ in range(hands)]
    for thing in sorted(range(len(lengths)), key=lambda thing: (-lengths[thing], thing)):
        total, hand = held[0]
        heapq.heapreplace(held, (total + lengths[thing], hand))
        dealt[hand].append(thing)
    return dealt
