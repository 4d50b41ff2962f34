"""al-data mix: several sources as one, interleaved at random by their weights."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from itertools import accumulate, islice
from random import Random
from typing import Any

import click

from al_data.lines import kept, write_lines
from al_data.write import open_output
from alignlib.cli import bars, options, paths, shells
from alignlib.records.jsonl import count_ahead
from alignlib.records.shown import say


class Weighted(click.ParamType[tuple[float, str]]):
    """ "0.7:a.jsonl" as (0.7, "a.jsonl")."""

    name = "WEIGHT:FILE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, str]:
        if isinstance(value, tuple):
            return value
        weight, _, file = value.partition(":")
        try:
            number = options.Finite(min=0, min_open=True).convert(weight, param, ctx)
        except click.BadParameter:
            file = ""
        if not file:
            self.fail(f"{value}: expected a weight above 0 and a file, as in 0.7:a.jsonl", param, ctx)
        return number, file


@options.command(name="mix")
@click.argument("sources", type=Weighted(), nargs=-1, required=True, shell_complete=shells.files)
@click.option("--until", type=click.Choice(["last", "first"]), default="last",
              help="When to stop: at the last source's end (the others' shares grow), or at the first one's.")
@click.option("--limit", type=click.IntRange(0), help="At most this many records.")
@click.option("--seed", type=options.Seed(), default=0, help="Of the draws.")
@options.output_option
def mix_command(sources: tuple[tuple[float, str], ...], until: str, limit: int | None, seed: int,
                output: str | None) -> None:
    """Interleave the records of several files: each is the next one of a source drawn by its WEIGHT.

    Records keep their bytes, and their order within a source. A source that has ended is named on stderr; the others go
    on in the proportion of their weights (--until first ends there). Streams, in constant memory.
    """
    files = [file for _, file in sources]
    paths.must_exist(files)
    if files.count("-") > 1:
        raise click.UsageError("-: standard input can be one source only")
    summary = options.Summary()
    summary.count(records=0)
    taken: Counter[str] = Counter()
    where = bars.terminal(sys.stderr)
    known = [limit, count_ahead(files) if where and until == "last" else None]
    with ExitStack() as open_files:
        streams = [(weight, file, open_files.enter_context(closing(kept([file])))) for weight, file in sources]
        lines = mixed(streams, Random(seed), until == "first", taken)
        write_lines(islice(lines, limit), open_files.enter_context(open_output(output)), summary,
                    min((number for number in known if number is not None), default=None))
    say(f"note: {', '.join(f'{taken[file]:,} of {file}' for file in dict.fromkeys(files))}")
    summary.close()


def mixed(sources: Sequence[tuple[float, str, Iterator[bytes]]], draws: Random, stop: bool,
          taken: Counter[str]) -> Iterator[bytes]:
    """Lines of (weight, name, lines), each the next one of a source that is drawn; `taken` counts them by name.

    stop: at the end of the first source; else the others go on, and a note says so.
    """
    left = list(sources)
    while left:
        *_, total = borders = list(accumulate(weight for weight, *_ in left))
        place = draws.random() * total
        drawn = next((i for i, border in enumerate(borders) if place < border), len(left) - 1)
        _, name, lines = left[drawn]
        line = next(lines, None)
        if line is not None:
            taken[name] += 1
            yield line
            continue
        del left[drawn]
        if stop or not left:
            return
        say(f"note: {name}: ended after {taken[name]:,} records; the others go on")
