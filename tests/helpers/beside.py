"""The side of a benchmark's worker that is a process of its own, in whatever environment: nothing but Python's own."""

import json
import os
import resource
import sys
from collections.abc import Callable


def serve(name: str, ours: Callable[..., object], theirs: Callable[..., object]) -> None:
    """Train, by the side that sys.argv names, for each line of JSON on stdin, whose fields are the arguments.

    A line {seconds, `name`} on stdout says what processor time it took and what came of it. The first one imports what
    it needs, too.
    """
    train = {"ours": ours, "theirs": theirs}[sys.argv[1]]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what trainers print is no answer
    for line in sys.stdin:
        start = _seconds()
        result = train(**json.loads(line))
        print(json.dumps({"seconds": _seconds() - start, name: result}), file=answers, flush=True)


def _seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
