"""Options of commands that run a model: each is defined once, its help may end in the command's own words."""

import click
import pytest

from alignlib.cli import model_options, options
from alignlib.cli.sections import stack


def build(*decorators) -> click.Command:
    @options.command(name="al-test")
    @stack(*decorators)
    def main(**values):
        """Nothing."""

    return main


def parse(command: click.Command, *args: str) -> dict:
    return command.make_context("al-test", list(args)).params


def test_the_defaults():
    limits = parse(build(model_options.limit_options))
    assert limits == {"max_length": None, "max_prompt": None, "max_completion": None, "keep_prompt": "end",
                      "on_long": "truncate"}
    assert parse(build(model_options.device_options)) == {"dtype": "auto", "device": "auto"}
    assert parse(build(model_options.max_new_tokens)) == {"max_new_tokens": 128}


def test_the_help_of_prompts_is_the_commands():
    command = build(model_options.prompt_options("what is left", note=" Not here."))
    texts = {parameter.name: parameter.help for parameter in command.params if isinstance(parameter, click.Option)}
    assert texts["max_prompt"] == "Tokens of a prompt. Not here.  [default: what is left]"
    assert texts["keep_prompt"] == "Which end of a too long prompt stays. Not here."
    assert texts["on_long"] == "What a too long prompt does; counted in the summary. Not here."


def test_on_long_skip_puts_records_aside():
    command = build(model_options.limit_options)
    for args, aside in (([], False), (["--on-long", "skip"], True), (["--on-long", "fail"], False)):
        with command.make_context("al-test", list(args)):
            assert options.puts_aside() == aside


@pytest.mark.parametrize("args", [["--max-length", "1"], ["--max-prompt", "0"], ["--keep-prompt", "middle"]])
def test_lengths_that_cannot_be(args):
    with pytest.raises(click.UsageError):
        parse(build(model_options.limit_options), *args)
