"""What a shell is told when Tab is pressed, and the script that lets it ask: click's, before anything else is done.

    eval "$(_AL_SAMPLE_COMPLETE=bash_source al-sample)"        # zsh_source, fish_source; once a shell
"""

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem, ShellComplete

BREAKS = ":="  # bash completes what comes behind these, zsh and fish the whole word


def answer(command: click.Command, name: str) -> int | None:
    """Where a shell asks, print what it wants to know of the command `name`: the exit code; else None."""
    variable = f"_{name.replace('-', '_').upper()}_COMPLETE"
    instruction = os.environ.get(variable)
    if not instruction:
        return None
    from click.shell_completion import add_completion_class, get_completion_class, shell_complete

    shell, _, what = instruction.partition("_")
    kind = get_completion_class(shell)
    if kind is None or what == "complete" and not {"COMP_WORDS", "COMP_CWORD"} <= os.environ.keys():
        return 1
    add_completion_class(asked(kind), shell)
    return shell_complete(command, {}, name, variable, instruction)


def asked(kind: "type[ShellComplete]") -> "type[ShellComplete]":
    """The shell's way to complete, which knows of @FILE, and of values and files behind another word of their own."""

    class Asked(kind):  # type: ignore[valid-type, misc]  # a class that is found by its name
        def get_completions(self, args: list[str], incomplete: str) -> "list[CompletionItem[str]]":
            from click.shell_completion import CompletionItem

            if self.name == "bash" and args[-1:] == ["@"]:  # it breaks words there too
                incomplete = f"@{incomplete}"
            if incomplete.startswith("@"):
                return [CompletionItem(f"@{path}") for path in paths(incomplete[1:])]
            if self.name == "bash":
                return super().get_completions(args[:-1] if args[-1:] == ["="] else args, incomplete)
            items = super().get_completions(args, incomplete)
            behind = max(incomplete.rfind(mark) for mark in BREAKS) + 1
            before = incomplete[:incomplete.find("=") + 1] if incomplete.startswith("--") else ""
            found = []
            for item in items:
                if item.type == "plain":
                    found.append(CompletionItem(f"{before}{item.value}", help=item.help))
                elif behind or incomplete.startswith(("~", "$")):
                    found += [CompletionItem(incomplete[:behind] + path) for path in paths(incomplete[behind:])]
                else:
                    found.append(item)
            return found

    return Asked


def paths(incomplete: str) -> Iterator[str]:
    """What is there whose name goes on like this; ~ and $HOME stay as they were written."""
    place = incomplete.rfind("/") + 1
    folder = os.path.expandvars(os.path.expanduser(incomplete[:place])) or "."
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name) if os.path.isdir(folder) else ():
        hidden = entry.name.startswith(".") and not incomplete[place:]
        if entry.name.startswith(incomplete[place:]) and not hidden:
            yield incomplete[:place] + entry.name + "/" * entry.is_dir()


def files(context: click.Context, parameter: click.Parameter, incomplete: str) -> "list[CompletionItem[str]]":
    """For `shell_complete=`: files and folders, of what may be something else too: a name on the Hub, a program."""
    from click.shell_completion import CompletionItem

    return [CompletionItem(incomplete, type="file")]
