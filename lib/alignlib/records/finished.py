"""Whether a filter's finished output is still whole: it has no state beside it that could say so."""

from collections.abc import Sequence
from pathlib import Path

from alignlib.records.disk import StateError
from alignlib.records.jsonl import count_ahead


def must_be_whole(path: str, files: Sequence[str], each: int, *, aside: bool, rejects: str | None, part: bool) -> None:
    """Raises StateError for an output that was cut since, as far as its lines and those of the input can tell.

    each     lines of output that a record makes
    aside    whether records may be put aside; in `rejects` they are counted, elsewhere they are nowhere
    part     whether it is one of several shards, whose borders are not known here
    """
    there, whole = count_lines(path)
    cure = "removing it starts anew"
    if not whole or there % each:
        raise StateError(f"{path}: was finished, and has been cut since; {cure}")
    records = None if part else count_ahead(files)
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


def count_lines(path: str) -> tuple[int, bool]:
    """How many lines end in a file, and whether the last one does."""
    count, last = 0, b"\n"
    with open(path, "rb") as handle:
        while block := handle.read(1 << 20):
            count, last = count + block.count(b"\n"), block[-1:]
    return count, last == b"\n"
