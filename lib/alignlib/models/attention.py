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
from torch.nn.attention.flex_attention import AuxRequest, BlockMask, flex_attention
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME, FLEX = "causal_strips", "block_masks"
STRIP = 256  # queries; shorter strips leave more out, but each costs a call


def causal_strips(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None,
                  **settings: Any) -> tuple[Tensor, None]:
    """What the model's own attention gives, [B, L, heads, size]; `mask` [B, 1, L, keys] or None, all later keys masked.

    Rows without a mask (sdpa knows that they are causal), short rows, and new tokens after a cache go on whole.
    """
    long = query.shape[2]
    if not long == key.shape[2] > STRIP or (mask is None and not is_special(settings)):
        return whole_rows(module, query, key, value, mask, **settings)
    strips = []
    for start in range(0, long, STRIP):
        first, end = 0, min(start + STRIP, long)
        seen = None if mask is None else mask[:, :, start:end, :end]
        if seen is not None and settings.get("sliding_window"):  # keys before the window of all these queries
            first = int(seen.flatten(0, -2).any(0).int().argmax())
            seen = seen[..., first:]
        out, _ = whole_rows(module, query[:, :, start:end], key[:, :, first:end], value[:, :, first:end], seen,
                            **settings)  # [B, end - start, heads, size]
        strips.append(out)
    return torch.cat(strips, dim=1), None


def is_special(settings: dict[str, Any]) -> bool:
    """Whether an attention has what sdpa has not: a cap on its scores (Gemma 2) or sinks (gpt-oss)."""
    return bool(settings.get("softcap")) or settings.get("s_aux") is not None


def whole_rows(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None,
               **settings: Any) -> tuple[Tensor, None]:
    """[B, heads, L, size] -> [B, L, heads, size], by sdpa where it can."""
    if not is_special(settings):
        return sdpa_attention_forward(module, query, key, value, mask, **settings)
    if settings.get("dropout"):
        raise ValueError("attention with a cap or sinks knows no dropout here")
    if mask is None and query.shape[2] > 1:
        mask = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool, device=query.device)
        mask = mask.tril(key.shape[2] - query.shape[2])
    out = attend_by_scores(query, key, value, mask, settings.get("scaling"), settings.get("softcap"),
                           settings.get("s_aux"))
    return out.transpose(1, 2).contiguous(), None


def attend_by_scores(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float | None,
                     cap: float | None, sinks: Tensor | None) -> Tensor:
    """Softmax over scores that are kept below a cap, and over a sink for each query head, which holds no value.

    [B, heads, L, size], keys and values [B, heads or fewer, keys, size], mask [B, 1, L, keys] of bools or added,
    sinks [heads] -> [B, heads, L, size].
    """
    batch, heads, long, size = query.shape
    few = key.shape[1]  # heads that share keys stand together, as more queries of one head
    scores = query.reshape(batch, few, -1, size) @ key.mT * (size ** -0.5 if scale is None else scale)
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32)).view(batch, heads, long, -1)
    if cap:
        scores = cap * (scores / cap).tanh()
    if mask is not None:
        least = torch.finfo(scores.dtype).min  # of padding that sees nothing, infinity would make no number
        scores = scores.masked_fill(~mask, least) if mask.dtype == torch.bool else scores + mask
    if sinks is not None:
        scores = torch.cat([scores, sinks.to(scores.dtype)[:, None, None].expand(batch, -1, long, 1)], dim=-1)
    shares = scores.softmax(-1)[..., :key.shape[2]].to(value.dtype)
    return (shares.view(batch, few, -1, key.shape[2]) @ value).view(batch, heads, long, -1)


def takes_interface(model: PreTrainedModel) -> bool:
    """Whether the model attends by whatever implementation it is told, caps and sinks included.

    It does so by sdpa; or it has what sdpa cannot do, and transformers hands that to flex_attention.
    """
    kind = getattr(model.config, "_attn_implementation", None)
    if kind == "eager":
        odd = has_caps(model) or not model._supports_sdpa
        return odd and model._supports_flex_attn and model._can_set_attn_implementation()
    return kind in ("sdpa", NAME)


def keep_caps(model: PreTrainedModel) -> None:
    """Have a model with a cap on its scores computed under it: transformers 5.17 takes sdpa, which passes over it."""
    if has_caps(model) and getattr(model.config, "_attn_implementation", None) == "sdpa":
        model.set_attn_implementation("eager")


def has_caps(model: PreTrainedModel) -> bool:
    return bool(getattr(model.config.get_text_config(), "attn_logit_softcapping", None))


def use_strips(model: PreTrainedModel) -> None:
    """Let a causal model on the CPU attend in strips, if it can; any other stays as it is.

    On a GPU sdpa chooses among kernels of its own, and several short calls would cost more than they leave out.
    Transformers does not write the choice into a saved config.json.
    """
    if model.device.type == "cpu" and takes_interface(model):
        model.set_attn_implementation(NAME)


def block_masks(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | BlockMask | None,
                **settings: Any) -> tuple[Tensor, None]:
    """flex_attention for flat packs, [1, L, heads, size], and sdpa for all else: generation's steps are its own.

    Raises ValueError for dropout, which flex_attention does not know.
    """
    if not isinstance(mask, BlockMask):
        return whole_rows(module, query, key, value, mask, **settings)
    if settings.get("dropout"):
        raise ValueError("flex_attention knows no dropout")
    device = query.device.type
    if torch.is_autocast_enabled(device):  # it leaves flex_attention alone: rotated queries and keys are float32 still
        query, key, value = (part.to(torch.get_autocast_dtype(device)) for part in (query, key, value))
    how = {"block_mask": mask, "scale": settings.get("scaling"), "enable_gqa": query.shape[1] != key.shape[1]}
    if settings.get("softcap"):
        how["score_mod"] = cap_scores(settings["softcap"])
    attend: Any = flex_attention if torch.compiler.is_compiling() else kernel(device)
    if (sinks := settings.get("s_aux")) is None:
        return attend(query, key, value, **how).transpose(1, 2).contiguous(), None
    out, more = attend(query, key, value, **how, return_aux=AuxRequest(lse=True))
    out = out * (more.lse - sinks[:, None]).sigmoid().to(out.dtype)[..., None]  # the share that is not the sink's
    return out.transpose(1, 2).contiguous(), None


@cache
def cap_scores(cap: float) -> Callable[..., Tensor]:
    """What flex_attention does to scores that are kept below a cap."""
    return lambda score, batch, head, query, key: cap * (score / cap).tanh()


@cache
def kernel(device: str) -> Callable[..., Tensor]:
    """flex_attention compiled, for a GPU: uncompiled it computes and keeps all L * L scores.

    dynamic is left alone: the second length that comes makes a kernel for all lengths, where False would compile for
    each and True takes no fewer. fullgraph, since a compiler that gives up would go on uncompiled without a word.
    """
    if device == "cpu":
        return flex_attention
    allow_kernels()
    return torch.compile(flex_attention, fullgraph=True)


def allow_kernels() -> None:
    """Let the compiler make more kernels of a function than 8, where it gives up unless told otherwise.

    With and without gradients, of two models, for one length and for all, is eight already.
    """
    torch.compiler.config.recompile_limit = 64


def use_flex(model: PreTrainedModel) -> bool:
    """Let a model read the masks of flat packs, if it can attend by flex_attention; whether it is such a model."""
    if not takes_interface(model):
        return False
    model.set_attn_implementation(FLEX)
    return True


AttentionInterface.register(NAME, causal_strips)
AttentionInterface.register(FLEX, block_masks)
AttentionMaskInterface.register(NAME, sdpa_mask)  # masks are made as for sdpa
AttentionMaskInterface.register(FLEX, sdpa_mask)
