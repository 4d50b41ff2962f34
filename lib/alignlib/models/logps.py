"""Per-token log-probabilities of a head over hidden states, in chunks: the full logits never exist."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

# Logits that exist at once. 40 MB in float32: what malloc takes from the system and gives back at once, where smaller
# ones tear its heap to several times their sum (over 1 GB at 64k tokens of vocabulary).
CHUNK = 10 << 20
# On a GPU, where freed memory is used again as it is, fewer and larger ones (512 MB): each adds to the whole of the
# head's gradient, which for a large vocabulary takes longer than the logits themselves.
GPU_CHUNK = 1 << 27
Head = Callable[[Tensor], Tensor]  # hidden states to logits: [n, H] -> [n, vocabulary]


def token_logps(head: Head, hidden: Tensor, targets: Tensor, vocabulary: int, temperature: float = 1.0) -> Tensor:
    """log softmax(head(hidden) / temperature) at `targets`, in float32 (or float64): [N, H], [N] -> [N].

    The [N, vocabulary] logits never exist as a whole: they are made in chunks, and again in the backward pass.
    """

    def chunk(part: Tensor, wanted: Tensor) -> Tensor:
        logits = full_precision(head(part))  # [n, vocabulary]
        if temperature != 1:  # every step over them all is a copy
            logits = logits / temperature
        return -cross_entropy(logits, wanted, reduction="none")

    return in_chunks(chunk, vocabulary, hidden, targets)


def full_precision(logits: Tensor) -> Tensor:
    """float32, or float64 where they are that."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def in_chunks(chunk: Callable[..., Tensor], vocabulary: int, *rows: Tensor) -> Tensor:
    """`chunk` of a few of the rows [N, ...] at a time, so that few logits exist at once; made again going back."""
    size = max(1, (CHUNK if rows[0].device.type == "cpu" else GPU_CHUNK) // vocabulary)
    if len(rows[0]) <= size:
        return chunk(*rows)
    parts = zip(*(row.split(size) for row in rows), strict=True)
    if not torch.is_grad_enabled():
        return torch.cat([chunk(*part) for part in parts])
    return torch.cat([checkpoint(chunk, *part, use_reentrant=False) for part in parts])
