"""Which packs a model can read, tried out when it is loaded."""

import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from math import isnan
from typing import Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel

from alignlib.models.attention import use_flex, use_strips
from alignlib.models.example import Example
from alignlib.models.packs import Pack
from alignlib.models.precision import float32_products
from alignlib.models.shards import is_sharded
from alignlib.models.windows import ignores_masks, small_windows

# What a model's own code may raise over packs it was not made for.
FAILURES = (TypeError, ValueError, RuntimeError, IndexError, KeyError, AttributeError)


class Model(Protocol):
    """What is asked of a policy or a reward model (policy.Model) here."""

    model: PreTrainedModel
    core: PreTrainedModel
    autocast: torch.dtype | None
    train: bool

    def pack_as(self, examples: Sequence[Example], indices: Sequence[int] | None = None, **kind: bool) -> Pack: ...

    def precision(self) -> AbstractContextManager[object]: ...

    def hidden(self, batch: Pack) -> Tensor: ...


def shares_prompts(model: Model) -> bool:
    """Whether a row of one prompt and two completions gives what two rows give; tried once, on load.

    The texts go beyond the model's windows, which are made small for them. The row is attended to in strips, where
    the model can, from now on: nobody sees later tokens in a model that shares prompts. Where the row does not give the
    same, the model's rows are padded plain ones, and a warning says why.
    """
    config, before = model.core.config, getattr(model.core.config, "_attn_implementation", None)
    tokens = torch.arange(40) % config.vocab_size
    prompt, *parts = (part.tolist() for part in tokens.split([6, 24, 10]))  # one is far behind its prompt in the row
    with torch.no_grad(), float32_products(model.core), small_windows(config, 4):
        rows = [model.pack_as([Example(prompt, [part])]) for part in parts]
        plain = [model.hidden(row)[-len(part):] for row, part in zip(rows, parts, strict=True)]
        if not all(states.isfinite().all() for states in plain):
            return False  # a broken model's numbers say nothing; who uses them names the record
        exact = is_exact(model, plain[0])
        try:
            if why := ignores_masks(config):
                raise ValueError(why)
            use_strips(model.core)
            packed = model.hidden(model.pack_as([Example(prompt, parts)]))[len(prompt):]
            both = zip(packed.split([len(part) for part in parts]), plain, strict=True)
            error = max(relative_error(states, wanted, exact) for states, wanted in both)
            reason = f"differ by {error:.1e} of their length"
        except FAILURES as failure:
            error, reason = float("inf"), f"fail ({failure})"
    if is_rounding(error, exact):
        return True
    if getattr(config, "_attn_implementation", None) != before:
        model.core.set_attn_implementation(before)
    print(f"warning: {type(model.core).__name__}: shared prompts {reason}; using padded rows", file=sys.stderr)
    return False


def packs_flat(model: Model) -> bool:
    """Whether flex_attention gives for groups in one flat row what plain rows give; tried once, on load.

    Of a model to train, also on the way back. Where it does, the model attends so from now on; where not, its packs
    are rows under dense masks, and a warning says why.
    """
    before = getattr(model.core.config, "_attn_implementation", None)
    if not use_flex(model.core):
        return False
    tokens = torch.arange(320) * 7 % model.core.config.vocab_size
    parts = [part.tolist() for part in tokens.split([40, 24, 16] * 4)]
    groups = [Example(parts[i], parts[i + 1:i + 3]) for i in range(0, len(parts), 3)]  # in three blocks
    try:
        with small_windows(model.core.config, 30):
            flat, plain = (probe_states(model, groups, flat=flat) for flat in (True, False))
        exact = model.autocast is None and is_exact(model, plain[0])
        error = max(relative_error(*pair, exact) for pair in zip(flat, plain, strict=True))
        reason = f"differs by {error:.1e} of its states' or gradients' length"
    except FAILURES as failure:
        error, exact, reason = float("inf"), True, f"fails ({str(failure).strip().splitlines()[0]})"
    if is_rounding(error, exact):
        return True
    model.core.set_attn_implementation(before)
    if not isnan(error):  # of a broken model
        print(f"warning: {type(model.core).__name__}: flex_attention {reason}; using dense masks", file=sys.stderr)
    return False


def probe_states(model: Model, groups: list[Example], *, flat: bool) -> list[Tensor]:
    """The hidden states that predict completions, [N, H]; of a model to train, a gradient that went through it all."""
    back, inputs = model.train and not is_sharded(model.model), list[Tensor]()
    batch, embeddings = model.pack_as(groups, shared=flat, flat=flat), model.core.get_input_embeddings()
    watched = embeddings.register_forward_hook(lambda *call: inputs.append(call[-1].requires_grad_(back)))
    with watched, model.precision(), torch.set_grad_enabled(back):
        states = model.hidden(batch)[batch.sources]
    if not back:
        return [states]
    by = torch.autograd.grad(states.float().tanh().sum(), inputs[0])[0]  # weights that early may be frozen
    return [states.detach(), by.flatten(0, -2).sum(0)]  # [H], over all tokens, which lie elsewhere in other packs


def is_exact(model: Model, states: Tensor) -> bool:
    """Whether states of the model, asked without autocast, are float32's all the way: layers in 4 bits may be less."""
    narrow = any(getattr(layer, "compute_dtype", torch.float32) != torch.float32 for layer in model.core.modules())
    return states.dtype == torch.float32 and not narrow


def relative_error(vectors: Tensor, wanted: Tensor, exact: bool) -> float:
    """How far vectors [..., H] are from what they should be, in lengths of those: the worst of all.

    Where the way there was not in float32 the median: single tokens may be off by all their length by rounding alone.
    """
    errors = ((vectors - wanted).float().norm(dim=-1) / wanted.float().norm(dim=-1)).flatten().sort().values
    return errors[-1 if exact else len(errors) // 2].item()


def is_rounding(error: float, exact: bool) -> bool:
    """Whether a relative error is what numbers lose by their bits, in float32 (`exact`) or less."""
    return error <= (1e-3 if exact else 0.1)
