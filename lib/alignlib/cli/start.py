"""How a command begins: its script comes here before it imports anything, so that Ctrl-C never meets a bare import.

    [project.scripts]
    al-sft = "alignlib.cli.start:al_sft"

Every `al_NAME` of this module runs the command of that name; `python -m alignlib.cli.start al_sft` does too.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # `signal` is made of it, and imports ten milliseconds more
import os
import sys

TYPE_CHECKING = False  # of typing, which is not imported for it
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

INTERRUPTED = 130
IMPORTING = "<frozen importlib._bootstrap>"  # the code below every import that is under way


def __getattr__(name: str) -> Callable[[], None]:
    """A command's entry. Raises AttributeError for what no command is called."""
    if not name.startswith("al_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    take(leave)
    return lambda: run(name)


def run(name: str) -> None:
    """Import the command `name`, al_sft say, and call it; it ends the process."""
    take(leave)
    from importlib import import_module

    import_module(name).main()


def watch() -> None:
    """From now on Ctrl-C in the middle of an import ends the process at once, and is a KeyboardInterrupt elsewhere."""
    take(interrupt)


def take(handler: Callable[[int, FrameType | None], object]) -> None:
    """Let Ctrl-C be handled so; who ignores or handles it goes on so."""
    if _signal.getsignal(_signal.SIGINT) in (_signal.default_int_handler, leave):
        _signal.signal(_signal.SIGINT, handler)


def leave(number: int, frame: FrameType | None) -> None:
    """The end, at once: nothing has begun that could be left half done."""
    os._exit(INTERRUPTED)


def interrupt(number: int, frame: FrameType | None) -> None:
    """KeyboardInterrupt, as ever, but not into an import.

    There libraries turn it into errors of their own, print it or pass over it, and go on with half of a module.
    """
    place = frame
    while place is not None:
        if place.f_code.co_filename == IMPORTING:
            os._exit(INTERRUPTED)
        place = place.f_back
    _signal.default_int_handler(number, frame)


if __name__ == "__main__":  # in launch's processes; the name of the command then stands where a script's would
    take(leave)
    del sys.argv[0]
    run(sys.argv[0])
