"""Which options go together: a command of our own, and every command's rules."""

from importlib import import_module

import click
import pytest

from alignlib.cli import options, rules
from helpers.outcome import outcome
from helpers.process import COMMANDS


@options.command(name="al-test")
@rules.goes_with("--condition-as", "--condition", "--other")
@rules.one_of("--greedy", "--temperature")
@click.option("--condition")
@click.option("--other", default=1)
@click.option("--condition-as", default="user")
@click.option("-g", "--greedy", is_flag=True)
@click.option("-t", "--temperature", "temperatures", multiple=True, default=(1.0,))
def main(**given):
    """Takes options that go together."""


@pytest.mark.parametrize(("args", "message"), [
    ([], None), (["--condition-as", "user", "--other", "1"], None), (["-g"], None), (["-t", "1"], None),
    (["--condition", "a"], None),
    (["--condition-as", "user"], "--condition-as goes with --condition or --other"),
    (["-t", "1", "-g"], "--greedy or --temperature: give one of the two"),
    (["--condition-as", "user", "-gt1"], "--condition-as goes with --condition or --other"),
])
def test_what_is_given_counts_not_what_is_the_default(args, message, capfd):
    expected = (0, "") if message is None else (2, f"al-test: {message} (see al-test --help)\n")
    assert outcome(capfd, lambda: main.main(args, "al-test")) == expected


@pytest.mark.parametrize("name", COMMANDS)
def test_every_rule_is_of_options_that_are_there(name):
    command = import_module(name.replace("-", "_")).main
    names = {option for parameter in command.params for option in parameter.opts}
    assert all({rule.option, *rule.others} <= names for rule in command.rules)


def test_a_rule_about_no_option_is_a_mistake_of_ours():
    with pytest.raises(KeyError):
        rules.Rule("--none", ("--condition",)).check(click.Context(main))
