"""Attention for packs, as implementations that transformers' models call by name.

On the CPU in strips: a dense mask has sdpa compute the half above the diagonal too, strips leave most of it out.
On a GPU by flex_attention, which leaves out every block of 128 x 128 that nobody sees, wherever it lies.

Rows of 600 tokens, a strip of 256 queries at a time, each with the keys up to its end:

    queries      keys 0..255   256..511   512..599
    0..255           x             .          .
    256..511         x             x          .
    512..599         x             x          x
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, flex_attention
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME, FLEX = "causal_strips", "block_masks"
STRIP = 256  # queries; shorter strips leave more out, but each costs a call


def causal_strips(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None,
                  **settings: Any) -> tuple[Tensor, None]:
    """What sdpa gives, [B, L, heads, size], where no query may look at a later key; `mask` [B, 1, L, keys] or None.

    Rows without a mask (sdpa knows that they are causal), short rows, and new tokens after a cache go to sdpa whole.
    """
    long = query.shape[2]
    if mask is None or not long == key.shape[2] == mask.shape[-1] > STRIP:
        return sdpa_attention_forward(module, query, key, value, mask, **settings)
    strips = []
    for start in range(0, long, STRIP):
        end = min(start + STRIP, long)
        seen = mask[:, :, start:end, :end]
        out, _ = sdpa_attention_forward(module, query[:, :, start:end], key[:, :, :end], value[:, :, :end], seen,
                                        **settings)  # [B, end - start, heads, size]
        strips.append(out)
    return torch.cat(strips, dim=1), None


def use_strips(model: PreTrainedModel) -> None:
    """Let a causal model on the CPU that attends by sdpa do so in strips; any other stays as it is.

    On a GPU sdpa chooses among kernels of its own, and several short calls would cost more than they leave out.
    Transformers does not write the choice into a saved config.json.
    """
    if model.device.type == "cpu" and getattr(model.config, "_attn_implementation", None) == "sdpa":
        model.set_attn_implementation(NAME)


def block_masks(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | BlockMask | None,
                **settings: Any) -> tuple[Tensor, None]:
    """flex_attention for flat packs, [1, L, heads, size], and sdpa for all else: generation's steps are its own.

    Raises ValueError for dropout, which flex_attention does not know.
    """
    if not isinstance(mask, BlockMask):
        return sdpa_attention_forward(module, query, key, value, mask, **settings)
    if settings.get("dropout"):
        raise ValueError("flex_attention knows no dropout")
    device = query.device.type
    if torch.is_autocast_enabled(device):  # it leaves flex_attention alone: rotated queries and keys are float32 still
        query, key, value = (part.to(torch.get_autocast_dtype(device)) for part in (query, key, value))
    out = kernel(device)(query, key, value, block_mask=mask, scale=settings.get("scaling"),
                         enable_gqa=query.shape[1] != key.shape[1])
    return out.transpose(1, 2).contiguous(), None


@cache
def kernel(device: str) -> Callable[..., Tensor]:
    """flex_attention compiled, for a GPU: uncompiled it computes and keeps all L * L scores.

    dynamic is left alone: the second length that comes makes a kernel for all lengths, where False would compile for
    each and True takes no fewer. fullgraph, since a compiler that gives up would go on uncompiled without a word; it
    gives up at 8 kernels of a function unless told otherwise, and with and without gradients, of two models, for one
    length and for all, is eight already.
    """
    if device == "cpu":
        return flex_attention
    torch.compiler.config.recompile_limit = 64
    return torch.compile(flex_attention, fullgraph=True)


def use_flex(model: PreTrainedModel) -> bool:
    """Let a model that attends by sdpa, or in strips, read the masks of flat packs; whether it is such a model."""
    if getattr(model.config, "_attn_implementation", None) not in ("sdpa", NAME):
        return False
    model.set_attn_implementation(FLEX)
    return True


AttentionInterface.register(NAME, causal_strips)
AttentionInterface.register(FLEX, block_masks)
AttentionMaskInterface.register(NAME, sdpa_mask)  # masks are made as for sdpa
AttentionMaskInterface.register(FLEX, sdpa_mask)
