"""al-train-rm --prefixes: random beginnings of a prompt's completions, ranked as their whole texts are.

    chosen    Thank you , of course .      cut at 3    Thank you ,
    rejected  Thank me later                           Thank me later

What a causal model says of a beginning it has said on its way to the end: the score is read at the beginning's last
token, in the same pass, and costs none of its own.
"""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from alignlib.models.example import Example
    from alignlib.models.packs import Pack

NONE = -1  # in place of a length, where an example has no beginnings


def column(number: int) -> str:
    """The name of the values of an Example that say how long its completions' beginnings are."""
    return f"beginning_{number}"


def cut(example: Example, number: int, seed: int) -> dict[str, list[float]]:
    """`number` beginnings of an example, each a column of lengths in tokens, one a completion; keyed by seed and text.

    One length is drawn for all completions, so that one of them at least is cut, and not all read alike; what is
    shorter stays whole. Completions that differ nowhere before the end have no beginnings.
    """
    first = len(os.path.commonprefix(example.completions)) + 1
    longest = max(map(len, example.completions))
    name = hashlib.blake2b(f"{seed} {example.prompt} {example.completions}".encode(), digest_size=8)
    columns: dict[str, list[float]] = {}
    for i in range(number):
        own = name.copy()
        own.update(f" {i}".encode())
        length = first + ((longest - first) * int.from_bytes(own.digest()) >> 64)
        columns[column(i)] = [min(length, len(row)) if first < longest else NONE for row in example.completions]
    return columns


def last_places(batch: Pack, number: int) -> Tensor:
    """The places of the last tokens of `number` beginnings of each completion: [number, E * K]."""
    import torch

    starts = torch.tensor([own.start for _, own in batch.spans], device=batch.last.device)
    lengths = torch.stack([batch.values[column(i)].flatten() for i in range(number)])
    return torch.where(lengths > 0, starts + lengths - 1, batch.last)


def count(example: Example, number: int) -> int:
    """How many beginnings it has."""
    return number if number and example.values[column(0)][0] != NONE else 0
