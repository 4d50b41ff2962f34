"""The moments of a run: each of the changes that a process is about to make to files, and each write half-way through.

    watch("/tmp/x", "/tmp/journal")            # writes down the moments of all that lies under /tmp/x, a line each
    watch("/tmp/x", "/tmp/journal", last=17)   # and at the 17th, counted from 0, the process dies by SIGKILL

What a run changes depends on its input alone, so a moment's number names the same place in any two runs. Weights are
written by other languages than Python: of them only what comes before and after is a moment.
"""

import builtins
import io
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
# Audit events: where their arguments have a path, and the descriptor of the folder that it may be relative to.
CHANGES = {"os.rename": (0, 2), "os.remove": (0, 1), "os.rmdir": (0, 1), "os.mkdir": (0, 2), "os.truncate": (0, None),
           "os.link": (1, 3), "os.symlink": (1, 2)}


def watch(folder: str, journal: str, last: int | None = None) -> None:
    """See above; what other processes change, also those that this one starts, is not seen."""
    seen = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    number = 0

    def at(what: str, path: str) -> None:
        nonlocal number
        if not path.startswith(folder + os.sep):
            return
        write(seen, f"{what} {path.removeprefix(folder)}\n".encode())
        if number == last:
            os.kill(os.getpid(), signal.SIGKILL)
        number += 1

    def hear(event: str, args: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(args[2], int) and args[2] & WRITES:
            at("open", resolve(args[0], None))
        elif event in CHANGES:
            place, base = CHANGES[event]
            at(event, resolve(args[place], args[base] if base and len(args) > base else None))

    write = os.write
    halve(at)
    sys.addaudithook(hear)


def resolve(path: object, base: int | None) -> str:
    """The whole name of what an event names: a path, relative to an open folder or not, or a descriptor."""
    if isinstance(path, int):
        return os.readlink(f"/proc/self/fd/{path}")
    name = os.fsdecode(path)  # type: ignore[arg-type]  # a path, then
    if base is not None and base >= 0:
        return os.path.join(os.readlink(f"/proc/self/fd/{base}"), name)
    return os.path.abspath(name)


def halve(at: Callable[[str, str], None]) -> None:
    """Let every write of this process be two, a moment before each; writes in place (pwrite) stay one."""
    write, pwrite, opening = os.write, os.pwrite, io.open

    def in_two(descriptor: int, data: Any) -> int:
        path, data = os.readlink(f"/proc/self/fd/{descriptor}"), memoryview(data).cast("B")
        at("write", path)
        done = write(descriptor, data[:len(data) // 2])
        at("write the rest of", path)
        return done + write(descriptor, data[done:])

    def in_place(descriptor: int, data: Any, offset: int) -> int:
        at("write in", os.readlink(f"/proc/self/fd/{descriptor}"))
        return pwrite(descriptor, data, offset)

    class Halved(io.FileIO):
        def write(self, data: Any) -> int:
            return in_two(self.fileno(), data)

    def open_halved(file: Any, mode: str = "r", buffering: int = -1, encoding: str | None = None,
                    errors: str | None = None, newline: str | None = None, closefd: bool = True,
                    opener: Any = None) -> Any:
        if "+" in mode or not set(mode) & set("wax"):
            return opening(file, mode, buffering, encoding, errors, newline, closefd, opener)
        raw = Halved(file, mode.replace("b", "").replace("t", ""), closefd, opener)
        if buffering == 0:
            return raw
        binary = io.BufferedWriter(raw)
        return binary if "b" in mode else io.TextIOWrapper(binary, encoding, errors, newline)

    os.write, os.pwrite = in_two, in_place
    io.open = builtins.open = open_halved
