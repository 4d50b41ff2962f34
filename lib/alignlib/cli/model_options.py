"""Options of commands that run a model: how long texts may be, where and in what precision it runs."""

import click

from alignlib.cli.options import stack

# How long prompts and completions may be.
limit_options = stack(
    click.option("--max-length", type=click.IntRange(min=2),
                 help="Tokens of prompt and completion together.  [default: the model's context, at most 2048]"),
    click.option("--max-prompt", type=click.IntRange(min=1),
                 help="Tokens of a prompt.  [default: what completions leave]"),
    click.option("--max-completion", type=click.IntRange(min=1),
                 help="Tokens of a completion.  [default: what the prompt leaves, at least half]"),
    click.option("--keep-prompt", type=click.Choice(["end", "start"]), default="end",
                 help="Which end of a too long prompt stays."),
    click.option("--on-long", type=click.Choice(["truncate", "skip", "fail"]), default="truncate",
                 help="What a too long record does; counted in the summary."),
)
# Where and in what precision a model runs.
device_options = stack(
    click.option("--dtype", type=click.Choice(["auto", "fp32", "bf16", "fp16"]), default="auto",
                 help="Precision of the computation; auto: bf16 on a GPU, and for models of hidden size 256 or more on "
                      "a CPU with units for it (AVX512-BF16, AMX); fp32 elsewhere."),
    click.option("--device", default="auto", help="cpu, cuda, cuda:1, ...; auto: the GPU if there is one."),
)
