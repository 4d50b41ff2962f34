"""How a command begins: its script comes here before it imports anything, so that Ctrl-C never meets a bare import.

    [project.scripts]
    al-sft = "alignlib.cli.start:al_sft"

Every `al_NAME` of this module runs the command of that name; `python -m alignlib.cli.start al_sft` does too.
"""

import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module
from types import FrameType

INTERRUPTED = 130
IMPORTING = "<frozen importlib._bootstrap>"  # the code below every import that is under way


def __getattr__(name: str) -> Callable[[], None]:
    """A command's entry. Raises AttributeError for what no command is called."""
    if not name.startswith("al_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return partial(run, name)


def run(name: str) -> None:
    """Import the command `name`, al_sft say, and call it; it ends the process."""
    watch()
    import_module(name).main()


def watch() -> None:
    """From now on Ctrl-C in the middle of an import ends the process at once; who ignores or handles it goes on so."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, interrupt)


def interrupt(number: int, frame: FrameType | None) -> None:
    """KeyboardInterrupt, as ever, but not into an import.

    There libraries turn it into errors of their own, print it or pass over it, and go on with half of a module.
    """
    place = frame
    while place is not None:
        if place.f_code.co_filename == IMPORTING:
            os._exit(INTERRUPTED)
        place = place.f_back
    signal.default_int_handler(number, frame)


if __name__ == "__main__":  # in launch's processes; the name of the command then stands where a script's would
    del sys.argv[0]
    run(sys.argv[0])
