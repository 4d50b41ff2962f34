"""Where a path leads to: links followed, and what this process has open already told apart from files of their own."""

import os
import re
import stat
from pathlib import Path

DESCRIPTORS = re.compile(r"/dev/fd|/proc/(\d+)/(task/\d+/)?fd")


def place(path: str | Path) -> str:
    """The absolute path of the file that the links at `path` lead to; /dev/stdout leads to a name of /proc/N/fd."""
    path = os.fspath(path)
    for _ in range(40):  # as many links as the kernel follows
        folder = os.path.realpath(os.path.dirname(path))
        path = os.path.join(folder, os.path.basename(path))
        if DESCRIPTORS.fullmatch(folder) or not os.path.islink(path):
            break
        path = os.path.join(folder, os.readlink(path))
    return os.path.normpath(path)


def descriptor(path: str) -> int | None:
    """Which open file of this process the path names, as /dev/stdout and /dev/fd/63 do; None for any other path."""
    folder, _, number = place(path).rpartition("/")
    process = DESCRIPTORS.fullmatch(folder)
    ours = process and process[1] in (None, str(os.getpid())) and number.isdecimal()
    return int(number) if ours else None


def regular(path: str) -> bool:
    """Whether `path` is, or would be made, a file that can be cut, renamed and gone on with."""
    if DESCRIPTORS.fullmatch(os.path.dirname(place(path))):
        return False
    return not os.path.exists(path) or stat.S_ISREG(os.stat(path).st_mode)
