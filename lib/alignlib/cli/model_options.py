"""Options of commands that run a model: how texts are written and how long they may be, where it runs, how precisely.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from alignlib.cli import shells
from alignlib.cli.options import Aside
from alignlib.cli.sections import Decorator, section

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

LENGTHS, DEVICE = "Lengths", "Device and precision"  # titles of sections
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
    return section(LENGTHS, max_prompt(default, note), keep_prompt(note), on_long("prompt", note))


max_new_tokens = click.option("-m", "--max-new-tokens", type=click.IntRange(min=1), default=128,
                              help="A completion is cut there.")

# How long prompts and completions may be.
limit_options = section(
    LENGTHS,
    click.option("--max-length", type=click.IntRange(min=2),
                 help="Tokens of prompt and completion together.  [default: the model's context, at most 2048]"),
    max_prompt("what completions leave"),
    click.option("--max-completion", type=click.IntRange(min=1),
                 help="Tokens of a completion.  [default: what the prompt leaves, at least half]"),
    keep_prompt(),
    on_long("record"),
)


class TextFile(click.ParamType[str]):
    """A file's text, whatever its name: a resumed run must have the same."""

    name = "FILE"
    reads = True  # once: it may be a pipe

    def shell_complete(self, ctx: click.Context, param: click.Parameter,
                       incomplete: str) -> "list[CompletionItem[str]]":
        return shells.files(ctx, param, incomplete)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            text = Path(value).read_text()
        except (OSError, UnicodeDecodeError) as error:
            self.fail(f"{value}: cannot be read as text ({type(error).__name__})", param, ctx)
        if not text.strip():
            self.fail(f"{value}: empty", param, ctx)
        return text


class Argument(click.ParamType[tuple[str, Any]]):
    """ "name=value", the value as JSON where it is some, else as a text."""

    name = "NAME=VALUE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Any]:
        if isinstance(value, tuple):
            return value
        name, equals, text = value.partition("=")
        if not equals or not name.isidentifier():
            self.fail(f"{value}: expected NAME=VALUE", param, ctx)
        try:
            return name, json.loads(text)
        except ValueError:
            return name, text


template_args = click.option("--template-arg", "template_args", type=Argument(), multiple=True,
                             help="For the chat template: enable_thinking=false; may be repeated.")
# How texts are written for a model: conversations by a template, control tokens in data.
chat_options = section(
    "How texts are written for the model",
    click.option("--template", type=TextFile(), help="A chat template (Jinja) instead of the tokenizer's."),
    template_args,
    click.option("--control-tokens", is_flag=True, help="Take control tokens' names in plain prompts and in "
                 "completions for those tokens, not for text: of data that a template was used on before."),
)
# Where and in what precision a model runs.
device_options = section(
    DEVICE,
    click.option("--dtype", type=DTYPE, default="auto",
                 help="Precision of the computation; auto: bf16 on a GPU, and for models of hidden size 256 or more on "
                      "a CPU with units for it (AVX512-BF16, AMX); fp32 elsewhere."),
    click.option("--device", default="auto", help="cpu, cuda, cuda:1, ...; auto: the GPU if there is one."),
)
