"""A filter's input and output: every line leaves once, in order, and a killed run can go on where it was.

    with Stream(files, "scored.jsonl", resume=True, key="...", prepare=check) as stream:
        for window in stream.windows(64):          # lists of Line, cut by record number
            for line in window:
                stream.write(line, {**line.record, "rewards": [0.5]})

With an output file, a sidecar `scored.jsonl.state` says before each write which line is next and where the files
stood, so that after a kill the output's own length tells whether that write happened.
"""

import math
import os
import sys
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from alignlib.records.disk import StateError, must_be_finished
from alignlib.records.finished import mark
from alignlib.records.jsonl import DataError, Line, Record, Skip, at_hand, count, count_ahead, dumps, lines
from alignlib.records.links import regular
from alignlib.records.output import Output
from alignlib.records.shown import dumps_to_terminal, say_skipped
from alignlib.records.state import NOTHING, State, state_path


class Bar(Protocol):
    """What shows how far a stream is."""

    def reach(self, done: int) -> None:
        """So many of its records have left."""

    def aside(self) -> AbstractContextManager[None]:
        """Around what may be written to the same terminal."""

    def close(self) -> None: ...


class Stream:
    """A filter's input and output (see the module's docstring).

    files     names; none, or "-", is standard input
    output    a path, or None for standard output
    resume    go on from the `.state` of a killed run with the same key and input
    key       stands for the options and the model: a state with another key is refused
    shard     (I, N): leave to others all but the I-th of N contiguous blocks, each of whole windows; the input must
              then be regular files, whose records are counted first
    each      how many records come of a line: they leave together
    skip      put bad lines aside, byte for byte (a newline added where the input's last line has none) in the file
              `rejects` if given, instead of raising DataError
    hold      write several records at a time where they are made in no time and the input need not be waited for
    bar       makes what shows how far it is, of how many records there are (None: unknown) and how many have left

    `began` is the time.monotonic() at which the reading began: before, everything was loaded.
    """

    def __init__(
        self,
        files: Iterable[str] = (),
        output: str | None = None,
        *,
        resume: bool = False,
        key: str = "",
        shard: tuple[int, int] | None = None,
        each: int = 1,
        skip: bool = False,
        rejects: str | None = None,
        prepare: Callable[[Record], Any] | None = None,
        hold: bool = False,
        bar: Callable[[int | None, int], Bar] | None = None,
    ):
        self.files, self.path, self.key, self.skip, self.prepare = tuple(files), output, key, skip, prepare
        self.shard, self.each, self.make_bar, self._hold = shard, each, bar, hold and at_hand(self.files)
        self._dumps = dumps if output or not sys.stdout.isatty() else dumps_to_terminal
        self.next = 0  # index of the first line that has not left
        self.crc = 0  # of the input that has left
        self.written = self.rejected = 0
        self.began: float | None = None
        self._bar: Bar | None = None
        self._first = 0  # the number of the shard's first record
        self._bad: deque[Line] = deque()  # read, but not yet their turn to leave
        self._turn = threading.RLock()  # `ahead` reads in one thread while another writes
        self._out: Output  # of a run that is complete there is none: nothing is left to be written
        self._rejects: Output | None = None
        self._sinks: list[Output] = []
        self._state: State | None = None
        self.complete = bool(resume and output and Path(output).is_file() and not state_path(output).exists())
        if self.complete:
            return
        self.records = count(self.files) if shard else None
        self._put_aside = zlib.crc32(os.fsencode(os.path.basename(rejects))) if rejects else None
        try:
            self._open(output, rejects, resume)
        except BaseException as error:
            for sink in self._sinks:
                sink.close(begun=False)
            if self._state is not None:  # an interrupt may leave an output that nothing knows of yet: no finished one
                self._state.close(done=self._state.new and isinstance(error, Exception))
            raise

    def _open(self, output: str | None, rejects: str | None, resume: bool) -> None:
        """Take the files, this process alone. Raises StateError, DiskFull."""
        saved = self._begin(output, resume) if output and regular(output) else {}  # no state beside a named pipe
        if rejects and not saved:
            self._must_be_own(rejects)
        self._out = Output(output, saved.get("out", 0))
        self._put = self._out.hold if self._hold else self._out.write
        self._sinks = [self._out]
        if rejects:
            self._rejects = Output(rejects, saved.get("rejects", 0))
            self._sinks = [self._rejects, self._out]
        if not saved:
            self._save(NOTHING, 0)

    def _must_be_own(self, rejects: str) -> None:
        """Refuse a file for rejects that another run has written and would lose. Raises StateError."""
        must_be_finished(rejects)
        again = self.path and os.path.exists(self.path)  # then it is of this run's own earlier one
        if self.shard and not again and os.path.isfile(rejects) and os.path.getsize(rejects):
            raise StateError(f"{rejects}: there already, perhaps of another shard: give each --shard a --rejects of "
                             "its own, or remove it")

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        begun = error is None or self.written + self.rejected > 0
        if self._bar:
            self._bar.close()
        for sink in self._sinks:
            sink.close(begun)
        if self._state is not None:
            mark(None if error else self.path)
            if isinstance(error, DataError):  # which is mended, to go on
                self._state.let_change()
            self._state.close(done=error is None or not begun)  # where nothing has left there is nothing to resume

    # -- reading ---------------------------------------------------------------------------------------

    def windows(self, size: int) -> Iterator[list[Line]]:
        """The good lines in lists of at most `size`: list i holds the lines size*i .. size*(i+1)-1 that are good.

        Lists depend on line numbers alone, so a resumed run sees the same ones; the list in which the killed run
        stopped comes whole, and `write` passes over the lines that have left already.
        """
        self._begin_reading(size)
        window: list[Line] = []
        for line in self._lines(size):
            if line.error and window and not self._may_skip(line):
                yield window  # what came before the bad line still leaves
            if self._is_good(line):
                window.append(line)
            if window and (line.index + 1) % size == 0:  # now, not with the next line: that may be long in coming
                yield window
                window = []
        if window:
            yield window
        self.finish()

    def one_by_one(self) -> Iterator[Line]:
        """The good lines, each of which has left before the next is read."""
        yield from self.ahead()
        self.finish()

    def ahead(self) -> Iterator[Line]:
        """The good lines, for a reader in a thread of its own; the writer ends with `finish`."""
        self._begin_reading(1)
        return filter(self._is_good, self._lines(1))

    def finish(self) -> None:
        """Put aside the bad lines behind the last good one, which has left."""
        self._reject_before(None)

    def _begin_reading(self, size: int) -> None:
        """All is loaded; from here on a bar shows the shard's records, or all of them."""
        if self.make_bar and not self.complete:
            block = self.block(size)
            records = self.records if self.shard else count_ahead(self.files)
            self._first = block.start
            total = None if records is None else min(records, block.stop) - block.start
            self._bar = self.make_bar(total, max(self.next - block.start, 0))
        self.began = time.monotonic()

    def _is_good(self, line: Line) -> bool:
        """Put a bad line aside, at once if nothing before it is still to be written. Raises DataError if it may not."""
        if not line.error:
            return True
        if not self._may_skip(line):
            raise line.failure()
        with self._turn:
            self._bad.append(line)
            self._reject_before(self.next)
        return False

    def _may_skip(self, line: Line) -> bool:
        return self.skip or isinstance(line.error, Skip)

    def block(self, size: int) -> range:
        """The numbers of the records that are this shard's: whole windows, so that they share batches as ever."""
        if self.shard is None or self.records is None:
            return range(sys.maxsize)
        (number, shards), windows = self.shard, math.ceil(self.records / size)
        return range(windows * (number - 1) // shards * size, windows * number // shards * size)

    def _lines(self, size: int) -> Iterator[Line]:
        """The shard's lines, from the start of the window in which the killed run stopped."""
        if self.complete:
            return
        block, done, crc, seen = self.block(size), self.next, self.crc, 0
        first = max(block.start, done // size * size)
        for line in islice(lines(self.files, summed=self._state is not None), block.stop):
            seen = line.index + 1
            if seen == done and line.crc != crc:
                raise StateError(f"{self.path}: cannot resume: the input has changed")
            if done < seen <= block.start:  # leaves in another shard
                self.next, self.crc = seen, line.crc
            elif seen > first:
                line.parse(self.prepare)
                yield line
        if seen < done:
            raise StateError(f"{self.path}: cannot resume: the input has become shorter")

    # -- writing ---------------------------------------------------------------------------------------

    def write(self, line: Line, *records: Record) -> None:
        """Write and flush what was made of `line`; nothing, if it left in the run that is being resumed."""
        with self._turn:
            if line.index < self.next:
                return
            if self._bad:
                self._reject_before(line.index)
            data = self._dumps(records[0]) if len(records) == 1 else b"".join(map(self._dumps, records))
            if self._state is not None and not self._out.held:  # of several held records the first is next
                self._out.cut()
                self._save(line.index, line.crc)
            if self._bar and not self.path:
                with self._bar.aside():
                    self._out.write(data)
            else:
                self._put(data)
            self.written += self.each
            self._left(line)

    def reject(self, line: Line, error: ValueError) -> None:
        """Put aside, instead of writing it, a good line of which nothing could be made."""
        with self._turn:
            self._reject_before(line.index)
            line.error = error
            self._bad.appendleft(line)
            self._reject_before(line.index)

    def _reject_before(self, index: int | None) -> None:
        """Put aside the bad lines whose turn has come: those up to line `index`, or all."""
        while self._bad and (index is None or self._bad[0].index <= index):
            bad = self._bad.popleft()
            if bad.index < self.next:
                continue
            self._out.flush()  # what was good before it
            if self._rejects:
                self._rejects.write(bad.raw if bad.raw.endswith(b"\n") else bad.raw + b"\n")
            self.rejected += 1
            self._left(bad)
            say_skipped(bad.failure(), self.rejected)

    def _left(self, line: Line) -> None:
        self.next, self.crc = line.index + 1, line.crc
        if self._bar:
            self._bar.reach(self.next - self._first)

    def _save(self, index: int, crc: int) -> None:
        """Say that line `index` is written next, at the places where the files now stand; where a state is kept."""
        if self._state is None:
            return
        self._state.write({
            "key": self.key,
            "line": index,
            "crc": crc,
            "crc_before": self.crc,
            "out": self._out.at,
            "rejects": self._rejects.at if self._rejects else 0,
            "written": self.written,
            "rejected": self.rejected,
            "put_aside": self._put_aside,
            "records": self.records,
        })

    def _begin(self, path: str, resume: bool) -> dict[str, Any]:
        """Take the state, this process alone; the files' lengths to go on from, {} for a new run; sets what has left.
        Raises StateError.
        """
        # The state comes before the output: an output without one is a finished one.
        self._state = State(path, self.files or ("-",))
        if resume and self._state.new and Path(path).is_file():
            raise StateError(f"{path}: another run has finished it just now")
        state = self._state.read(resume)
        if not state:
            return {}
        self._state.must_agree(state, key=self.key, put_aside=self._put_aside, records=self.records)
        self._state.must_be_of(self.files or ("-",))
        self.next, self.crc = state["line"], state["crc_before"]
        self.written, self.rejected = state["written"], state["rejected"]
        if not Path(path).exists():
            raise StateError(f"{path}: cannot resume: it is gone; removing {state_path(path)} starts anew")
        with open(path, "rb") as handle:
            handle.seek(state["out"])
            last = b"".join(handle.readline() for _ in range(self.each))
        if last.count(b"\n") == self.each:  # the write that was under way did happen
            self.next, self.crc = state["line"] + 1, state["crc"]
            self.written += self.each
            state["out"] += len(last)
        return state
