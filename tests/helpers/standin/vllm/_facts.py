"""Makes calls keep to the released package's parameters, and what comes of them to its attributes."""

import functools
import inspect
import json
import os
from collections.abc import Callable
from pathlib import Path

FACTS = json.loads((Path(__file__).parents[2] / "vllm_facts.json").read_text())


def signature(path: str) -> inspect.Signature:
    """That of a callable in the facts."""
    kind, parameters = inspect.Parameter.POSITIONAL_OR_KEYWORD, []
    for name in FACTS["parameters"][path]:
        if name == "*":
            kind = inspect.Parameter.KEYWORD_ONLY
        else:
            default = None if name.endswith("=") else inspect.Parameter.empty
            # A struct's or dataclass's own order is not what a call may rest on.
            parameters.append(inspect.Parameter(name.rstrip("="), kind, default=default))
    return inspect.Signature(parameters)


def bound(path: str, args: tuple, given: dict) -> dict:
    """The arguments by name, as the released package takes them. Raises TypeError where it would."""
    arguments = signature(path).bind(*args, **given).arguments
    if log := os.environ.get("STANDIN_LOG"):
        with open(log, "a") as handle:
            handle.write(json.dumps([path, arguments], default=repr) + "\n")
    return arguments


def keeps_to(path: str) -> Callable:
    """A method or function whose calls are checked; what it is called with reaches it by name."""

    def decorate(function: Callable) -> Callable:
        @functools.wraps(function)
        def checked(*args, **given):
            own = [args[0]] if "." in path.partition(":")[2] else []
            return function(*own, **bound(path, args[len(own):], given))

        return checked

    return decorate


def only(path: str, **attributes) -> object:
    """An object that has what the class in the facts has, of it `attributes`; anything else is an AttributeError."""
    instance = type(path.partition(":")[2], (), {"__slots__": tuple(FACTS["members"][path])})()
    for name, value in attributes.items():
        setattr(instance, name, value)
    return instance
