"""Whether a filter's finished output is still whole: it has no state beside it that could say so.

Its own attributes do, where the file system keeps any; where not, it is counted.
"""

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from alignlib.records.disk import StateError
from alignlib.records.jsonl import DataError, at_hand, count

SIZE = "user.align-tools.bytes"  # an attribute of a finished file: how many it had


def mark(path: str | Path | None) -> None:
    """Note on a file that is finished how long it is."""
    if path is not None and hasattr(os, "setxattr"):
        with suppress(OSError):  # of file systems that keep no attributes
            os.setxattr(path, SIZE, str(os.path.getsize(path)).encode())


def marked(path: str | Path) -> int | None:
    """How long a file was when it was finished; None where nothing says so."""
    if hasattr(os, "getxattr"):
        with suppress(OSError, ValueError):
            return int(os.getxattr(path, SIZE))
    return None


def must_be_whole(path: str, files: Sequence[str], each: int, *, aside: bool, rejects: str | None, part: bool) -> None:
    """Raises StateError for an output that was cut since, as far as its lines and those of the input can tell.

    each     lines of output that a record makes
    aside    whether records may be put aside; in `rejects` they are counted, elsewhere they are nowhere
    part     whether it is one of several shards, whose borders are not known here
    """
    cure = "removing it starts anew"
    size, was = os.path.getsize(path), marked(path)
    if was is not None and was != size:
        raise StateError(f"{path}: was finished with {was:,} bytes, and has {size:,} now; {cure}")
    there, whole = count_lines(path)
    if not whole or there % each:
        raise StateError(f"{path}: was finished, and has been cut since; {cure}")
    records = None if part else records_of(files)
    if records is None:
        return
    left = there // each
    if aside:
        if rejects is None or not Path(rejects).is_file():
            return
        left += count_lines(rejects)[0]
    if left != records:
        raise StateError(f"{path}: was finished, with {left:,} of the input's {records:,} records: cut since, or made "
                         f"of another input; {cure}")


def records_of(files: Sequence[str]) -> int | None:
    """How many records the input has; None where it cannot be counted: a pipe, a broken file."""
    with suppress(DataError, OSError):
        if at_hand(files):
            return count(files)
    return None


def count_lines(path: str) -> tuple[int, bool]:
    """How many lines end in a file, and whether the last one does."""
    count, last = 0, b"\n"
    with open(path, "rb") as handle:
        while block := handle.read(1 << 20):
            count, last = count + block.count(b"\n"), block[-1:]
    return count, last == b"\n"
