"""Lines that are numbered, and one that is broken."""

from pathlib import Path

GOOD = [b'{"n": %d}\n' % n for n in range(10)]
BAD = b"{broken\n"


def write(path: Path, *lines: bytes) -> str:
    path.write_bytes(b"".join(lines))
    return str(path)
