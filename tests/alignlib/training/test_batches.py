"""The batches of a run: their order, and how they are dealt to ranks."""

from dataclasses import dataclass, field

import torch

from alignlib.models.policy import Policy
from alignlib.training.batches import Batches, Shuffled, deal, packs_of, part_of
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
    orders = [Batches(Shuffled(10), tiny.recipe("x", seed=seed)).at(0) for seed in (0, 4096, 8192, 2**33, 2**40, 2**41)]
    assert len(set(map(tuple, orders))) == 6  # torch would heed the last 32 bits alone
    for seed in (-1, 2**62):
        whole = tiny.recipe("x", seed=seed, batch_size=10)
        assert sorted(Batches(Shuffled(10), whole).at(0)) == list(range(10))


def test_steps_or_epochs():
    for epochs, steps, wanted in ((1, None, 3), (2.5, None, 8), (0.01, None, 1), (0.5, None, 2), (1, 7, 7), (9, 2, 2)):
        assert len(Batches(Shuffled(10), tiny.recipe("x", epochs=epochs, steps=steps))) == wanted
    assert len(Batches(Shuffled(400), tiny.recipe("x", epochs=1.1))) == 110  # 100 an epoch; in binary a little more


def test_a_part_is_rounded_up_as_it_is_written():
    for count, share, wanted in ((100, 0.07, 7), (100, 0.071, 8), (10**9, 1.1, 1_100_000_000), (3, 1e-7, 1), (2, 3, 6)):
        assert part_of(count, share) == wanted


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


def test_hands_are_dealt_evenly():
    lengths = [7, 1, 1, 5, 3, 3, 9, 2]
    hands = deal(lengths, 3)
    assert sorted(thing for hand in hands for thing in hand) == list(range(8))
    assert sorted(sum(lengths[thing] for thing in hand) for hand in hands) == [10, 10, 11]
    assert deal([4], 2) == [[0], []]


def test_every_rank_makes_as_many_passes(monkeypatch):
    """And each example is in one counted pack of one rank, whatever the batch."""
    policy = Policy(tiny.causal("llama"), tiny.tokenizer())
    examples = [tiny.example(3 + 5 * (i % 7), 4, 2 + i % 5, seed=i) for i in range(23)]
    monkeypatch.setenv("WORLD_SIZE", "3")
    for batch in (range(23), range(5), [4], [2, 9, 11]):
        seen, passes = [], []
        for rank in range(3):
            monkeypatch.setenv("RANK", str(rank))
            packs = list(packs_of(list(batch), policy, examples, tiny.recipe("x", pack_tokens=60)))
            seen += [index for pack, counts, _ in packs if counts for index in pack.indices]
            passes.append(len(packs))
            assert [last for *_, last in packs] == [False] * (len(packs) - 1) + [True]
        assert sorted(seen) == sorted(batch) and len(set(passes)) == 1
