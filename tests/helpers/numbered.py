"""Lines that are numbered, and one that is broken; a stream of them copied, or killed in the middle."""

from pathlib import Path

from alignlib.records.stream import Stream

GOOD = [b'{"n": %d}\n' % n for n in range(10)]
BAD = b"{broken\n"


def write(path: Path, *lines: bytes) -> str:
    path.write_bytes(b"".join(lines))
    return str(path)


class Killed(BaseException):
    """Stands for SIGKILL: neither __exit__ nor anything after it happens."""


def copy_until(stream: Stream, size: int, stop: int | None) -> Stream:
    """Copy the records, `size` a window; with `stop`, die before that many were written."""
    try:
        for window in stream.windows(size):
            for line in window:
                if stream.written == stop:
                    raise Killed
                stream.write(line, line.record)
    except Killed:
        return stream
    except Exception as error:
        stream.__exit__(type(error), error, None)
        raise
    stream.__exit__(None, None, None)
    return stream
