"""What every training run is told."""

from dataclasses import dataclass
from typing import Any

from alignlib import ranks


@dataclass(frozen=True)
class Recipe:
    """How to train, whatever the loss. `batch_size` is part of the result; `pack_tokens`, how it is split, is not."""

    output: str
    resume: bool
    on_error: str
    batch_size: int
    pack_tokens: int
    epochs: float
    steps: int | None
    lr: float
    optimizer: str
    betas: tuple[float, float]
    weight_decay: float
    schedule: str
    warmup: float
    clip: float
    max_length: int | None
    max_prompt: int | None
    max_completion: int | None
    keep_prompt: str
    on_long: str
    template: str | None
    template_args: tuple[tuple[str, Any], ...]
    control_tokens: bool
    dtype: str
    device: str
    gradient_checkpointing: bool
    compile: bool
    zero: int | None
    offload: str
    deepspeed: str | None
    lora: int | None
    lora_alpha: int | None
    lora_dropout: float
    lora_targets: str | None
    lora_lr: float | None
    load_4bit: bool
    save_adapter: bool
    save_dtype: str
    eval: str | None
    eval_every: int | None
    save_every: float | None
    keep: int
    seed: int

    @property
    def limits(self) -> dict[str, Any]:
        """The arguments of an Encoder."""
        return {"max_length": self.max_length, "max_prompt": self.max_prompt, "max_completion": self.max_completion,
                "keep": self.keep_prompt, "on_long": self.on_long, "template": self.template,
                "template_args": self.template_args, "control_tokens": self.control_tokens}


def wants_deepspeed(recipe: Recipe) -> bool:
    return ranks.size() > 1 or recipe.zero is not None or recipe.offload != "none" or recipe.deepspeed is not None


def linear_bits(recipe: Recipe, frozen: bool) -> int:
    """What linear layers are kept in (precision.frozen_linear); frozen: those of a reference, or under adapters."""
    return 4 if recipe.load_4bit else 16 if frozen and not wants_deepspeed(recipe) else 32
