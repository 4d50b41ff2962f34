"""What every training command is told: one set of options, one frozen Recipe.

    @recipe.options(lr=1e-6, batch_size=64)
    def main(model, files, recipe, loss, beta): ...
"""

from dataclasses import dataclass

import click


@dataclass(frozen=True)
class Recipe:
    """How to train, whatever the loss. `batch_size` is part of the result; `pack_tokens`, how it is split, is not."""

    output: str
    resume: bool
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
    dtype: str
    device: str
    gradient_checkpointing: bool
    zero: int | None
    offload: str
    deepspeed: str | None
    lora: int | None
    eval: str | None
    eval_every: int | None
    save_every: float | None
    keep: int
    seed: int

    @property
    def limits(self) -> dict:
        """The arguments of tokens.Encoder."""
        return {"max_length": self.max_length, "max_prompt": self.max_prompt, "max_completion": self.max_completion,
                "keep": self.keep_prompt, "on_long": self.on_long}


class Betas(click.ParamType):
    """Two numbers in one argument: "0.9,0.95"."""

    name = "B1,B2"

    def convert(self, value, param, ctx):
        if isinstance(value, tuple):
            return value
        try:
            first, second = map(float, value.split(","))
        except ValueError:
            self.fail(f"{value}: expected two numbers with a comma between", param, ctx)
        if not (0 <= first < 1 and 0 <= second < 1):
            self.fail(f"{value}: both are at least 0 and below 1", param, ctx)
        return first, second


