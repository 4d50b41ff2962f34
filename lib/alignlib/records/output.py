"""Where a filter's bytes leave for: at once, and so that a killed run's file can be cut and gone on with."""

import os
import stat
import sys

HELD = 1 << 15  # bytes of records that one write takes, where they are made faster than written


class StateError(Exception):
    """A run that cannot be resumed as asked; the commands exit with 2."""


def regular(path: str) -> bool:
    """Whether `path` is, or would be made, a file that can be cut and gone on with."""
    return not os.path.exists(path) or stat.S_ISREG(os.stat(path).st_mode)


class Output:
    """Where bytes leave for at once, without a buffer: standard output, or `path` from its first `at` bytes on.

    What a file holds behind them goes when the first bytes come, not before: a run that fails at once takes nothing.
    """

    def __init__(self, path: str | None = None, at: int = 0):
        self.at, self.path = at, path
        self.held, self.waiting = list[bytes](), 0  # what `hold` took, and its length
        sys.stdout.flush()
        self.new = path is not None and not os.path.exists(path)  # to be made by this run
        self.file = None if path is None else open(path, "ab", buffering=0)
        self.fd = self.file.fileno() if self.file else sys.stdout.fileno()
        self.uncut = path is not None and regular(path)
        if self.uncut and os.fstat(self.fd).st_size < at:
            raise StateError(f"{path}: cannot resume: it has become shorter")

    def cut(self) -> None:
        """Remove what stands behind the bytes to go on from; once."""
        if self.uncut:
            os.ftruncate(self.fd, self.at)
            self.uncut = False

    def write(self, data: bytes) -> None:
        if self.uncut:
            self.cut()
        done = os.write(self.fd, data)
        while done < len(data):  # a signal came in between, or the disk is nearly full
            done += os.write(self.fd, memoryview(data)[done:])
        self.at += len(data)

    def hold(self, data: bytes) -> None:
        """Write it together with what comes next, at the latest with `flush` or `close`."""
        self.held.append(data)
        self.waiting += len(data)
        if self.waiting >= HELD:
            self.flush()

    def flush(self) -> None:
        """Write what is held."""
        if self.held:
            data = b"".join(self.held)
            self.held, self.waiting = [], 0
            self.write(data)

    def close(self, begun: bool) -> None:
        """`begun` is False for a run that failed before anything left: then the file is as it was."""
        self.flush()
        if self.file is None or self.path is None:
            return
        if begun:
            self.cut()
            if stat.S_ISREG(os.fstat(self.fd).st_mode):
                os.fsync(self.fd)
        elif self.new:
            os.unlink(self.path)
        self.file.close()
