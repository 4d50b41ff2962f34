"""What a loss is to the training loop: a class that says how it reads a record, sizes an example and rates a pack.

No torch at the top, so that a command's file can hold its loss and still answer --help at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

    from alignlib.models.encoding import Encoder
    from alignlib.models.example import Example
    from alignlib.models.packs import Pack
    from alignlib.records.jsonl import Record
    from alignlib.training.batches import Order
    from alignlib.training.examples import Examples

M = TypeVar("M")  # the model that it rates packs with: a Policy, a RewardModel
if TYPE_CHECKING:
    Ask = Callable[[Sequence[Example], Callable[[M, Pack], Tensor]], list[list[float]]]  # of [E, K] a row an Example


@dataclass
class Objective(Generic[M]):
    """A loss to train on. A new one overrides `example`, `__call__` and perhaps `size`; the other hooks do nothing.

    whole_step  whether the loss is known only when all of a step's packs have been passed: their graphs are held,
                and `step_loss` gives it
    sized       names of figures that are sums over what `size` counts, as the loss is; the others are over examples
    state       numbers and tensors that it learns as it goes; kept in checkpoints
    names       what records name (their class, their domain), in the order met; a process that reads none is told
    """

    whole_step: ClassVar[bool] = False
    sized: tuple[str, ...] = field(default=(), init=False)
    state: dict[str, Any] = field(default_factory=dict, init=False)
    names: list[str] = field(default_factory=list, kw_only=True)

    def example(self, encoder: Encoder, record: Record) -> Example:
        """The Example of a record. Raises ValueError for a bad one, Skip for one that is to be left out."""
        raise NotImplementedError

    def size(self, example: Example) -> float:
        """What the example adds to the global batch's denominator: 1, its tokens, its groups."""
        return 1

    def __call__(self, model: M, batch: Pack) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss SUMMED over the batch, and figures to log, each summed over the batch's examples."""
        raise NotImplementedError

    def settle(self, examples: Examples, held_out: Examples) -> None:
        """All that will be trained and evaluated on has been read: number its classes, refuse what says nothing."""

    def order(self, examples: Examples, batch_size: int) -> Order:
        """In what order an epoch goes through the examples: here each once, shuffled. Raises UsageError."""
        from alignlib.training.batches import Shuffled

        return Shuffled(len(examples))

    def before(self, step: int | None, indices: Sequence[int], examples: Sequence[Example], ask: Ask[M]) -> None:
        """Look ahead at a step, counted from 0, on the examples of these numbers; None: at an evaluation of them all.

        ask: what a function computes of the packs of some Examples, in their order, without gradients.
        """

    def step_loss(self, counts: Sequence[bool]) -> Tensor:
        """With `whole_step`, the loss SUMMED over this rank's packs of the step, in order; some do not count."""
        raise NotImplementedError

    def stepped(self, entry: dict[str, Any]) -> None:
        """Learn from a step's figures, over all ranks, and add to them what it has learnt."""
