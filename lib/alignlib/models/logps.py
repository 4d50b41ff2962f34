"""Per-token log-probabilities of a head over hidden states, in chunks: the full logits never exist."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from alignlib import ranks

# Logits that exist at once. 40 MB in float32: what malloc takes from the system and gives back at once, where smaller
# ones tear its heap to several times their sum (over 1 GB at 64k tokens of vocabulary).
CHUNK = 10 << 20
# On a GPU, where freed memory is used again as it is, fewer and larger ones (512 MB): each adds to the whole of the
# head's gradient, which for a large vocabulary takes longer than the logits themselves.
GPU_CHUNK = 1 << 27
Head = Callable[[Tensor], Tensor]  # hidden states to logits: [n, H] -> [n, vocabulary]


def token_logps(head: Head, hidden: Tensor, targets: Tensor, vocabulary: int, temperature: float = 1.0, *,
                in_step: bool = False) -> Tensor:
    """log softmax(head(hidden) / temperature) at `targets`, in float32 (or float64): [N, H], [N] -> [N].

    The [N, vocabulary] logits never exist as a whole: they are made in chunks, and again in the backward pass.
    in_step: as in_chunks.
    """

    def chunk(part: Tensor, wanted: Tensor) -> Tensor:
        logits = full_precision(head(part))  # [n, vocabulary]
        if temperature != 1:  # every step over them all is a copy
            logits = logits / temperature
        return -cross_entropy(logits, wanted, reduction="none")

    return in_chunks(chunk, vocabulary, hidden, targets, in_step=in_step)


def full_precision(logits: Tensor) -> Tensor:
    """float32, or float64 where they are that."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def in_chunks(chunk: Callable[..., Tensor], vocabulary: int, *rows: Tensor, in_step: bool = False) -> Tensor:
    """`chunk` of a few of the rows [N, ...] at a time, so that few logits exist at once; made again going back.

    in_step: every rank calls this, and all call `chunk` equally often, of no rows once they have none left: each time
    ZeRO 3 gathers a head's weights from all of them.
    """
    size = max(1, (CHUNK if rows[0].device.type == "cpu" else GPU_CHUNK) // vocabulary)
    number = len(rows[0])
    starts = range(0, number or 1, size)
    if in_step:
        starts = max(ranks.gather(starts), key=len)
    if len(starts) == 1:
        return chunk(*rows)
    sizes = [min(max(number - start, 0), size) for start in starts]
    parts = zip(*(row.split(sizes) for row in rows), strict=True)
    if not torch.is_grad_enabled():
        return torch.cat([chunk(*part) for part in parts])
    return torch.cat([checkpoint(chunk, *part, use_reentrant=False) for part in parts])
