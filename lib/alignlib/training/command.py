"""What every training command does before and after its training."""

import functools
from collections.abc import Callable
from dataclasses import fields

import click

from alignlib import ranks
from alignlib.cli.model_options import device_options, limit_options
from alignlib.cli.options import Finite, Seed, stack
from alignlib.cli.paths import must_exist
from alignlib.training.recipe import Betas, Recipe

# Training on several devices.
launch_options = stack(
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


def options(*, lr: float, batch_size: int, epochs: float = 1, optimizer: str = "adamw",
            plans: Callable[[dict], dict] = lambda given: {}) -> Callable:
    """The trainers' options, handed to the body as one `recipe`; `plans` makes of the others what memory.plan takes."""
    made = (
        click.option("-o", "--output", type=click.Path(file_okay=False), help="The new model's folder.  [required]"),
        click.option("--resume", is_flag=True, help="Go on with a killed run in the same -o DIR."),
        click.option("--batch-size", type=click.IntRange(min=1), default=batch_size, help="Records a step."),
        click.option("--pack-tokens", type=click.IntRange(min=1), default=8192,
                     help="Tokens on the device at once; a step takes as many passes as it needs."),
        click.option("--epochs", type=Finite(min=0, min_open=True), default=epochs,
                     help="Times through the data."),
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
        limit_options,
        device_options,
        click.option("--gradient-checkpointing", is_flag=True, help="Less memory for a third more time."),
        launch_options,
        click.option("--plan", is_flag=True, help="Print the memory this takes on so many devices; train nothing."),
        click.option("--lora", type=click.IntRange(min=1), help="Train adapters of this rank; saved merged."),
        click.option("--eval", type=click.Path(exists=True, dir_okay=False), help="Held-out records."),
        click.option("--eval-every", type=click.IntRange(min=1), help="Steps.  [default: each epoch]"),
        click.option("--save-every", type=Finite(min=0, min_open=True),
                     help="Steps between checkpoints; below 1, a share of the run.  [default: none]"),
        click.option("--keep", type=click.IntRange(min=0), default=1, help="Checkpoints to keep; 0: all."),
        click.option("--seed", type=Seed(), default=0, help="Of the data's order and of new weights."),
    )
    names = [field.name for field in fields(Recipe)]

    def decorate(function: Callable) -> Callable:
        @functools.wraps(function)
        def body(**given):
            must_exist(given["files"])
            launch, plan = given.pop("launch"), given.pop("plan")
            recipe = Recipe(**{name: given.pop(name) for name in names})
            if plan:
                from alignlib.training import memory_plan

                return memory_plan.show(memory_plan.plan(given["model"], recipe, launch or 1, **plans(given)))
            if given.get("emit"):  # what would be trained on, to be read
                return function(recipe=recipe, **given)
            if recipe.output is None:
                raise click.MissingParameter(param_hint="'-o' / '--output'", param_type="option")
            ranks.join(given["files"], launch)
            from alignlib.training import zero  # not at the top: it imports torch

            with zero.distributed(recipe):
                return function(recipe=recipe, **given)

        return stack(*made)(body)

    return decorate
