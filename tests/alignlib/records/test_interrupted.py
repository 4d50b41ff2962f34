"""A Ctrl-C between any two lines of what reads and writes records: what stands there goes on as if it had not been."""

import multiprocessing
import os
import sys
from collections import Counter
from pathlib import Path

import pytest

from alignlib import records
from alignlib.records.stream import Stream
from helpers.numbered import BAD, GOOD, write

ROOM = str(Path(records.__file__).parent)


class ControlC:
    """As a trace, a KeyboardInterrupt at the moment `last`; seen: how many came.

    A moment is a line of the room, or a return, of whose kind there were fewer than two.
    """

    def __init__(self, last: int | None = None):
        self.last, self.seen = last, 0
        self.times = Counter[tuple[object, ...]]()

    def __call__(self, frame, event, argument):
        code = frame.f_code
        if not code.co_filename.startswith(ROOM) or code.co_name == "__del__":  # there Python itself swallows it
            return None
        if frame.f_back and frame.f_back.f_code.co_name == "__del__":
            return None
        place = code, frame.f_lineno, event
        self.times[place] += 1
        if event in ("line", "return") and self.times[place] <= 2:
            self.seen += 1
            if self.seen - 1 == self.last:
                raise KeyboardInterrupt
        return self


def copy(folder: Path, *, resume: bool = False, last: int | None = None) -> int:
    """Copy `in` to `out`, its bad lines to `bad`; how many moments that had."""
    control = ControlC(last)
    before = sys.gettrace()
    sys.settrace(control)
    try:
        with Stream([str(folder / "in")], str(folder / "out"), skip=True, rejects=str(folder / "bad"), key="k",
                    resume=resume) as stream:
            for window in stream.windows(2):
                for line in window:
                    stream.write(line, line.record)
    finally:
        sys.settrace(before)
    return control.seen


def interrupted(folder: Path, last: int) -> None:
    """`copy` in a process of its own, which holds nothing any more when it has ended."""
    if child := os.fork():
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 130, f"not interrupted at {last}"
        return
    code = 1
    try:
        copy(folder, last=last)
    except KeyboardInterrupt:
        code = 130
    finally:
        os._exit(code)


def check(folder: Path) -> None:
    """A stream interrupted at each moment goes on; an output without a state, which passes for finished, is whole."""
    write(folder / "in", GOOD[0], BAD, GOOD[1], GOOD[2])
    out, bad, state = folder / "out", folder / "bad", folder / "out.state"
    moments = copy(folder)
    expected = out.read_bytes(), bad.read_bytes()
    assert moments > 300
    for last in range(moments):
        for path in (out, bad, state):
            path.unlink(missing_ok=True)
        interrupted(folder, last)
        if out.exists() and not state.exists():
            assert (out.read_bytes(), bad.read_bytes()) == expected, last
        copy(folder, resume=True)
        assert (out.read_bytes(), bad.read_bytes(), state.exists()) == (*expected, False), last


@pytest.mark.slow
def test_a_stream_goes_on(tmp_path):
    checking = multiprocessing.get_context("spawn").Process(target=check, args=(tmp_path,))  # small: it is forked often
    checking.start()
    checking.join()
    assert checking.exitcode == 0
