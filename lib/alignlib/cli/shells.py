"""What a shell is told when Tab is pressed, and the script that lets it ask: click's, before anything else is done.

    eval "$(_AL_SAMPLE_COMPLETE=bash_source al-sample)"        # zsh_source, fish_source; once a shell
"""

import os
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


def answer(command: click.Command, name: str) -> int | None:
    """Where a shell asks, print what it wants to know of the command `name`: the exit code; else None."""
    variable = f"_{name.replace('-', '_').upper()}_COMPLETE"
    instruction = os.environ.get(variable)
    if not instruction:
        return None
    from click.shell_completion import shell_complete

    return shell_complete(command, {}, name, variable, instruction)


def files(context: click.Context, parameter: click.Parameter, incomplete: str) -> "list[CompletionItem[str]]":
    """For `shell_complete=`: files and folders, of what may be something else too: a name on the Hub, a program."""
    from click.shell_completion import CompletionItem

    return [CompletionItem(incomplete, type="file")]
