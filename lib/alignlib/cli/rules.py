"""Which options go together: declared beside them, checked before a command's body, and said in its pages.

    @rules.goes_with("--condition-as", "--condition")
    @rules.one_of("--cache", "--no-cache")

An option counts where it is given, not by its default. Rules that hang on a value (`--ties skip` needs `--to pref`) are
the body's.
"""

from dataclasses import dataclass

import click
from click.core import ParameterSource

from alignlib.cli.sections import Decorator, Function


@dataclass(frozen=True)
class Rule:
    """`option` only with one of `others`; or, `apart`, with none of them."""

    option: str
    others: tuple[str, ...]
    apart: bool = False

    def __str__(self) -> str:
        others = " or ".join(self.others)
        return f"{self.option} or {others}: give one of the two" if self.apart else f"{self.option} goes with {others}"

    def check(self, context: click.Context) -> None:
        """Raises UsageError where it is broken."""
        if is_given(self.option, context) and any(is_given(name, context) for name in self.others) == self.apart:
            raise click.UsageError(str(self), context)


def is_given(name: str, context: click.Context) -> bool:
    """Whether the option "--name" stands on the command line. Raises KeyError for one that the command has not."""
    parameters = {option: parameter for parameter in context.command.params for option in parameter.opts}
    return context.get_parameter_source(parameters[name].name or "") is ParameterSource.COMMANDLINE


def goes_with(option: str, *others: str) -> Decorator:
    """`option` does nothing without one of the others."""
    return lambda function: add(function, Rule(option, others))


def one_of(option: str, other: str) -> Decorator:
    """The two contradict each other."""
    return lambda function: add(function, Rule(option, (other,), apart=True))


def add(function: Function, rule: Rule) -> Function:
    vars(function)["rules"] = (rule, *declared(function))
    return function


def declared(function: Function) -> tuple[Rule, ...]:
    """The rules of a command's body, in the order in which they stand."""
    rules: tuple[Rule, ...] = vars(function).get("rules", ())
    return rules
