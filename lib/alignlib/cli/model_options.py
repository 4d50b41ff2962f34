"""Options of commands that run a model: how long texts may be, where and in what precision it runs."""

import click

from alignlib.cli.options import Aside, Decorator, stack

DTYPE = click.Choice(["auto", "fp32", "bf16", "fp16"])


def max_prompt(default: str, note: str = "") -> Decorator:
    return click.option("--max-prompt", type=click.IntRange(min=1),
                        help=f"Tokens of a prompt.{note}  [default: {default}]")


def keep_prompt(note: str = "") -> Decorator:
    return click.option("--keep-prompt", type=click.Choice(["end", "start"]), default="end",
                        help=f"Which end of a too long prompt stays.{note}")


def on_long(what: str, note: str = "") -> Decorator:
    return click.option("--on-long", cls=Aside, aside="skip", type=click.Choice(["truncate", "skip", "fail"]),
                        default="truncate", help=f"What a too long {what} does; counted in the summary.{note}")


def prompt_options(default: str, note: str = "") -> Decorator:
    """How long prompts may be, of commands that write completions; `note` ends each help text."""
    return stack(max_prompt(default, note), keep_prompt(note), on_long("prompt", note))


max_new_tokens = click.option("-m", "--max-new-tokens", type=click.IntRange(min=1), default=128,
                              help="A completion is cut there.")

# How long prompts and completions may be.
limit_options = stack(
    click.option("--max-length", type=click.IntRange(min=2),
                 help="Tokens of prompt and completion together.  [default: the model's context, at most 2048]"),
    max_prompt("what completions leave"),
    click.option("--max-completion", type=click.IntRange(min=1),
                 help="Tokens of a completion.  [default: what the prompt leaves, at least half]"),
    keep_prompt(),
    on_long("record"),
)
# Where and in what precision a model runs.
device_options = stack(
    click.option("--dtype", type=DTYPE, default="auto",
                 help="Precision of the computation; auto: bf16 on a GPU, and for models of hidden size 256 or more on "
                      "a CPU with units for it (AVX512-BF16, AMX); fp32 elsewhere."),
    click.option("--device", default="auto", help="cpu, cuda, cuda:1, ...; auto: the GPU if there is one."),
)
