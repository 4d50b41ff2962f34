"""What a public data set is here: a place on the Hub, a function of its rows, and the command of al-data for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import click

from al_data.dialogues import as_chats, question
from al_data.row import Bad, Row, RowFunction, convert, fail, share
from al_data.sources import NoPart, Unreachable, files_of, files_under, from_file, from_hub, from_hub_file
from al_data.write import write, write_options
from alignlib.cli import options, paths
from alignlib.cli.sections import FIRST, section, stack
from alignlib.records.dialogue import instruction
from alignlib.records.jsonl import DataError, Record
from alignlib.records.shown import say_skipped
from alignlib.toy import world

BAD = "no row of the set"  # why one is left out


@dataclass(frozen=True)
class Hub:
    """Where a set is on the Hub."""

    name: str
    file: str = ""  # the one file that is the set
    read: Callable[[str, Bad], Iterator[Row]] = from_file  # how its files are read, local ones too
    kind_of: str = ""  # what the names of its splits end in: "prefs" of train_prefs
    one_part: bool = False  # it has no test part: split by a hash
    where: Mapping[str, str] = field(default_factory=dict)  # for datasets.load_dataset


@dataclass(frozen=True)
class DataSet:
    """Whose rows become records, and how."""

    records: RowFunction  # those of a row
    hub: Hub
    domain: str | None = None  # unless a record has its own, or --domain names it
    gather: Callable[[Iterable[Row]], Iterable[Row]] = iter  # puts rows together before anything else
    mixed: bool = False  # its records need not have the same fields


from_option = section(FIRST, click.option(
    "--from", "source", type=click.Path(exists=True, allow_dash=True),
    help="A file (.jsonl, .jsonl.gz, .json, .csv, .parquet; - is stdin), or a folder of such; else the Hub."))
chat_option = click.option("--chat", is_flag=True, help="Write each prompt as messages, with its system's turns, "
                           "instead of one text; answers have no space before them.")


def data_set(name: str, *own_options: Callable[..., Any], writes: tuple[str, ...], reads: tuple[str, ...] = (),
             source: Callable[..., Any] = from_option,
             dialogues: bool = False) -> Callable[[Callable[..., DataSet]], click.Command]:
    """A command of al-data: the function takes the options of its own and returns the set; its docstring is --help.

    writes, reads: the records' fields, for --schema. source: the option, or argument, that says where the rows are.
    dialogues: its prompts are, so that --chat makes messages of them.
    """
    chat = (chat_option,) if dialogues else ()

    def decorate(function: Callable[..., DataSet]) -> click.Command:
        body = stack(*own_options, *chat, source, source_options)(partial(write_set, function))
        fields = (*writes, "messages") if dialogues else writes
        return options.command(reads, fields, name=name, help=function.__doc__)(body)

    return decorate


def source_options(function: Callable[..., None]) -> Callable[..., None]:
    """What every set takes: which of the rows, and what is done with the records."""
    which = "Which part. A file, or a folder that names none, is split 90 to 10 by a hash of each row's first prompt."
    return section(
        "Which records",
        write_options,
        click.option("--split", type=click.Choice(world.SPLITS), show_default="train; of a file all", help=which),
        click.option("--fraction", type=options.Finite(0, 1), default=1, help="The set up to this share of it."),
        click.option("--skip-fraction", type=options.Finite(0, 1), default=0, help="Leave out this share of the set, "
                     "from its start: what --fraction takes."),
        click.option("--max-chars", type=click.IntRange(1), help="Leave out questions of so many characters or more "
                     "(the AI-feedback study: 8000, and 2000 words)."),
        click.option("--max-words", type=click.IntRange(1), help="Leave out questions of so many words or more."),
        click.option("--on-error", type=click.Choice(["fail", "skip"]), default="fail",
                     help="What a row does that is none of the set; skip: it is named and left out."),
        click.option("--domain", help="Name the records' domain so.  [default: as MORE calls it]"),
    )(function)


def write_set(function: Callable[..., DataSet], *, source: str | None, split: str | None, fraction: float,
              skip_fraction: float, max_chars: int | None, max_words: int | None, on_error: str, domain: str | None,
              seed: int, limit: int | None, shuffle: bool, only: str | None, output: str | None, chat: bool = False,
              **own_options: Any) -> None:
    """Write the records of the set that `function` makes of its own options."""
    if source and Path(source).is_dir():  # a file is, by its name
        paths.keep_apart(map(str, files_under(Path(source))), None if output == "-" else output)
    chosen = function(**own_options)
    if skip_fraction > fraction:
        raise click.UsageError(f"--skip-fraction {skip_fraction:g} leaves nothing of --fraction {fraction:g}")
    dropped: Counter[str] = Counter()
    bad = partial(leave_out, dropped=dropped) if on_error == "skip" else fail
    rows, hashed = rows_of(chosen.hub, source, split, bad)
    of_row = partial(records_in, split, chosen.records) if split and hashed else chosen.records
    records = convert(share(chosen.gather(rows), skip_fraction, fraction), of_row, dropped, bad)
    if max_chars or max_words:
        records = short(records, max_chars, max_words, dropped)
    if domain or chosen.domain:
        records = (with_domain(record, domain, chosen.domain) for record in records)
    if chat:
        records = as_chats(records, dropped)
    try:
        write(records, dropped, seed, limit, shuffle, only, output, chosen.mixed)
    except NoPart as error:
        raise click.UsageError(str(error)) from error
    except Unreachable as error:
        where = "in its place" if source else "with --from PATH"
        raise click.ClickException(f"cannot reach the Hub for {error}, and it is not in the cache: "
                                   f"download it elsewhere and give its files {where}") from error


def leave_out(error: DataError, dropped: Counter[str]) -> None:
    """Count a bad row, and name it if it is among the first."""
    dropped[BAD] += 1
    say_skipped(error, dropped[BAD])


def rows_of(hub: Hub, source: str | None, split: str | None, bad: Bad) -> tuple[Iterator[Row], bool]:
    """The rows to read, and whether they are still to be split by a hash; the source may be the Hub's name itself."""
    source = None if source == hub.name else source
    if source is None and hub.file:
        return from_hub_file(hub.name, hub.file, hub.read, bad), split is not None
    if source is None:
        part = "train" if hub.one_part else split or "train"
        return from_hub(hub.name, part, hub.kind_of, **hub.where), hub.one_part and split is not None
    if not Path(source).is_dir():
        return hub.read(source, bad), split is not None
    try:
        files, named = files_of(source, split or "train", hub.kind_of)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    return (row for file in files for row in hub.read(file, bad)), not named and split is not None


def records_in(split: str, function: RowFunction, row: Record) -> list[Record]:
    """The row's records, if the first one's prompt is in this part by its hash; else none.

    The prompts of later turns begin with a first turn and its answer: in another part they would give it away.
    """
    made = function(row)
    records = made if isinstance(made, list) else [made]
    asked = "".join(question(first) or first.get("text", "") for first in records[:1])
    return records if world.split_of(asked) == split else []


def short(records: Iterable[Record], chars: int | None, words: int | None, dropped: Counter[str]) -> Iterator[Record]:
    """The records whose question is shorter than both limits; the others are counted."""
    for record in records:
        text = instruction(question(record))
        if chars and len(text) >= chars or words and len(text.split()) >= words:
            dropped["a long question"] += 1
        else:
            yield record


def with_domain(record: Record, domain: str | None, usual: str | None) -> Record:
    """The record with its domain: as --domain names it, else its own, else the set's usual one."""
    return {**record, "domain": domain or record.get("domain") or usual}
