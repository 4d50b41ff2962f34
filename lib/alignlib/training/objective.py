"""What a loss is to the training loop."""

from typing import Protocol, runtime_checkable

from torch import Tensor

from alignlib.models.encoding import Example
from alignlib.models.packs import Pack
from alignlib.models.policy import Model


class Objective(Protocol):
    """A loss to train on."""

    def size(self, example: Example) -> float:
        """What the example adds to the global batch's denominator: 1, its tokens, its groups."""

    def __call__(self, model: Model, batch: Pack) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss SUMMED over the batch, and figures to log, each summed over the batch's examples.

        A figure that is summed over what `size` counts, as the loss is, is named in the attribute `sized`.
        """


@runtime_checkable
class Adaptive(Protocol):
    """An objective that learns from each step; `state`, numbers and tensors, is kept in checkpoints."""

    state: dict

    def stepped(self, entry: dict) -> None:
        """Learn from a step's figures, over all ranks, and add to them what it has learnt."""


@runtime_checkable
class Weighing(Protocol):
    """An objective whose loss is known only when all of a step's packs have been asked: their graphs are held."""

    def weigh(self, counts: list[bool]) -> Tensor:
        """The loss SUMMED over this rank's packs of the step, in the order asked, of which some do not count."""
