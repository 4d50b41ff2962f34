"""Attention in strips for packs: a dense mask has sdpa compute the half above the diagonal too, strips leave most out.

Rows of 600 tokens, a strip of 256 queries at a time, each with the keys up to its end:

    queries      keys 0..255   256..511   512..599
    0..255           x             .          .
    256..511         x             x          .
    512..599         x             x          x
"""

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "causal_strips"
STRIP = 256  # queries; shorter strips leave more out, but each costs a call


def causal_strips(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None,
                  **settings) -> tuple[Tensor, None]:
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


def use_strips(model: nn.Module) -> None:
    """Let a causal model on the CPU that attends by sdpa do so in strips; any other stays as it is.

    On a GPU sdpa chooses among kernels of its own, and several short calls would cost more than they leave out.
    Transformers does not write the choice into a saved config.json.
    """
    if model.device.type == "cpu" and getattr(model.config, "_attn_implementation", None) == "sdpa":
        model.set_attn_implementation(NAME)


AttentionInterface.register(NAME, causal_strips)
AttentionMaskInterface.register(NAME, sdpa_mask)  # masks are made as for sdpa
