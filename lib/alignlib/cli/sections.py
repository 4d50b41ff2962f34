"""Options in sections: the title an option stands under is said where a set of options is declared, once for the set.

    limit_options = section("Lengths", click.option("--max-length", ...), click.option("--max-prompt", ...))

`--help`, the man pages and docs/commands show them so: input and output first, then what a command has of its own.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import click

Function = Callable[..., Any]  # a command's body, or that under some of its options already
Decorator = Callable[[Function], Function]

FIRST, LAST = "Input and output", "Help and messages"


def stack(*decorators: Decorator) -> Decorator:
    """Several decorators as one, the first the outermost: a set of options in the order of --help."""

    def decorate(function: Function) -> Function:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


def section(title: str, *decorators: Decorator) -> Decorator:
    """A `stack` whose options stand under this title, but for those of them that have another one."""

    def decorate(function: Function) -> Function:
        before = declared(function)
        function = stack(*decorators)(function)
        return give_title(function, title, declared(function) - before)

    return decorate


def named(title: str, *names: str) -> Decorator:
    """Puts those of a command's own options that have these names under this title."""
    return lambda function: give_title(function, title, names)


def changed(name: str, **attributes: Any) -> Decorator:
    """Says something else of an option of a set: another `help`; `hidden` of one that is refused, with a reason."""

    def decorate(function: Function) -> Function:
        option = next(parameter for parameter in parameters(function) if parameter.name == name)
        vars(option).update(attributes)
        return function

    return decorate


def parameters(function: Function) -> list[click.Parameter]:
    """The options that the decorators of this body have declared, where click's own keep them."""
    kept: list[click.Parameter] = vars(function).get("__click_params__", [])
    return kept


def declared(function: Function) -> set[str]:
    """Their names."""
    return {parameter.name for parameter in parameters(function) if parameter.name}


def give_title(function: Function, title: str, names: Iterable[str]) -> Function:
    """Note it beside the options, for `titles`."""
    vars(function)["sections"] = dict.fromkeys(names, title) | titles(function)
    return function


def titles(function: Function) -> dict[str, str]:
    """{an option's name: its title}, of the options that have one."""
    given: dict[str, str] = vars(function).get("sections", {})
    return given


def arrange(parameters: Iterable[click.Parameter], given: Mapping[str, str],
            own: str) -> dict[str, list[click.Option]]:
    """The options by their titles: input and output, `own` for those without, all others as they come, help."""
    sections: dict[str, list[click.Option]] = {FIRST: [], own: []}
    for option in parameters:
        if isinstance(option, click.Option) and not option.hidden:
            sections.setdefault(given.get(option.name or "", own), []).append(option)
    sections[LAST] = sections.pop(LAST, [])
    return {title: options for title, options in sections.items() if options}
