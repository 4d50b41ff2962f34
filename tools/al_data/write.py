"""What al-data does with the records of any source: which of them, which of their fields, in what order, and where to.

The options are those of every set and of the toy world; `write` takes them as they come.
"""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import BinaryIO

import click

from alignlib.cli import bars, options
from alignlib.cli.sections import section
from alignlib.records import disk
from alignlib.records.jsonl import DataError, Record, Skip, dumps

ONLY = {"prompts": ("prompt",), "sft": ("prompt", "chosen"), "pref": ("prompt", "chosen", "rejected"),
        "judge": ("prompt", "completions", "human_winner")}
KEPT = ("messages", "id", "domain", "tools", "answer")  # stay with --only, where a record has them


write_options = section(
    "Which records",
    click.option("--limit", type=click.IntRange(0), help="At most this many records."),
    click.option("--shuffle", is_flag=True, help="In random order. Reads all input first."),
    click.option("--seed", type=options.Seed(), default=0, help="Of the shuffle, the sides; of toy's draws."),
    click.option("--only", type=click.Choice(list(ONLY)), help="Keep only these fields (and id, domain, tools, "
                 "answer). judge: chosen and rejected as two completions, sides drawn at random, and human_winner."),
    options.output_option,
)


def write(records: Iterable[Record], dropped: Counter[str], seed: int, limit: int | None, shuffle: bool,
          only: str | None, output: str | None, mixed: bool = False) -> None:
    """Write the records as asked, and say how many there were and how many of them were left out, by reason.

    mixed: not all records of the set have the same fields, and those that lack what `only` keeps are left out.
    """
    summary = options.Summary()
    summary.count(records=0)
    with open_output(output) as handle:  # before anything is read
        if shuffle:
            records = list(records)
            random.Random(seed).shuffle(records)
        if only:
            records = narrow_all(records, only, random.Random(f"{seed} sides"), dropped, mixed)
        bar = bars.Bar(limit, name=summary.name, unit="records", where=bars.terminal(sys.stderr))
        with bar:
            for number, record in enumerate(islice(records, limit), 1):
                with bar.aside():
                    handle.write(dumps(record))
                    handle.flush()  # the next command of the pipe starts at once
                bar.reach(number)
                summary.count(records=1)
    summary.count(**{f"dropped ({reason})": count for reason, count in dropped.items()})
    summary.close()


def narrow_all(records: Iterable[Record], only: str, sides: random.Random, dropped: Counter[str],
               mixed: bool = False) -> Iterator[Record]:
    """The records with the fields that `--only` keeps; those without a preference are counted in `dropped`."""
    for record in records:
        try:
            if only == "judge":
                record = hide_preference(record, sides)
            yield narrow(record, only, mixed)
        except Skip as reason:
            dropped[str(reason)] += 1


def narrow(record: Record, only: str, mixed: bool = False) -> Record:
    """The fields that `--only` keeps, a prompt's `messages` too.

    Raises DataError where one is missing, Skip where a tie has none to prefer, or where the set is `mixed`.
    """
    for name in ONLY[only]:
        if name not in record and not (name == "prompt" and "messages" in record):
            if record.get("winner", 0) is None:
                raise Skip("a tie")
            if mixed:
                raise Skip(f"no {name}")
            raise DataError(f"--only {only}: the records of this set have no {name}")
    return {name: value for name, value in record.items() if name in (*ONLY[only], *KEPT)}


def hide_preference(record: Record, sides: random.Random) -> Record:
    """chosen and rejected as `completions` in random order, for a judge who must not know; `human_winner` says it."""
    if "chosen" not in record or "rejected" not in record:
        return record
    winner = sides.randrange(2)
    pair = [record["chosen"], record["rejected"]]
    return {**record, "completions": pair[::-1] if winner else pair, "human_winner": winner}


@contextmanager
def open_output(output: str | None) -> Iterator[BinaryIO]:
    """Standard output, or a file that gets its name once it is whole, so that Make never takes a torn one for done."""
    if output is None or output == "-":
        with disk.writing(None):
            yield sys.stdout.buffer
    else:
        with disk.whole(output) as handle:
            yield handle
