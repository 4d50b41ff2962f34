"""What every set of al-data is made of: rows, the records they become, and the fields they must have.

A row function returns a record, or a list of them; it raises ValueError for a row that is not of the set, and Skip,
with the reason, for one that has nothing to learn from: such rows are counted, never silently lost. Records that are
already in our own form (they have `prompt` or `messages`, or `text` and a named `label`) pass through; their
conversations, in lists of messages as TRL has them, become what commands see.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from math import isfinite
from typing import Any

from alignlib.records.conversations import canonical
from alignlib.records.fields import require
from alignlib.records.jsonl import DataError, Record, Skip, kind

Bad = Callable[[DataError], None]  # what is done with what is no row of the set; it raises that, or returns
Row = tuple[str, Record]  # where it stands ("test.jsonl.gz:17"), and what it holds
RowFunction = Callable[[Record], Record | list[Record]]  # what a row holds -> the records made of it
# A tokenizer may read these as its own marks: the AI-feedback study leaves such conversations out.
MARKS = ("<s>", "</s>", "<|endoftext|>")


# ------------------------------------------------------------------------------------------ rows


def fail(error: DataError) -> None:
    """Raises it."""
    raise error


def convert(rows: Iterable[Row], function: RowFunction, dropped: Counter[str], bad: Bad = fail) -> Iterator[Record]:
    """The records of the rows; counts those left out in `dropped`, by reason. A DataError names a row for `bad`."""
    for where, row in rows:
        try:
            records = function(row)
            yield from records if isinstance(records, list) else [records]
        except Skip as reason:
            dropped[str(reason)] += 1
        except ValueError as error:
            bad(DataError(f"{where}: {error}"))


def share(rows: Iterable[Row], first: float, last: float) -> Iterable[Row]:
    """The rows from the share `first` of the set up to the share `last`: (0, .1) is the first tenth, (.1, 1) the rest.

    A row of a set is a whole conversation, post or tree, so that no prompt of its later turns is in another share. As
    in the AI-feedback study, in the set's own order. Holds all rows, unless all are wanted.
    """
    if (first, last) == (0, 1):
        return rows
    rows = list(rows)
    return rows[round_down(len(rows) * first):round_down(len(rows) * last)]


def round_down(number: float) -> int:
    """29 for .29 * 100, which is 28.999999999999996 in floats."""
    return int(number + 1e-9)


def unmarked(*texts: str) -> None:
    """Raises Skip for a text that holds one of the MARKS."""
    if any(mark in text for text in texts for mark in MARKS):
        raise Skip("a tokenizer's mark in it")


# --------------------------------------------------------------------------------------- fields


def is_own(row: Record) -> bool:
    """Whether a row is in our form already: no set but those that look themselves publishes these fields."""
    return "prompt" in row or "messages" in row


def own(row: Record, *names: str) -> Record:
    """A record in our form already, as commands see it, with the fields it must have; `messages` are a prompt too.

    Raises ValueError for one that lacks a field, or whose conversations cannot be read or do not agree.
    """
    record = canonical(row)
    require(record, *names)
    return record


def string(row: Record, name: str) -> str:
    """A field that must be text. Raises ValueError that names it."""
    value = required(row, name)
    if not isinstance(value, str):
        raise ValueError(f"{name}: expected a string, got {kind(value)}")
    return value


def number(row: Record, name: str) -> float:
    """A field that must be a finite number, within 64 bits. Raises ValueError that names it."""
    value = required(row, name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name}: expected a number, got {kind(value)}")
    if not isfinite(value):
        raise ValueError(f"{name}: not finite")
    if not -(1 << 63) <= value < 1 << 63:  # of whole numbers beyond them JSON's readers make other ones
        raise ValueError(f"{name}: expected a number of 64 bits, got {value}")
    return value


def objects(row: Record, name: str) -> list[Record]:
    """A field that must be a list of objects. Raises ValueError that names it."""
    return _items(row, name, dict, "an object")


def strings(row: Record, name: str) -> list[str]:
    """A field that must be a list of texts. Raises ValueError that names it."""
    return _items(row, name, str, "a string")


def _items(row: Record, name: str, wanted: type, words: str) -> list[Any]:
    values = required(row, name)
    if not isinstance(values, list):
        raise ValueError(f"{name}: expected an array, got {kind(values)}")
    for place, value in enumerate(values):
        if not isinstance(value, wanted):
            raise ValueError(f"{name}[{place}]: expected {words}, got {kind(value)}")
    return values


def required(row: Record, name: str) -> object:
    """A field that must be there. Raises ValueError that names it."""
    if name not in row:
        raise ValueError(f"{name}: missing")
    return row[name]
