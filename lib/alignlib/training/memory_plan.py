"""Memory on paper: what training a model takes on each device, from its configuration alone.

What weights and optimizer need follows from a few products (memory_states). What a pass over a pack needs is found by
taking one with tensors that have shapes but no numbers (`activations`): any family is its own formula.
"""

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import cache
from typing import Any

import click
import orjson
import torch
import transformers
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from alignlib import waits
from alignlib.cli import tables
from alignlib.models import load, precision
from alignlib.models.attention import takes_interface
from alignlib.models.example import Example
from alignlib.models.packs import ROW_TOKENS
from alignlib.models.policy import Policy, RewardModel
from alignlib.models.text_part import find_text_part
from alignlib.training.adapters import plan_adapters
from alignlib.training.live_bytes import Live
from alignlib.training.memory_states import (
    DRAWN,
    Along,
    Setting,
    Weights,
    beside,
    cache_bytes,
    held,
    peak,
    states,
    with_along,
)
from alignlib.training.recipe import Recipe

# What a device holds at one time or another; `peak` says which of them together.
ITEMS = ("weights", "optimizer", "gradients", "buffers", "activations", "step", "loading")
GB = 1e9
CARDS = (24, 48, 80, 141)  # GB; a tenth is left to CUDA, NCCL and gaps between tensors
CHOICES = ((None, "none"), (0, "none"), (1, "none"), (2, "none"), (2, "optimizer"), (3, "none"), (3, "optimizer"),
           (3, "all"))
DEVICES = (1, 2, 4, 8, 16, 32, 64)
Adapt = Callable[[Any], None]  # on a policy or a reward model

# -- what a pass makes ---------------------------------------------------------------------------------------


def blueprint(config: Any, recipe: Recipe, narrow: bool, adapt: Adapt | None = None) -> Policy | RewardModel:
    """The model as training would have it, on the meta device: without numbers, and without memory."""
    policy = not any("Classification" in name for name in config.architectures or ())
    config = config.get_text_config() if find_text_part(config) else config
    auto = transformers.AutoModelForCausalLM if policy else transformers.AutoModelForSequenceClassification
    autocast, kept = None if recipe.dtype == "fp32" else precision.DTYPES[recipe.dtype], config.dtype
    with torch.device("meta"):
        model = auto.from_config(config, dtype=torch.float32, trust_remote_code=False)
        model.config.dtype = kept
        if takes_interface(model):
            model.set_attn_implementation(NAME)
        load.remove_dropout(model)
        paper = (PaperPolicy if policy else PaperReward)(model, None, autocast=autocast)
        if adapt:
            adapt(paper)
        plan_adapters(paper, recipe)
    if narrow:
        paper.model.to(autocast)
    if recipe.gradient_checkpointing:
        paper.checkpoint_activations()
    paper.model.train()
    return paper


def activations(config: Any, recipe: Recipe, tokens: int, narrow: bool,
                adapt: Adapt | None = None) -> tuple[Weights, float]:
    """The model's size, and the most bytes that a pass over a pack of so many tokens makes, to and fro.

    All tokens are predicted, none is padding, and no [L, L] mask is made, as with flex_attention; the gradients of
    weights do not count. Raises UsageError for a model whose way depends on its numbers.
    """
    model = blueprint(config, recipe, narrow, adapt)
    try:
        with FakeTensorMode(allow_non_fake_inputs=True):
            model.model.to_empty(device="cpu")  # where autocast knows what to do
            model.core.tie_weights()
            for weight in model.model.parameters():
                if weight.requires_grad:
                    weight.register_post_accumulate_grad_hook(forget)
            rows = math.ceil(tokens / min(tokens, ROW_TOKENS, model.context))
            batch = model.pack([Example([0], [[0] * (math.ceil(tokens / rows) - 1)])] * rows)
            with Live([*model.model.parameters(), *model.model.buffers()]) as live:
                out = model.token_logps(batch) if isinstance(model, Policy) else model.logits(batch)
                out.sum().backward()
            return Weights.count(model.model, model.core.base_model, recipe.load_4bit), live.most
    except DataDependentOutputException as error:
        raise click.UsageError(f"--plan: what a {config.model_type} does depends on its numbers ({error})") from error


def forget(weight: Tensor) -> None:
    weight.grad = None


class PaperPolicy(Policy):
    """A policy without numbers."""

    def choose_packing(self) -> None:
        """There is nothing to try out."""


class PaperReward(RewardModel):
    """A reward model without numbers."""

    def choose_packing(self) -> None:
        """There is nothing to try out."""


NAME = "on_paper"  # an attention that keeps queries, keys, values and their result, as flash and flex_attention do
AttentionInterface.register(NAME, lambda *tensors, softcap=None, s_aux=None, **settings:
                            sdpa_attention_forward(*tensors, **settings))  # caps and sinks keep nothing more
AttentionMaskInterface.register(NAME, lambda *places, **settings: None)  # else a mask is made where numbers are none


# -- the plan ------------------------------------------------------------------------------------------------


def plan(path: str, recipe: Recipe, devices: int, *, reference: bool = False, along: Sequence[Along] = (),
         samples: bool = False, adapt: Adapt | None = None) -> dict[str, Any]:
    """What training the model at `path` by this recipe takes, and what it would otherwise; bytes in GB (10^9).

    reference: it, as it was, is asked beside it; along: these are there too; samples: it draws between its steps.
    adapt: says which of its weights train. Raises UsageError.
    """
    recipe = replace(recipe, dtype="bf16" if recipe.dtype == "auto" else recipe.dtype)  # as on a GPU
    width, config = 4 if recipe.dtype == "fp32" else 2, load.load_config(path)
    stored = 2 if config.dtype == precision.DTYPES[recipe.dtype] and width == 2 and not load.adapter_base(path) else 4

    @cache
    def passing(tokens: int, checkpointing: bool, narrow: bool, alone: bool, other: str = "") -> tuple[Weights, float]:
        """Of the model, or of the `other` beside it, which trains whole but for --lora's adapters."""
        how = replace(recipe, gradient_checkpointing=checkpointing, zero=None if alone else 0, offload="none",
                      deepspeed=None, load_4bit=recipe.load_4bit and not (other and recipe.lora is None))
        return activations(load.load_config(other or path), how, tokens, narrow, None if other else adapt)

    def needs(setting: Setting) -> dict[str, Any]:
        whole = recipe.pack_tokens, recipe.gradient_checkpointing, setting.narrow, setting.zero is None
        weights, most_made = passing(*whole)
        items = {**states(weights, setting), "activations": most_made}
        models = {"policy": held(items)} if reference or along else {}
        if reference:
            items |= beside(weights, setting, items, width, stored)
            models["reference"] = held(items) - models["policy"]
        for other in along:
            before = held(items)
            items = with_along(items, *passing(*whole, other.path), setting, other.trained, width)
            models[str(other)] = models.get(str(other), 0) + held(items) - before
        casts = 0 if setting.narrow or width == 4 else width * weights.wide
        caches = cache_bytes(config, DRAWN * recipe.pack_tokens, width) + casts if samples else 0
        items["activations"] = max(items["activations"], caches)
        most = peak(items)
        card = next((size for size in CARDS if most <= 0.9 * size * GB), None)
        return {**asdict(setting), **{name: items[name] / GB for name in ITEMS}, "caches": caches / GB,
                "device": most / GB, "host": items["host"] / GB, "card": card,
                "models": {name: size / GB for name, size in models.items()}}

    setting = Setting.from_recipe(recipe, devices)
    alone = setting.zero is None
    others = [Setting.from_recipe(replace(recipe, zero=zero, offload=offload, deepspeed=None), count)
              for zero, offload in CHOICES for count in DEVICES
              if (count == 1 if zero is None else not recipe.load_4bit)]
    by_length = [{"pack_tokens": tokens, **{name: passing(tokens, checkpointing, setting.narrow, alone)[1] / GB
                                            for name, checkpointing in (("kept", False), ("checkpointed", True))}}
                 for halves in (1, 2, 4) if (tokens := recipe.pack_tokens * halves // 2)]
    weights, _ = passing(recipe.pack_tokens, recipe.gradient_checkpointing, setting.narrow, alone)
    return {"model": path, **asdict(weights), "dtype": recipe.dtype, "pack_tokens": recipe.pack_tokens,
            "gradient_checkpointing": recipe.gradient_checkpointing, "lora": recipe.lora,
            "asked": needs(setting), "alternatives": list(map(needs, others)), "activations": by_length}


def show(figures: dict[str, Any]) -> None:
    """A plan on stdout: tables on a terminal, else JSON."""
    waits.hush()
    if not sys.stdout.isatty():
        return click.echo(orjson.dumps(figures))
    needs = figures["asked"]
    setting = Setting(**{name: needs[name] for name in Setting.__dataclass_fields__})
    how = [f"{figures['total']:,} weights, {figures['trained']:,} of them trained", figures["dtype"],
           f"packs of {figures['pack_tokens']:,} tokens"]
    how += ["gradient checkpointing"] * figures["gradient_checkpointing"]
    fits = f"fits a card of {needs['card']} GB" if needs["card"] else f"fits no card of {CARDS[-1]} GB"
    print(f"{figures['model']}: {', '.join(how)}\n\n{setting}, devices: {setting.devices}; {fits}")
    names = {**{name: name for name in ITEMS}, "device": "most at once", "host": "host memory"}
    sizes = {label: needs[name] for name, label in names.items()}
    sizes |= {"caches and casts, in turn with activations": needs["caches"]} if needs["caches"] else {}
    sizes |= {f"of all but activations: {name}": size for name, size in needs["models"].items()}
    print(f"{tables.text([{'': name, 'GB': f'{size:.1f}'} for name, size in sizes.items()])}\n")
    for name, title in (("device", "GB on a device, and the smallest usual card that holds it, by their number"),
                        ("host", "GB of the machine's memory for each device's process")):
        print(f"{title}\n{tables.text(pivot(figures['alternatives'], name))}\n")
    print("GB of activations on a device")
    print(tables.text([{"pack tokens": f"{row['pack_tokens']:,}", "kept": f"{row['kept']:.1f}",
                        "--gradient-checkpointing": f"{row['checkpointed']:.1f}"} for row in figures["activations"]]))


def pivot(rows: list[dict[str, Any]], figure: str) -> list[dict[str, str]]:
    """A row a setting, a column a number of devices."""
    table: dict[str, dict[str, str]] = {}
    for row in rows:
        name = str(Setting(**{field: row[field] for field in Setting.__dataclass_fields__}))
        cell = f"{row[figure]:.1f}" + (f" ({row['card'] or '-'})" if figure == "device" else "")
        table.setdefault(name, {"": name})[str(row["devices"])] = cell
    return list(table.values())
