"""The batches of a run: their order, and how they are dealt to ranks."""

from dataclasses import dataclass, field

import torch

from alignlib.training.batches import Batches, Shuffled, deal
from helpers import tiny


def test_an_epoch_is_a_permutation_and_its_last_batch_is_kept():
    recipe = tiny.recipe("x", batch_size=4, epochs=3)
    batches = Batches(Shuffled(10), recipe)
    assert batches.an_epoch == 3 and len(batches) == 9
    epochs = [[batches.at(3 * epoch + step) for step in range(3)] for epoch in range(3)]
    for epoch in epochs:
        assert [len(batch) for batch in epoch] == [4, 4, 2]
        assert sorted(i for batch in epoch for i in batch) == list(range(10))
    assert epochs[0] != epochs[1] != epochs[2]
    assert batches.at(4) == epochs[1][1]  # whatever was asked before
    assert Batches(Shuffled(10), tiny.recipe("x", seed=1)).at(0) != epochs[0][0]
    for seed in (-1, 2**62):
        whole = tiny.recipe("x", seed=seed, batch_size=10)
        assert sorted(Batches(Shuffled(10), whole).at(0)) == list(range(10))


def test_steps_or_epochs():
    for epochs, steps, wanted in ((1, None, 3), (2.5, None, 8), (0.01, None, 1), (0.5, None, 2), (1, 7, 7), (9, 2, 2)):
        assert len(Batches(Shuffled(10), tiny.recipe("x", epochs=epochs, steps=steps))) == wanted


@dataclass
class Counted:
    """A shuffled order that counts its epochs' draws."""

    count: int
    draws: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return self.count

    def draw(self, generator: torch.Generator) -> list[int]:
        self.draws.append(generator.initial_seed())
        return Shuffled(self.count).draw(generator)


def test_an_epoch_is_drawn_once():
    """A million records are not shuffled anew at every step."""
    order = Counted(10)
    batches = Batches(order, tiny.recipe("x", batch_size=3, epochs=2))
    for step in range(len(batches)):
        batches.at(step)
    assert len(order.draws) == len(set(order.draws)) == 2


def test_things_are_dealt_by_their_lengths():
    assert deal([5, 1, 4, 3], 2) == [[0, 1], [2, 3]]
    assert deal([2], 3) == [[0], [], []]
