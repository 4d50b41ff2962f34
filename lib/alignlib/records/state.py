"""A filter's memory beside its output, FILE.state: which line is next, and where the files stood before it."""

import hashlib
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import orjson

from alignlib.records.disk import Held, StateError, must_be_finished, named
from alignlib.records.jsonl import at_hand
from alignlib.records.links import place

FIELDS = {"key": str, "line": int, "crc": int, "crc_before": int, "out": int, "rejects": int, "written": int,
          "rejected": int, "put_aside": int | None, "records": int | None}
BYTES = 512  # one write of fixed size, in place: a kill leaves the old state or the new one
PLACES, PIECE = 64, 1 << 12  # of the input: bytes that are looked at, at so many places
Sample = list[Any]  # how many bytes the input has, and a hash of some of them
# What must be as it was when the run goes on, and how it is said that it is not.
CHANGED = {"key": "made with other options or another model", "put_aside": "--rejects is not the one it was made with",
           "records": "the input had {:,} records"}
NOTHING = -1  # the "line" of a state whose run has written none


def state_path(output: str) -> Path:
    """Beside the file that the links at `output` lead to, so that every name of it finds the same state."""
    return Path(f"{place(output)}.state")


class State:
    """The state of the run that writes `output`, this process alone. Raises StateError where another run has it.

    files: of the input, "-" among them; of those that are regular it keeps a Sample too.
    """

    def __init__(self, output: str, files: Sequence[str] = ()):
        self.output = output
        self.held = Held(state_path(output), shown=output)
        self.new = self.held.new
        self.input = sample(files)
        self.before: Sample | None = None  # the killed run's
        self.said: dict[str, Any] = {}

    def read(self, resume: bool) -> dict[str, Any]:
        """What a killed run has said, {} if nothing had left. Raises StateError if it had and nobody will `resume`."""
        raw = Path(self.held.path).read_bytes()
        state = parse(raw)
        if not raw.strip() or state and state["line"] == NOTHING:
            return {}
        if not resume:
            must_be_finished(self.output)
        if state is None:
            raise StateError(f"{self.held.path}: not the state of a run")
        self.before = state.pop("input", None)
        return state

    def must_agree(self, state: dict[str, Any], **now: str | int | None) -> None:
        """Raises StateError where the killed run's `state` has other values."""
        for name, value in now.items():
            if state[name] != value:
                raise StateError(f"{self.output}: cannot resume: {CHANGED[name].format(state[name])}")

    def must_be_of(self, files: Sequence[str]) -> None:
        """Raises StateError where the files are not those that the killed run read, as far as its Sample tells."""
        now = sample(files, self.before[0]) if self.before else None
        if self.before and now and now != self.before:
            how = "become shorter" if now[0] < self.before[0] else "changed"
            raise StateError(f"{self.output}: cannot resume: the input has {how}")

    def write(self, state: dict[str, Any]) -> None:
        """Raises DiskFull."""
        self.said = state
        data, done = orjson.dumps({**state, "input": self.input}).ljust(BYTES), 0
        try:
            while done < len(data):  # on a disk that is nearly full a part of it may go
                done += os.pwrite(self.held.fd, data[done:], done)
        except OSError as error:
            raise named(error, self.output) from error

    def let_change(self) -> None:
        """What has not left yet may be another when the run goes on: a line of it is bad, and will be mended."""
        self.input = None
        if self.said:
            self.write(self.said)

    def close(self, done: bool) -> None:
        """`done`: there is nothing that a resumed run would need it for."""
        if done:
            self.held.remove()
        self.held.close()


def parse(raw: bytes) -> dict[str, Any] | None:
    """What `State.write` has written; None for anything else."""
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None
    good = isinstance(value, dict) and all(isinstance(value.get(name), kind) for name, kind in FIELDS.items())
    kept = value.get("input") if good else None
    return value if good and (kept is None or isinstance(kept, list) and len(kept) == 2) else None


def sample(files: Sequence[str], size: int | None = None) -> Sample | None:
    """How many bytes the files have, one after the other ("-": standard input, from where it is), and a hash of pieces
    of them; None where one is no regular file, or is packed, so that it may be unpacked when the run goes on.

    size: of only so many, though there are more; a hash of "" where there are fewer.
    """
    with ExitStack() as stack:
        parts: list[tuple[int, int, int]] = []  # a descriptor, the first byte, how many
        for name in files:
            if name.endswith(".gz") or not at_hand([name]):
                return None
            fd = sys.stdin.fileno() if name == "-" else stack.enter_context(open(name, "rb")).fileno()
            start = os.lseek(fd, 0, os.SEEK_CUR)
            parts.append((fd, start, max(os.fstat(fd).st_size - start, 0)))
        total = sum(count for *_, count in parts)
        if size is not None and total < size:
            return [total, ""]
        total = total if size is None else size
        digest = hashlib.blake2b(digest_size=16)
        for number in range(PLACES + 1):  # the last bytes among them
            at = max(min(number * total // PLACES, total - PIECE), 0)
            digest.update(piece(parts, at, min(PIECE, total - at)))
        return [total, digest.hexdigest()]


def piece(parts: Sequence[tuple[int, int, int]], at: int, size: int) -> bytes:
    """So many bytes, from the byte `at` on, of what the parts are together."""
    found = b""
    for fd, start, count in parts:
        if at < count and len(found) < size:
            found += os.pread(fd, min(size - len(found), count - at), start + at)
        at = max(at - count, 0)
    return found
