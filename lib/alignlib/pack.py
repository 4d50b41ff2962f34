"""Examples become Packs: each prompt once, its K completions after it, every completion blind to the others.

A row with prompt "a b" and completions "c d" and "e" (positions go on from the prompt's end):

    ids        a b c d e        mask   a b c d e        sources -> targets (the logits at a source predict its target)
    positions  0 1 2 3 2          a    x . . . .             b -> c, c -> d    owner 0
    segment    0 0 1 1 2          b    x x . . .             b -> e            owner 1
                                  c    x x x . .
                                  d    x x x x .
                                  e    x x . . x
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from alignlib.tokens import Example

ROW_TOKENS = 2048  # a longer group is split into several rows: dense attention is quadratic in the row


@dataclass
class Pack:
    """A batch for one forward pass. B rows of L tokens, E examples with K completions each, N predicted tokens."""

    ids: Tensor  # [B, L]
    positions: Tensor | None  # [B, L]; None where a row is one plain text
    mask: Tensor | None  # [B, 1, L, L] bool, True = may look; None = causal
    sources: Tensor  # [N] places in the flattened [B * L] whose logits predict `targets`
    targets: Tensor  # [N] token ids
    owner: Tensor  # [N] which of the E * K completions a target belongs to
    last: Tensor  # [E * K] place of each completion's last token (of the prompt's, if it is empty)
    shape: tuple[int, int]  # (E, K)
    values: dict[str, Tensor]  # [E, K] each: rewards, ref_logps
    indices: list[int]  # which examples these are
    tokens: int  # in the rows, without padding

    def sums(self, per_token: Tensor) -> Tensor:
        """Sum [N] over each completion's tokens: [E, K]."""
        zeros = per_token.new_zeros(self.shape[0] * self.shape[1])
        return zeros.index_add(0, self.owner, per_token).view(self.shape)

    def counts(self) -> Tensor:
        """Predicted tokens of each completion: [E, K]."""
        return self.sums(torch.ones_like(self.targets, dtype=torch.float32))


@dataclass(slots=True)
class _Row:
    prompt: list[int]
    completions: list[list[int]]
    owners: list[int]

    @property
    def length(self) -> int:
        return len(self.prompt) + sum(map(len, self.completions))


def pack(examples: Sequence[Example], indices: Sequence[int] | None = None, *,
         shared: bool = True, device: torch.device | str = "cpu") -> Pack:
    """One Pack of examples that have the same number of completions.

    shared = False repeats the prompt for every completion, for models that cannot take the mask.
    """
    width = len(examples[0].completions)
    if any(len(example.completions) != width for example in examples):
        raise ValueError("examples of one pack have the same number of completions")
    rows = [row for i, example in enumerate(examples) for row in _rows(example, i * width, shared)]
    long = max(row.length for row in rows)
    ids = torch.zeros(len(rows), long, dtype=torch.long)
    positions = torch.zeros_like(ids)
    segment = torch.full_like(ids, -1)  # padding
    sources, targets, owner, last = [], [], [], [0] * (len(examples) * width)
    for r, row in enumerate(rows):
        at = len(row.prompt)
        ids[r, :row.length] = torch.tensor([*row.prompt, *(token for ids_ in row.completions for token in ids_)])
        positions[r, :at] = torch.arange(at)
        segment[r, :at] = 0
        for j, (completion, number) in enumerate(zip(row.completions, row.owners, strict=True)):
            end = at + len(completion)
            positions[r, at:end] = torch.arange(len(row.prompt), len(row.prompt) + len(completion))
            segment[r, at:end] = j + 1
            # The first token is predicted at the prompt's end; without a prompt nothing predicts it.
            first = [r * long + len(row.prompt) - 1] if completion and row.prompt else []
            places = [*first, *range(r * long + at, r * long + end - 1)]
            sources += places
            targets += completion[len(completion) - len(places):]
            owner += [number] * len(places)
            last[number] = r * long + (end if completion else len(row.prompt)) - 1
            at = end
    plain = all(len(row.completions) == 1 for row in rows)
    names = examples[0].values
    return Pack(
        ids=ids.to(device),
        positions=None if plain else positions.to(device),
        mask=None if plain else _mask(segment.to(device)),
        sources=torch.tensor(sources, dtype=torch.long, device=device),
        targets=torch.tensor(targets, dtype=torch.long, device=device),
        owner=torch.tensor(owner, dtype=torch.long, device=device),
        last=torch.tensor(last, device=device),
        shape=(len(examples), width),
        values={name: torch.tensor([example.values[name] for example in examples], device=device) for name in names},
        indices=list(indices if indices is not None else range(len(examples))),
        tokens=sum(row.length for row in rows),
    )


def _rows(example: Example, first: int, shared: bool) -> Iterator[_Row]:
    """The example's rows: one, unless it is longer than ROW_TOKENS or may not share its prompt."""
    row = None
    for i, completion in enumerate(example.completions):
        if row is None or not shared or row.length + len(completion) > ROW_TOKENS:
            if row is not None:
                yield row
            row = _Row(example.prompt, [], [])
        row.completions.append(completion)
        row.owners.append(first + i)
    if row is not None:
        yield row


def _mask(segment: Tensor) -> Tensor:
    """[B, L] segments (0 prompt, j completion j, -1 padding) -> [B, 1, L, L]: who may look at whom."""
    long = segment.shape[1]
    causal = torch.ones(long, long, dtype=torch.bool, device=segment.device).tril()
    query, key = segment[:, :, None], segment[:, None, :]
    return (causal & ((key == 0) | (query == key)))[:, None]


def plan(examples: Sequence[Example], indices: Sequence[int], tokens: int, *, shared: bool = True) -> list[list[int]]:
    """Deal `indices` into packs of at most `tokens` (padding included): equal widths, like lengths together.

    A single example may exceed `tokens`: it gets a pack of its own.
    """

    def rows(index: int) -> tuple[int, int]:
        """(rows, length of the longest) that the example needs."""
        example = examples[index]
        if shared and example.length <= ROW_TOKENS:
            return 1, example.length
        made = [row.length for row in _rows(example, 0, shared)]
        return len(made), max(made)

    sizes = {index: rows(index) for index in indices}
    packs: list[list[int]] = []
    number = longest = 0
    for index in sorted(indices, key=lambda i: (len(examples[i].completions), -sizes[i][1], i)):
        count, length = sizes[index]
        longest = max(longest, length)
        same = packs and len(examples[packs[-1][0]].completions) == len(examples[index].completions)
        if same and (number + count) * longest <= tokens:
            packs[-1].append(index)
            number += count
        else:
            packs.append([index])
            number, longest = count, length
    return packs
