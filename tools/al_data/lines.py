"""Lines of records that go from files to a file as they are, byte for byte: what `mix` and `shuffle` do."""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterable
from typing import BinaryIO

from alignlib.cli import bars, options
from alignlib.records.jsonl import read

MARK = b"\xef\xbb\xbf"  # a byte order mark, which begins a file and stands nowhere else


def kept(files: Iterable[str] = ()) -> Generator[bytes, None, None]:
    """The lines of `files` (none, or "-": standard input) that are not blank, each with its newline.

    Raises DataError for one that is no record.
    """
    for line in read(files):
        if line.error:
            raise line.failure()
        raw = line.raw.removeprefix(MARK) if line.number == 1 else line.raw
        yield raw if raw.endswith(b"\n") else raw + b"\n"


def write_lines(lines: Iterable[bytes], handle: BinaryIO, summary: options.Summary, total: int | None) -> None:
    """Write them under a bar of `total` (None: nobody knows), and count them."""
    bar = bars.Bar(total, name=summary.name, unit="records", where=bars.terminal(sys.stderr))
    with bar:
        for number, line in enumerate(lines, 1):
            with bar.aside():
                handle.write(line)
            bar.reach(number)
            summary.count(records=1)
