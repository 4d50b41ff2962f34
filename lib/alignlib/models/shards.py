"""Weights that ZeRO 3 keeps in parts on several devices."""

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext

from torch import nn


def is_sharded(model: nn.Module) -> bool:
    """Whether ZeRO 3 keeps the weights in parts on several devices, to be gathered as they are used."""
    return any(hasattr(weight, "ds_id") for weight in model.parameters())


def gather_weights(weights: Iterable[nn.Parameter], *, change: bool = False) -> AbstractContextManager[object]:
    """In its body the weights are whole on every rank; with `change`, what rank 0 does to them is kept."""
    weights = [weight for weight in weights if hasattr(weight, "ds_id")]
    if not weights:
        return nullcontext()
    import deepspeed

    return deepspeed.zero.GatheredParameters(weights, modifier_rank=0 if change else None)
