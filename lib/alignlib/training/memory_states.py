"""Memory on paper: what weights, optimizer and gradients take on each device, by products of a few numbers.

What a pass over a pack makes is found by taking one: memory_plan.
"""

from dataclasses import dataclass
from typing import Any

import torch

from alignlib.training.recipe import Recipe, wants_deepspeed
from alignlib.training.zero import BUCKET, configuration

GATHERED = 1_050_000_000  # weights that ZeRO 3 holds whole at once, at most: its max_live_parameters and prefetch
FOUR_BITS = 0.5 + 1 / 64 + 4 / 64 / 256  # bytes of such a weight, with the scales of blocks and of blocks of scales
DRAWN = 4  # times the tokens of a pack are drawn together: of them keys and values alone are kept
SUBGROUP = 1_000_000_000  # weights that ZeRO 3 steps at once


@dataclass(frozen=True)
class Weights:
    """Numbers of a model's parameters."""

    total: int
    trained: int
    largest: int  # of one tensor
    in_4_bits: int = 0  # of the total
    in_16_bits: int = 0  # of the total: frozen beside others in 32
    linear: int = 0  # of the total: of the transformer's linear layers, adapters aside

    @classmethod
    def count(cls, model: torch.nn.Module, body: torch.nn.Module, in_4_bits: bool = False) -> "Weights":
        """Of a model and its transformer, whose linear layers may be in 4 bits."""
        every = list(model.parameters())
        linear = sum(layer.weight.numel() for name, layer in body.named_modules()
                     if type(layer) is torch.nn.Linear and ".lora_" not in name)
        return cls(sum(weight.numel() for weight in every),
                   sum(weight.numel() for weight in every if weight.requires_grad),
                   max(weight.numel() for weight in every), linear * in_4_bits,
                   sum(weight.numel() for weight in every if weight.element_size() == 2 and not weight.requires_grad),
                   linear)

    @property
    def wide(self) -> int:
        """Those in neither 4 nor 16 bits."""
        return self.total - self.in_4_bits - self.in_16_bits

    def read(self) -> float:
        """Bytes of all weights as they are read into the machine's memory, in 32 bits, but for those in 4."""
        return 4 * (self.total - self.in_4_bits) + FOUR_BITS * self.in_4_bits

    def asked(self, stored: int) -> float:
        """Bytes of a model like this that is only asked, computed as it is, whose folder has so many bytes a weight."""
        kept = FOUR_BITS if self.in_4_bits else stored
        return 4 * (self.total - self.linear) + kept * self.linear

    def kept(self, width: float) -> float:
        """Bytes of all weights, of which each takes so many, but for those in 4 bits and in 16."""
        return width * self.wide + 2 * self.in_16_bits + FOUR_BITS * self.in_4_bits


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
                "step": 4 * trained, "loading": weights.kept(4), "host": weights.read()}
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


def beside(weights: Weights, setting: Setting, items: dict[str, float], width: int, stored: int) -> dict[str, float]:
    """What becomes more with a reference, whose folder has `stored` bytes a weight; ZeRO 3 deals it out too.

    It is computed as the policy is, by DeepSpeed in `width` bytes throughout.
    """
    kept = weights.asked(stored) if setting.zero is None else width * weights.total
    kept /= setting.devices if setting.zero == 3 else 1
    where = "host" if setting.offload == "all" else "weights"
    return {where: items[where] + kept}


@dataclass(frozen=True)
class Along:
    """A model at `path` beside the one that trains: `trained` like it, or only asked, whole, as each rank likes."""

    path: str
    trained: bool = False

    def __str__(self) -> str:
        return f"critic, begun from {self.path}" if self.trained else self.path


def with_along(items: dict[str, float], weights: Weights, most_made: float, setting: Setting, trained: bool,
               width: int) -> dict[str, float]:
    """What becomes of `items` with a model of so many weights along, whose pass makes so much; passes take turns."""
    if not trained:
        return items | {"weights": items["weights"] + width * weights.total}
    own = states(weights, setting)
    added = {name: items[name] + own[name] for name in ("weights", "optimizer", "gradients", "buffers", "host")}
    return items | added | {"step": max(items["step"], own["step"]), "loading": items["loading"] + own["loading"],
                            "activations": max(items["activations"], most_made)}


def cache_bytes(config: Any, tokens: int, width: int) -> float:
    """Keys and values of so many tokens, as sampling keeps them."""
    text = config.get_text_config()
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return 2.0 * width * tokens * text.num_hidden_layers * heads * size


def held(items: dict[str, float]) -> float:
    """The bytes that a device holds whatever it does, and those of buffers."""
    return items["weights"] + items["optimizer"] + items["gradients"] + items["buffers"]


def peak(items: dict[str, float]) -> float:
    """The most bytes that a device holds: in a pass, in the optimizer's step, or while the model is loaded."""
    return max(held(items) + items["activations"], held(items) - items["buffers"] + items["step"], items["loading"])
