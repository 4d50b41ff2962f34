"""Faults that are planted into a command, in the process that is about to run it, to see that the fuzzer finds them."""

import resource
import sys
from collections.abc import Callable

SECONDS = 20  # of the processor, for a command that is fuzzed: some options ask for more than any test can wait for


def plant(fault: str) -> None:
    """Plant it, by name, "" for none; and let the command name every bad line that it puts aside, not the first few."""
    from alignlib.records import stream

    stream.WARNINGS = sys.maxsize
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 1))
    if fault:
        FAULTS[fault]()


FAULTS: dict[str, Callable[[], None]] = {}
