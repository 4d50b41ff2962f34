"""The order in which training goes through its data: a function of the seed and the step alone."""

import math
from collections.abc import Sized
from dataclasses import dataclass
from itertools import chain
from typing import Protocol

import torch

from alignlib.training.recipe import Recipe


class Order(Protocol):
    """In what order an epoch goes through the data."""

    def __len__(self) -> int:
        """Examples an epoch."""

    def draw(self, generator: torch.Generator) -> list[int]:
        """The examples of an epoch, by number."""


@dataclass(frozen=True)
class Shuffled:
    """Each of `count` examples once."""

    count: int

    def __len__(self) -> int:
        return self.count

    def draw(self, generator: torch.Generator) -> list[int]:
        return torch.randperm(self.count, generator=generator).tolist()


@dataclass(frozen=True)
class Balanced:
    """`size` examples of each group, in turn; a smaller group goes round as often as it takes."""

    groups: tuple[tuple[int, ...], ...]
    size: int

    def __len__(self) -> int:
        return len(self.groups) * self.size

    def draw(self, generator: torch.Generator) -> list[int]:
        drawn = []
        for group in self.groups:
            rounds = (torch.randperm(len(group), generator=generator).tolist()
                      for _ in range(math.ceil(self.size / len(group))))
            drawn.append([group[i] for i in chain.from_iterable(rounds)][:self.size])
        return [i for row in zip(*drawn, strict=True) for i in row]


def steps_in(order: Sized, recipe: Recipe) -> int:
    """Steps of the whole run; an epoch's last batch may be small but is never dropped."""
    return recipe.steps or max(1, math.ceil(steps_an_epoch(order, recipe) * recipe.epochs))


def steps_an_epoch(order: Sized, recipe: Recipe) -> int:
    return math.ceil(len(order) / recipe.batch_size)


def batch_at(step: int, order: Order, recipe: Recipe) -> list[int]:
    """The examples of a step, counted from 0: a function of the seed and the step alone."""
    epoch, place = divmod(step, steps_an_epoch(order, recipe))
    generator = torch.Generator().manual_seed(((recipe.seed << 20) + epoch) % 2**63)
    return order.draw(generator)[place * recipe.batch_size:(place + 1) * recipe.batch_size]
