"""Options in the sections of --help: a small command of our own, and all the real ones."""

from importlib import import_module

import click
import pytest

from alignlib.cli import options
from alignlib.cli.sections import FIRST, LAST, named, section, stack
from helpers.process import COMMANDS

a, b, c, d = (click.option(f"--{name}", help="Yes.") for name in "abcd")


def help_of(*decorators, **settings) -> str:
    @options.command(name="al-test", **settings)
    @stack(*decorators)
    def main(**given):
        """Does it."""

    return main.get_help(click.Context(main, info_name="al-test"))


def titles_of(text: str) -> list[str]:
    return [line.removesuffix(":") for line in text.splitlines() if line.endswith(":") and line[0] != " "]


def test_input_and_output_come_first_then_the_commands_own_then_the_others_then_help():
    text = help_of(section("Far", a, section("Near", b)), c, section(FIRST, d))
    assert titles_of(text) == [FIRST, "Options", "Far", "Near", LAST]
    assert [text.index(f"--{name}") for name in "dcab"] == sorted(text.index(f"--{name}") for name in "abcd")
    assert text.index("--help") > text.index("--schema") > text.index(LAST)


def test_options_can_be_named_into_a_section():
    assert titles_of(help_of(named("Far", "b"), a, b)) == ["Options", "Far", LAST]


def test_a_trainer_s_own_options_are_what_is_learnt():
    assert titles_of(help_of(a, section("Steps", b), writes=options.LOG)) == ["What is learnt", "Steps", LAST]


def test_what_is_hidden_stays_so():
    text = help_of(section("Secret", click.option("--e", hidden=True)), a)
    assert "--e" not in text and "Secret" not in text


def test_a_set_of_options_gives_no_title_to_those_of_another_command():
    shared = section("Shared", a)
    assert titles_of(help_of(shared)) == ["Shared", LAST] and titles_of(help_of(a)) == ["Options", LAST]


@pytest.mark.parametrize("name", COMMANDS)
def test_no_section_of_a_real_command_is_long(name):
    """Fifteen options are as many as one finds one's way in."""
    command = import_module(name.replace("-", "_")).main
    parts = getattr(command, "commands", {}).values() or [command]
    for part in parts:
        for title, its in part.arranged(click.Context(part, **part.context_settings)).items():
            assert len(its) <= 15, f"{part.name}, {title}: {len(its)} options"
        assert set(part.sections) <= {parameter.name for parameter in part.params}, "a title for no option"
