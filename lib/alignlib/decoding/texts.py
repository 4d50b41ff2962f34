"""Several texts that one model reads, each in a slot of its own; subclasses say how what was read is kept.

    slot 0   The cat sat          on | at | by        ask: each branch is seen after the text, and no other branch
    slot 0   The cat sat at                           keep: one of them goes on, the others are forgotten
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor

from alignlib.models.policy import Model

Reading = tuple[int, list[int], list[int]]  # slot, tokens to read after what it has read, branches after those


class Texts(ABC):
    """What each of a model's slots has read, and the branches that it looked at last."""

    def __init__(self, model: Model, slots: int):
        self.model, self.device, self.dtype = model, model.device, model.core.dtype  # looked up anew they take time
        self.read: list[list[int]] = [[] for _ in range(slots)]
        self.branches: dict[int, list[int]] = {}

    def ask(self, readings: Sequence[Reading]) -> Tensor:
        """Read on, and look at branches: last hidden states of all those tokens, slot by slot, [N, H]."""
        hidden = self._ask(readings)
        for slot, text, branches in readings:
            self.read[slot] += text
            self.branches[slot] = branches
        return hidden

    @abstractmethod
    def _ask(self, readings: Sequence[Reading]) -> Tensor: ...

    def keep(self, picks: Sequence[tuple[int, int]]) -> None:
        """Take branch number `pick` of each slot as read; the slots' others are forgotten."""
        self._keep(picks)
        for slot, pick in picks:
            self.read[slot].append(self.branches[slot][pick])

    @abstractmethod
    def _keep(self, picks: Sequence[tuple[int, int]]) -> None: ...

    def rewind(self, slot: int, text: list[int]) -> list[int]:
        """Have the slot forget what `text` does not say; returns what it must read yet, its last token at least."""
        have = common_length(self.read[slot], text)
        if have == len(text) or have < len(self.read[slot]):
            have = self._crop(slot, min(have, len(text) - 1))
            self.read[slot] = text[:have]
        return text[have:]

    @abstractmethod
    def _crop(self, slot: int, length: int) -> int: ...  # returns how many tokens are left, which may be fewer

    def copy(self, source: int, target: int) -> None:
        """Have `target` read what `source` has read."""
        if source != target:
            self._copy(source, target, common_length(self.read[source], self.read[target]))
            self.read[target] = list(self.read[source])

    @abstractmethod
    def _copy(self, source: int, target: int, start: int) -> None: ...  # before token `start` they are the same

    def begin(self, texts: dict[int, list[int]]) -> None:
        """Read once, but for its last token, what several slots are to begin with."""
        slots: dict[tuple[int, ...], list[int]] = {}
        for slot, text in texts.items():
            slots.setdefault(tuple(text), []).append(slot)
        shared = {same[0]: same[1:] for text, same in slots.items() if len(same) > 1 and len(text) > 1}
        if shared:
            self.ask([(first, self.rewind(first, texts[first][:-1]), []) for first in shared])
        for first, others in shared.items():
            for other in others:
                self.copy(first, other)


def common_length(one: list[int], other: list[int]) -> int:
    """How many tokens two texts begin with alike."""
    shorter = min(len(one), len(other))
    return shorter if one[:shorter] == other[:shorter] else len(os.path.commonprefix([one, other]))
