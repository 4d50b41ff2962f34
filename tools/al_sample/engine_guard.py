"""Ends an engine's processes once the command that started them has gone, however it went.

vLLM's do not notice that by themselves: after a kill -9 they would keep their memory, and a GPU's, for good. So before
it starts them a command marks its environment, which they inherit, and starts this file as a process of its own. That
waits for the end of a pipe that the command alone holds, then ends all that bear the mark. It reads Linux's /proc.
"""

import os
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path

MARK = "AL_SAMPLE_ENGINE"  # the variable; its value is one command's own
GRACE = 10.0  # seconds to end by oneself, with what there is of shared memory
TRACKER = b"multiprocessing.resource_tracker"  # gives back what others left, and ends when they have


def start() -> subprocess.Popen[bytes]:
    """Mark this process's environment for those that it will start, and watch over them."""
    mark = os.environ[MARK] = f"{os.getpid()}-{secrets.token_hex(8)}"
    quiet = {**os.environ, MARK: ""}
    return subprocess.Popen([sys.executable, "-S", __file__, mark], env=quiet, stdin=subprocess.PIPE,
                            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)


def marked(mark: str) -> list[int]:
    """The processes with that mark in their environment."""
    entry, numbers = f"{MARK}={mark}".encode(), []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if entry in (folder / "environ").read_bytes().split(b"\0"):
                if TRACKER not in (folder / "cmdline").read_bytes():
                    numbers.append(int(folder.name))
        except OSError:  # it has ended, or is somebody else's
            continue
    return numbers


def end_all(mark: str) -> None:
    """Ask them to end, and after a while make them."""
    asked, deadline = set[int](), time.monotonic() + GRACE
    while processes := marked(mark):
        late = time.monotonic() > deadline
        for process in processes if late else set(processes) - asked:
            try:
                os.kill(process, signal.SIGKILL if late else signal.SIGTERM)
            except ProcessLookupError:
                continue
        asked |= set(processes)
        time.sleep(0.1)


if __name__ == "__main__":
    sys.stdin.buffer.read()
    end_all(sys.argv[1])
