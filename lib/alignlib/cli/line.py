"""A bar's line: tqdm's, of which a terminal shows one at a time, whatever commands of a pipe draw theirs there."""

import fcntl
import os
import threading
from typing import Any, TextIO

from tqdm import tqdm
from tqdm.contrib import DummyTqdmFile

# tqdm's own is one of processes, for which some Pythons start another. It is of all lines, and of what goes above them.
tqdm.set_lock(threading.RLock())


class Line(tqdm):  # type: ignore[misc]  # tqdm has no types
    """The line that is drawn first stays the one until its end, by a lock on the terminal; then another's follows.

    One that does not know how many things there are, and has counted none, makes way for any other, but where its words
    tell something (`tells`).
    """

    monitor_interval = 0  # tqdm's thread; ours does what it does
    ncols: int | None
    nrows: int | None

    def __init__(self, terminal: TextIO, unit: str, *, tells: bool = False, **settings: Any):
        self.lock_file, self.tells, self.mine = open_again(terminal), tells, False
        # smoothing = 0: the mean rate so far. What a batch holds is done at once, and says nothing of the next ones.
        super().__init__(file=terminal, unit=f" {unit}", dynamic_ncols=True, miniters=1, smoothing=0, **settings)

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:
        """Draw it, and whether it was; an empty `msg` wipes it off. At its end what stays is drawn in any case."""
        stays = msg is None and self.disable
        if not stays and not self.take_terminal():
            return False
        self.nrows = max(self.nrows or 0, 0)
        drawn: bool = super().display(msg, pos)
        if self.lock_file is not None and self.total is None and self.n == self.initial and not self.tells:
            fcntl.flock(self.lock_file, fcntl.LOCK_UN)
            self.mine = False
        return drawn

    def take_terminal(self) -> bool:
        """Whether the terminal is this line's, from now on."""
        if self.lock_file is None:
            return True
        try:
            fcntl.flock(self.lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        if not self.mine:  # what another command of the pipe has left there
            self.fp.write(f"\r{' ' * ((self.ncols or 80) - 1)}\r")
            self.mine = True
        return True

    @property
    def format_dict(self) -> dict[str, Any]:
        """What tqdm makes the line of: a slow rate is seconds a step, not steps; a terminal that has no size has 80."""
        figures: dict[str, Any] = super().format_dict
        if (self.ncols or 0) < 0:  # tqdm leaves a column free
            figures["ncols"], self.nrows = 79, None
        slow = figures["elapsed"] > figures["n"] - figures["initial"] > 0
        if not slow:
            return figures
        if not self.total:  # without one tqdm has one unit for both, of which it sets the count's hard by the rate's
            figures["bar_format"] = f"{{desc}}: {{n_fmt}}{self.unit} [{{elapsed}}, {{rate_fmt}}{{postfix}}]"
        return {**figures, "unit": self.unit.strip().removesuffix("s")}

    def close(self) -> None:
        super().close()
        if self.lock_file is not None:
            os.close(self.lock_file)
            self.lock_file = None


class Above(DummyTqdmFile):  # type: ignore[misc]  # tqdm has no types
    """A standard stream while a line is there: what is printed goes above it. `terminal` is the stream itself."""

    def __init__(self, terminal: TextIO):
        super().__init__(terminal)
        self.wrapper_setattr("terminal", terminal)

    def end(self) -> None:
        """When the line has gone: what had no end of a line yet is printed, and what a library writes later here."""
        self.terminal.write("".join(self._buf))
        self._buf.clear()
        self.wrapper_setattr("write", self.terminal.write)

    def __del__(self) -> None:
        """tqdm's prints here what is left, by modules that are gone where the interpreter ends."""


def open_again(terminal: TextIO) -> int | None:
    """The terminal opened anew, for a lock of this process alone; None where none can be had: it has no name, say."""
    try:
        again = os.open(os.ttyname(terminal.fileno()), os.O_WRONLY | os.O_NOCTTY)
    except OSError:
        return None
    try:
        fcntl.flock(again, fcntl.LOCK_UN)
    except OSError:  # not every system locks terminals
        os.close(again)
        return None
    return again
