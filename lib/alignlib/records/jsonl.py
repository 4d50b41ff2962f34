"""JSON Lines: read with file:line in every error, write one line at a time. Streams that resume are in stream.py."""

import json
import os
import stat
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from io import BufferedIOBase
from math import isinf
from typing import Any

import orjson

from alignlib import waits

STDIN = "<stdin>"  # what standard input is called
DEPTH = 250  # of arrays and objects in each other
# What files begin with that are no JSONL, and what they are.
OTHERS = {b"\x1f\x8b": "gzip, under a name that does not end in .gz", b"PAR1": "a Parquet file, not JSONL",
          b"PK\x03\x04": "a zip file, not JSONL", b"(\xb5/\xfd": "packed by zstd: unpack it first",
          b"\xfd7zXZ": "packed by xz: unpack it first", b"BZh": "packed by bzip2: unpack it first",
          b"\x04\"M\x18": "packed by lz4: unpack it first", b"<": "HTML or XML, not JSONL",
          b"\xff\xfe\0\0": "UTF-32, not UTF-8", b"\xff\xfe": "UTF-16, not UTF-8", b"\xfe\xff": "UTF-16, not UTF-8",
          b"[": "a JSON array, not an object a line (jq -c '.[]' makes lines of it)"}
Record = dict[str, Any]  # a JSON object: fields that a command does not know travel through, whatever they hold


class DataError(Exception):
    """Bad input, named `file:line: what is wrong`; the commands exit with 65."""


class Skip(ValueError):
    """Raised by `prepare` for a record that the user asked to leave out: put aside whatever on_error says."""


@dataclass(slots=True)
class Line:
    """One line of input that is not blank; once it is parsed, its `record`, or the `error` why there is none."""

    index: int  # counts such lines over all files, from 0
    file: str
    number: int  # counts all lines of the file, from 1
    raw: bytes
    crc: int  # of the input up to and with this line
    record: Record = field(default_factory=dict)
    data: Any = None  # what `prepare` made of the record
    error: ValueError | None = None

    @property
    def where(self) -> str:
        """ "scored.jsonl:17" """
        return f"{self.file}:{self.number}"

    def failure(self) -> DataError:
        return DataError(f"{self.where}: {self.error}")

    def parse(self, prepare: Callable[[Record], Any] | None = None) -> None:
        """Fill in `record`, and `data` with what `prepare` makes of it; or `error`."""
        try:
            self.record = parse(self.raw if self.number > 1 else _text(self.number, self.raw))
            if prepare:
                self.data = prepare(self.record)
        except ValueError as error:  # a new one: what was raised holds its frames, and they this line
            other = what_else(self.raw) if self.number == 1 and not self.record else None
            if other and self.raw.startswith(b"\x1f\x8b") and self.file == STDIN:
                other = "gzip: unpack it first (gzip -dc FILE | ...)"
            self.error = Skip(str(error)) if isinstance(error, Skip) else ValueError(other or str(error))


def kind(value: object) -> str:
    """What JSON calls the type of `value`."""
    if value is None:
        return "null"
    names = {bool: "a boolean", str: "a string", int: "a number", float: "a number", list: "an array"}
    return names.get(type(value), "an object")


def parse(raw: bytes) -> Record:
    """The object on one line. Raises ValueError, in words for a user, if there is none."""
    try:
        record = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        try:
            raw.decode()
        except UnicodeDecodeError as bad:
            raise ValueError(f"invalid UTF-8 at byte {bad.start + 1} of the line") from error
        if b"\0" in raw:
            raise ValueError(f"a NUL at byte {raw.index(0) + 1} of the line, which is no text") from error
        _must_have_numbers(raw)
        raise ValueError(f"broken JSON: {error}") from error
    if not isinstance(record, dict):
        raise ValueError(f"expected an object, got {kind(record)}")
    # orjson reads deeper than it writes; what is so deep has as many brackets, each with its other half.
    if len(raw) > 2 * DEPTH and raw.count(b"[") + raw.count(b"{") > DEPTH:
        try:
            orjson.dumps(record)
        except TypeError as error:
            raise ValueError(f"nested deeper than {DEPTH}") from error
    return record


def _must_have_numbers(raw: bytes) -> None:
    """Raises ValueError for what Python and others write as a number in JSON, and is none there or beyond a double."""
    def refuse(name: str) -> None:
        raise ValueError(f"{name} is no number in JSON")

    def weigh(text: str) -> None:
        if isinf(float(text)):
            shown = text if len(text) <= 20 else f"a number of {len(text):,} digits"
            raise ValueError(f"{shown}: beyond what a number of 64 bits can be")

    with suppress(json.JSONDecodeError, RecursionError):
        json.loads(raw.decode(), parse_constant=refuse, parse_int=weigh, parse_float=weigh)


def what_else(raw: bytes) -> str | None:
    """What a file is that begins with `raw`, and is no JSONL."""
    text = _text(1, raw).lstrip()
    if text.rstrip() == b"{":
        return "a JSON object over several lines, not one a line (jq -c . makes a line of it)"
    return next((what for start, what in OTHERS.items() if text.startswith(start)), None)


def dumps(record: Mapping[str, Any]) -> bytes:
    """One line, its newline included. The caller sees to it that numbers are finite: JSON has no NaN."""
    return orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)


def open_input(name: str) -> BufferedIOBase:
    """Standard input for "-", else the file; .gz is unpacked on the way."""
    if name == "-":
        if sys.stdin is None:
            raise DataError("standard input is closed")
        if sys.stdin.isatty():
            waits.hush()
        return open(sys.stdin.fileno(), "rb", closefd=False)
    if name.endswith(".gz"):
        import gzip

        return gzip.open(name, "rb")
    return open(name, "rb")


def _shown(name: str) -> str:
    return STDIN if name == "-" else name


def _text(number: int, raw: bytes) -> bytes:
    """A file's first line may begin with a byte order mark."""
    return raw.removeprefix(b"\xef\xbb\xbf") if number == 1 else raw


def _blank(number: int, raw: bytes) -> bool:
    text = _text(number, raw)
    return text.isspace() or not text


def _numbered(name: str) -> Iterator[tuple[int, bytes]]:
    """The lines of a file, from 1. Raises DataError where a .gz is cut or no gzip at all."""
    number = 0
    with open_input(name) as handle:
        try:
            for number, raw in enumerate(handle, 1):
                yield number, raw
        except (EOFError, zlib.error, OSError) as error:
            if not name.endswith(".gz"):
                raise
            raise DataError(f"{_shown(name)}:{number + 1}: broken gzip: {error}") from error


def count(files: Iterable[str] = ()) -> int:
    """How many lines of `files` are not blank; they are regular files, standard input ("-", or none) too."""
    names = tuple(files) or ("-",)
    place = _own_stdin() if "-" in names else 0
    total = sum(not _blank(number, raw) for name in names for number, raw in _numbered(name))
    if "-" in names:
        os.lseek(sys.stdin.fileno(), place, os.SEEK_SET)
    return total


def count_ahead(files: Sequence[str]) -> int | None:
    """How many lines of `files` are not blank; None where that shows only in reading them: pipes, standard input."""
    if not files or "-" in files or not all(map(os.path.isfile, files)):
        return None
    try:
        return count(files)
    except (DataError, OSError):  # it is raised once more where the reading comes to it, behind what is good
        return None


def at_hand(files: Sequence[str]) -> bool:
    """Whether the input need not be waited for: regular files, standard input ("-", or none) too."""
    return all(sys.stdin is not None and stat.S_ISREG(os.fstat(sys.stdin.fileno()).st_mode) if name == "-"
               else os.path.isfile(name) for name in files or ("-",))


def _own_stdin() -> int:
    """Open standard input anew: processes that inherited it together move each other's place. Returns the place."""
    descriptor = sys.stdin.fileno()
    place = os.lseek(descriptor, 0, os.SEEK_CUR)
    own = os.open(f"/dev/fd/{descriptor}", os.O_RDONLY)
    os.dup2(own, descriptor)
    os.close(own)
    return os.lseek(descriptor, place, os.SEEK_SET)


def lines(files: Iterable[str] = (), *, summed: bool = True) -> Iterator[Line]:
    """The lines of `files` (none, or "-": standard input), not parsed yet; blank ones are left out.

    summed: whether their `crc` is wanted; else it is 0
    """
    index, crc = 0, 0
    for name in tuple(files) or ("-",):
        shown = _shown(name)
        for number, raw in _numbered(name):
            if summed:
                crc = zlib.crc32(raw, crc)
            if not (raw.isspace() or number == 1 and _blank(number, raw)):
                yield Line(index, shown, number, raw, crc)
                index += 1


def read(files: Iterable[str] = (), prepare: Callable[[Record], Any] | None = None) -> Iterator[Line]:
    """The lines of `files` (none, or "-": standard input), bad ones with their `error`.

    `prepare` checks a record, raising ValueError, and may return what the command makes of it (`Line.data`).
    A byte order mark, CRLF and blank lines are taken in stride.
    """
    for line in lines(files):
        line.parse(prepare)
        yield line


def read_all(files: Iterable[str] = (), prepare: Callable[[Record], Any] | None = None) -> Iterator[Line]:
    """As `read`, for commands that need every record: a bad line raises DataError, a skipped one is left out."""
    for line in read(files, prepare):
        if isinstance(line.error, Skip):
            continue
        if line.error:
            raise line.failure()
        yield line
