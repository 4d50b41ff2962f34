"""Where a filter's bytes leave for: at once, and so that a killed run's file can be cut and gone on with."""

import os
import stat
import sys

from alignlib.records.disk import Held, StateError, must_not_be_replaced, named, open_as_it_is
from alignlib.records.links import regular

HELD = 1 << 15  # bytes of records that one write takes, where they are made faster than written


class Output:
    """Where bytes leave for at once, without a buffer: standard output, or `path` from its first `at` bytes on.

    A file is this run's alone. What it holds behind those bytes goes when the first new ones come, not before: a run
    that fails at once takes nothing. Raises StateError for a file that another run is writing.
    """

    def __init__(self, path: str | None = None, at: int = 0):
        self.at, self.path = at, path
        self.held = bytearray()  # what `hold` took
        self.lock: Held | None = None
        self.uncut = False
        if path is None:
            sys.stdout.flush()
            self.fd = sys.stdout.fileno()
        elif not regular(path):
            self.fd = open_as_it_is(path)
        else:
            self.lock = Held(path, append=True)
            self.fd, self.uncut = self.lock.fd, True
            try:
                must_not_be_replaced(path)
                if os.fstat(self.fd).st_size < at:
                    raise StateError(f"{path}: cannot resume: it has become shorter")
            except StateError:
                self.close(begun=False)
                raise

    def cut(self) -> None:
        """Remove what stands behind the bytes to go on from; once."""
        if self.uncut:
            os.ftruncate(self.fd, self.at)
            self.uncut = False

    def write(self, data: bytes | bytearray) -> None:
        """Raises DiskFull."""
        if self.uncut:
            self.cut()
        try:
            done = os.write(self.fd, data)
            while done < len(data):  # a signal came in between, or the disk is nearly full
                done += os.write(self.fd, memoryview(data)[done:])
        except OSError as error:
            raise named(error, self.path) from error
        self.at += len(data)

    def hold(self, data: bytes) -> None:
        """Write it together with what comes next, at the latest with `flush` or `close`."""
        self.held += data
        if len(self.held) >= HELD:
            self.flush()

    def flush(self) -> None:
        """Write what is held."""
        if self.held:
            data, self.held = self.held, bytearray()
            self.write(data)

    def close(self, begun: bool) -> None:
        """`begun` is False for a run that failed before anything left: then the file is as it was, or gone."""
        self.flush()
        if self.lock:
            if begun:
                self.cut()
                os.fsync(self.fd)
            elif self.lock.new or not self.uncut:  # of a line that the disk had no space for a part may be there
                self.lock.remove()
            self.lock.close()
        elif self.path is not None:
            if begun and stat.S_ISREG(os.fstat(self.fd).st_mode):
                os.fsync(self.fd)
            os.close(self.fd)
