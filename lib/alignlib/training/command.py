"""The options that every training command has, handed to its body as one Session.

    @options.command(("prompt", "chosen"), options.LOG)
    @training_options(lr=1e-5, batch_size=32)
    def main(session, loss): ...
"""

import functools
from dataclasses import fields
from typing import Any

import click

from alignlib.cli import options, shells
from alignlib.cli.model_options import DEVICE, chat_options, device_options, limit_options
from alignlib.cli.options import Finite, Seed
from alignlib.cli.paths import must_exist
from alignlib.cli.sections import FIRST, Decorator, Function, section, stack
from alignlib.training.recipe import Recipe
from alignlib.training.session import Session


class Betas(click.ParamType[tuple[float, float]]):
    """Two numbers in one argument: "0.9,0.95"."""

    name = "B1,B2"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, float]:
        if isinstance(value, tuple):
            return value
        try:
            first, second = map(float, value.split(","))
        except ValueError:
            self.fail(f"{value}: expected two numbers with a comma between", param, ctx)
        if not (0 <= first < 1 and 0 <= second < 1):
            self.fail(f"{value}: both are at least 0 and below 1", param, ctx)
        return first, second


# Training on several devices.
launch_options = section(
    "Several devices",
    click.option("--launch", type=click.IntRange(min=1), metavar="N", help="Train in N processes on this machine."),
    click.option("--zero", type=click.IntRange(0, 3),
                 help="What DeepSpeed deals out: 1 optimizer, 2 and gradients, 3 weights.  [default: 2 on several]"),
    click.option("--offload", type=click.Choice(["none", "optimizer", "all"]), default="none",
                 help="What DeepSpeed keeps in the host's memory; all: the weights too (--zero 3)."),
    click.option("--deepspeed", type=click.Path(exists=True, dir_okay=False), metavar="FILE",
                 help="A DeepSpeed configuration; what it says wins."),
    click.option("--local_rank", type=int, hidden=True, expose_value=False,
                 help="What the deepspeed launcher gives; the variable RANK says more."),
)


# Adapters, and what is saved.
adapter_options = section(
    "Adapters, and what is saved",
    click.option("--lora", type=click.IntRange(min=1), metavar="RANK",
                 help="Train adapters of this rank, saved merged.  [default: none; where MODEL is an adapter, in it]"),
    click.option("--lora-alpha", type=click.IntRange(min=1), help="Their scale, times the rank.  [default: 2 * RANK]"),
    click.option("--lora-dropout", type=Finite(0, 1, max_open=True), default=0.0,
                 help="Share of their input that is left out in training steps; none in evaluations, nor for the "
                      "reference."),
    click.option("--lora-targets", metavar="NAMES",
                 help="The linear layers that they are on: q_proj,v_proj, say.  [default: all-linear]"),
    click.option("--lora-lr", type=Finite(min=0),
                 help="Their learning rate where other weights train beside them: a reward model's head, at --lr."),
    click.option("--load-4bit", is_flag=True,
                 help="Keep the base in 4 bits under the adapters, with bitsandbytes; needs --save-adapter."),
    click.option("--save-adapter", is_flag=True, help="Save the adapter alone, in peft's format; it names its base."),
    click.option("--save-dtype", type=click.Choice(["auto", "fp32", "bf16", "fp16"]), default="auto",
                 help="What -o's weights are kept in; auto: what MODEL's are. Checkpoints are fp32."),
)


def training_options(*, lr: float, batch_size: int, epochs: float = 1, optimizer: str = "adamw") -> Decorator:
    """MODEL, the files and the options of a training command; its body gets `session` for them, and its own."""
    decorators = (
        click.argument("model", shell_complete=shells.files),
        options.files,
        section(
            FIRST,
            click.option("-o", "--output", type=click.Path(file_okay=False),
                         help="The new model's folder.  [required]"),
            click.option("--resume", is_flag=True, help="Go on with a killed run in the same -o DIR."),
            click.option("--on-error", type=click.Choice(["fail", "skip"]), default="fail",
                         help="What a bad line does; skip: it is named and left out."),
            click.option("--eval", type=click.Path(exists=True, dir_okay=False), help="Held-out records."),
            click.option("--eval-every", type=click.IntRange(min=1), help="Steps.  [default: each epoch]"),
            click.option("--save-every", type=Finite(min=0, min_open=True),
                         help="Steps between checkpoints; below 1, a share of the run.  [default: none]"),
            click.option("--keep", type=click.IntRange(min=0), default=1, help="Checkpoints to keep; 0: all."),
        ),
        step_options(lr, batch_size, epochs, optimizer),
        limit_options,
        chat_options,
        section(
            DEVICE,
            device_options,
            click.option("--pack-tokens", type=click.IntRange(min=1), default=8192,
                         help="Tokens on the device at once; a step takes as many passes as it needs."),
            click.option("--gradient-checkpointing", is_flag=True, help="Less memory for a third more time."),
            click.option("--compile", is_flag=True,
                         help="Compile the model's layers: half a minute, then on a GPU steps are 1.3 times as fast."),
            click.option("--plan", is_flag=True, help="Print the memory this takes on so many devices; train nothing."),
        ),
        launch_options,
        adapter_options,
    )
    names = [field.name for field in fields(Recipe)]

    def decorate(function: Function) -> Function:
        @functools.wraps(function)
        def body(model: str, files: tuple[str, ...], launch: int | None, plan: bool, **given: Any) -> Any:
            must_exist(files)
            recipe = Recipe(**{name: given.pop(name) for name in names})
            return function(Session(model, files, recipe, processes=launch, plan=plan), **given)

        return stack(*decorators)(body)

    return decorate


def step_options(lr: float, batch_size: int, epochs: float, optimizer: str) -> Decorator:
    """How many steps, of what size."""
    return section(
        "Steps",
        click.option("--batch-size", type=click.IntRange(min=1), default=batch_size, help="Records a step."),
        click.option("--epochs", type=Finite(min=0, min_open=True), default=epochs, help="Times through the data."),
        click.option("--steps", type=click.IntRange(min=1), help="Stop after so many, whatever --epochs says."),
        click.option("--lr", type=Finite(min=0), default=lr, help="Peak learning rate."),
        click.option("--optimizer", type=click.Choice(["adamw", "rmsprop"]), default=optimizer,
                     help="What takes the steps."),
        click.option("--betas", type=Betas(), default="0.9,0.95", help="Of AdamW."),
        click.option("--weight-decay", type=Finite(min=0), default=0.0, help="Of the optimizer."),
        click.option("--schedule", type=click.Choice(["cosine", "linear", "constant"]), default="cosine",
                     help="Of the learning rate, after the warm-up."),
        click.option("--warmup", type=Finite(min=0), default=0.1, help="Steps; below 1, a share of them."),
        click.option("--clip", type=Finite(min=0), default=1.0, help="Gradient norm at most; 0: any."),
        click.option("--seed", type=Seed(), default=0, help="Of the data's order and of new weights."),
    )
