"""Examples become Packs: each prompt once, its K completions after it, every completion blind to the others.

A row with prompt "a b" and completions "c d" and "e" (positions go on from the prompt's end):

    ids        a b c d e        mask   a b c d e        sources -> targets (the logits at a source predict its target)
    positions  0 1 2 3 2          a    x . . . .             b -> c, c -> d    owner 0
    segment    0 0 1 1 2          b    x x . . .             b -> e            owner 1
    home       0 0 0 0 0          c    x x x . .
                                  d    x x x x .
                                  e    x x . . x

Such rows, padded to the longest, are for dense masks. For flex_attention, which skips blocks that nobody sees, a pack
is flat: one row of all the groups, without padding between them. Another group, "f" and "g", goes on so:

    ids        a b c d e f g    segment  0 0 1 1 2 3 4    home  0 0 0 0 0 3 3    positions  0 1 2 3 2 0 1

Layers with a window look less far back, by positions: between the end of a prompt and its last completion lie others.
"""

from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask

from alignlib.models.example import Example
from alignlib.models.windows import FULL, Window, Windows

ROW_TOKENS = 2048  # a longer group is split into several rows: dense attention is quadratic in the row
Mask = Tensor | BlockMask
BLOCK = 128  # flat rows are whole blocks of flex_attention's, two at least: lengths of one kind share one kernel


@dataclass
class Pack:
    """A batch for one forward pass. B rows of L tokens, E examples with K completions each, N predicted tokens."""

    ids: Tensor  # [B, L]
    positions: Tensor | None  # [B, L]; None where a row is one plain text
    # [B, 1, L, L] bool, True = may look; of a flat row its blocks; one for each kind of layers where they look less far
    # back than the texts are long; None = what the model itself makes of a plain text.
    mask: Mask | dict[str, Mask] | None
    sources: Tensor  # [N] places in the flattened [B * L] whose logits predict `targets`
    targets: Tensor  # [N] token ids
    owner: Tensor  # [N] which of the E * K completions a target belongs to
    last: Tensor  # [E * K] place of each completion's last token (of the prompt's, if it is empty)
    spans: list[tuple[range, range]]  # [E * K] the places of its prompt and of its own tokens
    shape: tuple[int, int]  # (E, K)
    values: dict[str, Tensor]  # [E, K] each: rewards; ref_logps, float64 as `sums` is
    indices: list[int]  # which examples these are
    tokens: int  # in the rows, without padding

    def sums(self, per_token: Tensor) -> Tensor:
        """Sum [N] over each completion's tokens, in float64: [E, K].

        In float32 a sum of hundreds of nats is off by 1e-4, which is as much as many a log-ratio.
        """
        zeros = torch.zeros(self.shape[0] * self.shape[1], dtype=torch.float64, device=per_token.device)
        return zeros.index_add(0, self.owner, per_token.double()).view(self.shape)

    def counts(self) -> Tensor:
        """Predicted tokens of each completion, in float32: [E, K]."""
        return self.sums(torch.ones_like(self.targets)).float()


@dataclass(slots=True)
class _Row:
    """A prompt and the completions that follow it in one row; `owners` says which of the pack's E * K each is."""

    prompt: list[int]
    completions: list[list[int]]
    owners: list[int]

    @property
    def length(self) -> int:
        return len(self.prompt) + sum(map(len, self.completions))


def pack(examples: Sequence[Example], indices: Sequence[int] | None = None, *, shared: bool = True, flat: bool = False,
         windows: Windows | None = None, device: torch.device | str = "cpu") -> Pack:
    """One Pack of examples that have the same number of completions.

    shared = False repeats the prompt for every completion, for models that cannot take the mask;
    flat = True makes one row of everything, for flex_attention;
    windows  of each kind of the model's layers; by default all look at all that came before.
    """
    width = len(examples[0].completions)
    if any(len(example.completions) != width for example in examples):
        raise ValueError("examples of one pack have the same number of completions")
    rows = [row for i, example in enumerate(examples) for row in _rows(example, i * width, shared, flat)]
    starts, shape = _places([row.length for row in rows], flat)
    ids = torch.zeros(shape[0] * shape[1], dtype=torch.long)
    positions = torch.zeros_like(ids)
    segment = torch.full_like(ids, -1)  # padding
    home = segment.clone()  # the prompt's segment
    sources, targets, owner, last, number = [], [], [], [0] * (len(examples) * width), 0
    spans = [(range(0), range(0))] * len(last)
    for start, row in zip(starts, rows, strict=True):
        at = start + len(row.prompt)
        ids[start:start + row.length] = torch.tensor([*row.prompt, *(token for part in row.completions
                                                                     for token in part)])
        positions[start:at] = torch.arange(len(row.prompt))
        segment[start:at] = home[start:start + row.length] = number
        for completion, whose in zip(row.completions, row.owners, strict=True):
            end = at + len(completion)
            number += 1
            positions[at:end] = torch.arange(len(row.prompt), len(row.prompt) + len(completion))
            segment[at:end] = number
            # The first token is predicted at the prompt's end; without a prompt nothing predicts it.
            first = [start + len(row.prompt) - 1] if completion and row.prompt else []
            places = [*first, *range(at, end - 1)]
            learnt = _learnt(places, completion, examples[whose // width].given)
            sources += [place for place, _ in learnt]
            targets += [token for _, token in learnt]
            owner += [whose] * len(learnt)
            spans[whose] = range(start, start + len(row.prompt)), range(at, end)
            last[whose] = (end if completion else start + len(row.prompt)) - 1
            at = end
        number += 1
    plain = not flat and all(len(row.completions) == 1 for row in rows)
    grid = tuple(numbers.view(shape) for numbers in (segment, home, positions))
    masks = None if plain else _masks(_block_mask if flat else _mask, grid, windows or {FULL: None}, device)
    names = examples[0].values
    return Pack(
        ids=send(ids.view(shape), device),
        positions=None if plain else send(grid[2], device),
        mask=masks,
        sources=send(torch.tensor(sources, dtype=torch.long), device),
        targets=send(torch.tensor(targets, dtype=torch.long), device),
        owner=send(torch.tensor(owner, dtype=torch.long), device),
        last=send(torch.tensor(last), device),
        spans=spans,
        shape=(len(examples), width),
        values={name: send(_column(name, [example.values[name] for example in examples]), device) for name in names},
        indices=list(indices if indices is not None else range(len(examples))),
        tokens=sum(row.length for row in rows),
    )


def send(tensor: Tensor, device: torch.device | str) -> Tensor:
    """The tensor on the device; a GPU gets it when it comes to it, and nobody waits until then."""
    if torch.device(device).type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def _column(name: str, rows: list[list[float]]) -> Tensor:
    """The examples' values of one name: [E, K], sums of log-probabilities in float64."""
    return torch.tensor(rows, dtype=torch.float64 if name == "ref_logps" else None)


def _learnt(places: list[int], completion: list[int], given: Set[int]) -> list[tuple[int, int]]:
    """The places that predict a completion's last tokens, each with its token, but for those that are given."""
    start = len(completion) - len(places)
    pairs = zip(places, completion[start:], strict=True)
    return [pair for i, pair in enumerate(pairs, start) if i not in given]


def _rows(example: Example, first: int, shared: bool, flat: bool = False) -> Iterator[_Row]:
    """The example's rows: one, unless it may not share its prompt or is longer than ROW_TOKENS and not flat."""
    row = None
    for i, completion in enumerate(example.completions):
        if row is None or not shared or (not flat and row.length + len(completion) > ROW_TOKENS):
            if row is not None:
                yield row
            row = _Row(example.prompt, [], [])
        row.completions.append(completion)
        row.owners.append(first + i)
    if row is not None:
        yield row


def _places(lengths: list[int], flat: bool) -> tuple[list[int], tuple[int, int]]:
    """Where each row of these lengths starts in the flattened [B * L], and (B, L)."""
    if flat:
        *starts, total = accumulate(lengths, initial=0)
        return starts, (1, max(2, -(-total // BLOCK)) * BLOCK)
    long = max(lengths)
    return [r * long for r in range(len(lengths))], (len(lengths), long)


Grid = tuple[Tensor, ...]  # each token's segment, its prompt's, and its position: [B, L] each


def _masks(build: Callable[[Grid, Window | None, torch.device | str], Mask], grid: Grid, windows: Windows,
           device: torch.device | str) -> Mask | dict[str, Mask]:
    """A mask for every kind of layers, or one for all: windows that are longer than the texts hide nothing."""
    longest = int(grid[2].max()) + 1
    binding = {kind: window if window and window.size < longest else None for kind, window in windows.items()}
    masks = {window: build(grid, window, device) for window in set(binding.values())}
    return {kind: masks[window] for kind, window in binding.items()} if len(masks) > 1 else masks.popitem()[1]


def _mask(grid: Grid, window: Window | None, device: torch.device | str) -> Tensor:
    """Who may look at whom, [B, 1, L, L]; -1 is padding's segment."""
    segment, home, positions = (send(numbers, device) for numbers in grid)
    long = segment.shape[1]
    causal = torch.ones(long, long, dtype=torch.bool, device=device).tril()
    key = segment[:, None, :]
    seen = causal & ((key == home[:, :, None]) | (key == segment[:, :, None]))
    if window:
        seen &= window.sees(positions[:, :, None], positions[:, None, :])
    return seen[:, None]


def _block_mask(grid: Grid, window: Window | None, device: torch.device | str) -> BlockMask:
    """Who may look at whom in one flat row, [1, L], as flex_attention reads it.

    That is which blocks to compute, in which of them everybody sees all, and a function for the others.
    """
    segment, home, positions = (send(numbers[0].int(), device) for numbers in grid)

    def sees(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        seen = (query >= key) & ((segment[key] == home[query]) | (segment[key] == segment[query]))
        return seen & window.sees(positions[query], positions[key]) if window else seen

    def listed(blocks: Tensor) -> tuple[Tensor, Tensor]:
        """How many keys' blocks there are for each of the queries', and which, those first."""
        blocks = blocks.int()
        order = blocks.argsort(dim=-1, descending=True, stable=True).int()
        return send(blocks.sum(-1, dtype=torch.int32)[None, None], device), send(order[None, None], device)

    some, all_of = _blocks(grid, window)
    return BlockMask.from_kv_blocks(*listed(some & ~all_of), *listed(all_of), BLOCK_SIZE=BLOCK, mask_mod=sees,
                                    seq_lengths=(len(segment), len(segment)))


def _blocks(grid: Grid, window: Window | None) -> tuple[Tensor, Tensor]:
    """Of a flat row, [1, L]: in which blocks a query sees a key, and in which all see all, [queries', keys'] each.

    By the segments that lie in them: a mask of L * L tokens is never made. Under a window nobody may look into some.
    """
    segment, home, positions = (numbers[0] for numbers in grid)
    count = len(segment) // BLOCK
    place = torch.arange(len(segment)) // BLOCK
    keys, queries = torch.zeros(2, count, int(segment.max()) + 2)  # that are of a segment, or see it; padding's first
    one = torch.ones(1)
    keys.index_put_((place, segment + 1), one, accumulate=True)
    queries.index_put_((place, segment + 1), one, accumulate=True)
    queries.index_put_((place, home + 1), (home != segment).float(), accumulate=True)
    pairs = (queries @ keys.T).tril()  # on the diagonal more than see each other, of which each sees itself
    if not window:
        return pairs > 0, (pairs == BLOCK ** 2).tril(-1)
    first, last = positions.view(count, BLOCK).aminmax(dim=1)
    return (pairs > 0) & window.may_see(first[:, None], last), torch.zeros_like(pairs, dtype=torch.bool)


def plan(examples: Sequence[Example], indices: Sequence[int], tokens: int, *, shared: bool = True,
         flat: bool = False) -> list[list[int]]:
    """Deal `indices` into packs of at most `tokens` (padding included): equal widths, like lengths together.

    A single example may exceed `tokens`: it gets a pack of its own. Of flat packs the padding, which is less than a
    block, is not counted.
    """

    def needs(index: int) -> tuple[int, int, int]:
        """(completions, rows, length of the longest row) of the example, which may lie in a file: it is made once."""
        example = examples[index]
        width = len(example.completions)
        if flat:  # nothing is padded: a token is a row of one
            return width, example.length, 1
        if shared and example.length <= ROW_TOKENS:
            return width, 1, example.length
        lengths = [row.length for row in _rows(example, 0, shared)]
        return width, len(lengths), max(lengths)

    sizes = {index: needs(index) for index in indices}
    packs: list[list[int]] = []
    number = longest = 0
    for index in sorted(indices, key=lambda i: (sizes[i][0], -sizes[i][2], i)):
        width, count, length = sizes[index]
        longest = max(longest, length)
        if packs and sizes[packs[-1][0]][0] == width and (number + count) * longest <= tokens:
            packs[-1].append(index)
            number += count
        else:
            packs.append([index])
            number, longest = count, length
    return packs
