"""Memory on paper: what training a model takes on each device, from its configuration alone.

What weights and optimizer need follows from a few products (`states`). What a pass over a pack needs is found by taking
one with tensors that have shapes but no numbers (`activations`): any family is its own formula.
"""

import math
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
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

from alignlib.cli import tables
from alignlib.models import load
from alignlib.models.attention import takes_interface
from alignlib.models.encoding import Example
from alignlib.models.packs import ROW_TOKENS
from alignlib.models.policy import Policy, RewardModel
from alignlib.models.text_part import find_text_part
from alignlib.training.adapters import add_adapters
from alignlib.training.live_bytes import Live
from alignlib.training.recipe import Recipe
from alignlib.training.zero import BUCKET, configuration, wants_deepspeed

GATHERED = 1_050_000_000  # weights that ZeRO 3 holds whole at once, at most: its max_live_parameters and prefetch
FOUR_BITS = 0.5 + 1 / 64 + 4 / 64 / 256  # bytes of such a weight, with the scales of blocks and of blocks of scales
SUBGROUP = 1_000_000_000  # weights that ZeRO 3 steps at once
# What a device holds at one time or another; `peak` says which of them together.
ITEMS = ("weights", "optimizer", "gradients", "buffers", "activations", "step", "loading")
GB = 1e9
CARDS = (24, 48, 80, 141)  # GB; a tenth is left to CUDA, NCCL and gaps between tensors
CHOICES = ((None, "none"), (0, "none"), (1, "none"), (2, "none"), (2, "optimizer"), (3, "none"), (3, "optimizer"),
           (3, "all"))
DEVICES = (1, 2, 4, 8, 16, 32, 64)
Adapt = Callable[[Any], None]  # on a policy or a reward model

# -- what stays ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Weights:
    """Numbers of a model's parameters."""

    total: int
    trained: int
    largest: int  # of one tensor
    in_4_bits: int = 0  # of the total

    @classmethod
    def count(cls, model: torch.nn.Module, layers_4_bit: torch.nn.Module | None = None) -> "Weights":
        every = list(model.parameters())
        narrow = layers_4_bit.named_modules() if layers_4_bit else ()
        return cls(sum(weight.numel() for weight in every),
                   sum(weight.numel() for weight in every if weight.requires_grad),
                   max(weight.numel() for weight in every),
                   sum(layer.weight.numel() for name, layer in narrow
                       if type(layer) is torch.nn.Linear and ".lora_" not in name))

    def kept(self, width: float) -> float:
        """Bytes of all weights, of which each takes so many, but for those in 4 bits."""
        return width * (self.total - self.in_4_bits) + FOUR_BITS * self.in_4_bits


@dataclass(frozen=True)
class Setting:
    """How training is spread: `zero` None is plain torch on one device; `narrow` weights have 16 bits, not 32."""

    devices: int
    zero: int | None
    offload: str
    narrow: bool
    moments: int = 8  # bytes a trained weight: AdamW's two in float32
    bucket: int = BUCKET

    @classmethod
    def from_recipe(cls, recipe: Recipe, devices: int) -> "Setting":
        """Of a recipe whose dtype is said. Raises UsageError for one that DeepSpeed cannot follow."""
        moments = 4 if recipe.optimizer == "rmsprop" else 8
        if devices == 1 and not wants_deepspeed(recipe):
            return cls(1, None, "none", False, moments)
        config = configuration(recipe)
        cuts = config["zero_optimization"]
        away = [cuts.get(name, {}).get("device", "none") != "none" for name in ("offload_optimizer", "offload_param")]
        return cls(devices, cuts["stage"], "all" if away[1] else "optimizer" if away[0] else "none",
                   any(config[name].get("enabled") for name in ("bf16", "fp16")), moments,
                   cuts.get("reduce_bucket_size", BUCKET))

    def __str__(self) -> str:
        if self.zero is None:
            return "without DeepSpeed"
        return f"--zero {self.zero}" + (f" --offload {self.offload}" if self.offload != "none" else "")


def states(weights: Weights, setting: Setting) -> dict[str, float]:
    """Bytes on a device of all but the activations, and `host`: bytes of its process in the machine's memory.

    Measured on DeepSpeed 0.19.8, whose papers (ZeRO, arXiv 1910.02054; ZeRO-Offload, 2101.06840) leave out the buffers.
    """
    width, total, trained = 2 if setting.narrow else 4, weights.total, weights.trained
    bucket, share = min(setting.bucket, trained), trained / setting.devices
    if not setting.zero:  # every device has it all; 16-bit weights have a float32 copy
        return {"weights": weights.kept(width), "optimizer": (setting.moments + 4 * setting.narrow) * trained,
                "gradients": width * trained, "buffers": 0 if setting.zero is None else width * bucket,
                "step": 4 * trained, "loading": weights.kept(4), "host": weights.kept(4)}
    cut = setting.zero == 3
    items = {
        "weights": width * total / (setting.devices if cut else 1),
        "optimizer": (4 + setting.moments) * share,  # a float32 copy of float32 weights too
        "gradients": width * (share if setting.zero > 1 else trained),
        # ZeRO 1 and 2: gradients that wait for their bucket to fill, and the bucket; 3: the bucket, weights in use.
        "buffers": width * (bucket + min(total, GATHERED) if cut else 2 * bucket),
        # Float32 gradients and a temporary of the optimizer's; on the host, whose gradients are there, two of these.
        "step": 8 * (min(share, SUBGROUP) if cut else share),
        "loading": 0 if cut else 4 * total,  # in float32, on the device, after the host
        "host": 0 if cut else 4 * total,
    }
    if setting.offload != "none":  # all float32 is the host's, the sums of gradients too
        sums = width * share if cut else 2 * width * share
        kept = items["optimizer"] + 4 * share + sums + items["step"]
        items |= {"optimizer": 0, "gradients": 0, "step": 0, "buffers": items["buffers"] + width * weights.largest}
        if setting.offload == "all":
            kept, items["weights"] = kept + items["weights"], 0
        items["host"] = max(items["host"], kept)
    return items


def beside(weights: Weights, setting: Setting, items: dict[str, float], width: int) -> dict[str, float]:
    """What becomes more with a second model of `width` bytes a weight that is only asked; ZeRO 3 deals it out too."""
    kept = width * weights.total / (setting.devices if setting.zero == 3 else 1)
    where = "host" if setting.offload == "all" else "weights"
    return {where: items[where] + kept}


def peak(items: dict[str, float]) -> float:
    """The most bytes that a device holds: in a pass, in the optimizer's step, or while the model is loaded."""
    kept = items["weights"] + items["optimizer"] + items["gradients"]
    return max(kept + items["buffers"] + items["activations"], kept + items["step"], items["loading"])


# -- what a pass makes ---------------------------------------------------------------------------------------


def blueprint(config: Any, recipe: Recipe, narrow: bool, adapt: Adapt | None = None) -> Policy | RewardModel:
    """The model as training would have it, on the meta device: without numbers, and without memory."""
    policy = not any("Classification" in name for name in config.architectures or ())
    config = config.get_text_config() if find_text_part(config) else config
    auto = transformers.AutoModelForCausalLM if policy else transformers.AutoModelForSequenceClassification
    autocast = None if recipe.dtype == "fp32" else load.DTYPES[recipe.dtype]
    with torch.device("meta"):
        model = auto.from_config(config, dtype=torch.float32, trust_remote_code=False)
        if takes_interface(model):
            model.set_attn_implementation(NAME)
        load.remove_dropout(model)
        paper = (PaperPolicy if policy else PaperReward)(model, None, autocast=autocast)
        if adapt:
            adapt(paper)
        add_adapters(paper, recipe)
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
            return Weights.count(model.model, model.core.base_model if recipe.load_4bit else None), live.most
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


def plan(path: str, recipe: Recipe, devices: int, *, reference: bool = False,
         adapt: Adapt | None = None) -> dict[str, Any]:
    """What training the model at `path` by this recipe takes, and what it would otherwise; bytes in GB (10^9).

    reference: another of its size is asked beside it. adapt: says which of its weights train. Raises UsageError.
    """
    recipe = replace(recipe, dtype="bf16" if recipe.dtype == "auto" else recipe.dtype)  # as on a GPU
    config = load.load_config(path)

    @cache
    def passing(tokens: int, checkpointing: bool, narrow: bool) -> tuple[Weights, float]:
        return activations(config, replace(recipe, gradient_checkpointing=checkpointing), tokens, narrow, adapt)

    def needs(setting: Setting) -> dict[str, Any]:
        weights, most_made = passing(recipe.pack_tokens, recipe.gradient_checkpointing, setting.narrow)
        items = {**states(weights, setting), "activations": most_made}
        if reference:
            items |= beside(weights, setting, items, 4 if recipe.dtype == "fp32" else 2)
        most = peak(items)
        card = next((size for size in CARDS if most <= 0.9 * size * GB), None)
        return {**asdict(setting), **{name: items[name] / GB for name in ITEMS}, "device": most / GB,
                "host": items["host"] / GB, "card": card}

    setting = Setting.from_recipe(recipe, devices)
    others = [Setting.from_recipe(replace(recipe, zero=zero, offload=offload, deepspeed=None), count)
              for zero, offload in CHOICES for count in DEVICES
              if (count == 1 if zero is None else not recipe.load_4bit)]
    by_length = [{"pack_tokens": tokens, **{name: passing(tokens, checkpointing, setting.narrow)[1] / GB
                                            for name, checkpointing in (("kept", False), ("checkpointed", True))}}
                 for halves in (1, 2, 4) if (tokens := recipe.pack_tokens * halves // 2)]
    weights, _ = passing(recipe.pack_tokens, recipe.gradient_checkpointing, setting.narrow)
    return {"model": path, **asdict(weights), "dtype": recipe.dtype, "pack_tokens": recipe.pack_tokens,
            "gradient_checkpointing": recipe.gradient_checkpointing, "lora": recipe.lora,
            "asked": needs(setting), "alternatives": list(map(needs, others)), "activations": by_length}


def show(figures: dict[str, Any]) -> None:
    """A plan on stdout: tables on a terminal, else JSON."""
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
    rows = [{"": label, "GB": f"{needs[name]:.1f}"} for name, label in names.items()]
    print(f"{tables.text(rows)}\n")
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
