"""Texts in slots: what is read once for several, what is forgotten."""

import pytest
import torch

from alignlib.decoding.texts import Texts, common_length
from alignlib.models.policy import Policy
from helpers import tiny


class Noted(Texts):
    """Reads nothing: notes what it would have read, and copied."""

    def _ask(self, readings):
        self.readings = readings
        return torch.zeros(sum(len(text) + len(branches) for _, text, branches in readings), 1)

    def _keep(self, picks):
        pass

    def _crop(self, slot, length):
        return length

    def _copy(self, source, target, start):
        self.copied = source, target, start


@pytest.fixture
def texts() -> Noted:
    return Noted(Policy(tiny.causal("llama"), tiny.tokenizer()), 3)


def test_what_several_begin_with_is_read_once(texts):
    texts.begin({0: [1, 2, 3, 4], 1: [1, 2, 3, 4], 2: [5, 6]})
    assert texts.readings == [(0, [1, 2, 3], [])] and texts.copied == (0, 1, 0)
    assert texts.read == [[1, 2, 3], [1, 2, 3], []]


def test_a_kept_branch_goes_on(texts):
    texts.ask([(0, [1, 2], [3, 4]), (2, [5], [])])
    texts.keep([(0, 1)])
    assert texts.read == [[1, 2, 4], [], [5]]


def test_a_rewound_slot_reads_the_last_token_at_least(texts):
    texts.ask([(0, [1, 2, 3], [])])
    assert texts.rewind(0, [1, 2, 3, 4]) == [4] and texts.read[0] == [1, 2, 3]
    assert texts.rewind(0, [1, 2, 3]) == [3] and texts.read[0] == [1, 2]
    assert texts.rewind(0, [1, 7, 8]) == [7, 8] and texts.read[0] == [1]


@pytest.mark.parametrize("one, other, length", [([], [1], 0), ([1, 2], [1, 2, 3], 2), ([1, 2, 4], [1, 2, 3, 4], 2)])
def test_texts_begin_alike(one, other, length):
    assert common_length(one, other) == common_length(other, one) == length
