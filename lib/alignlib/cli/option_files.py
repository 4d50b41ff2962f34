"""Options from a file: `al-sft @small.args base data.jsonl` reads them from small.args; what stands after it wins.

    # one a line, as a shell would take it; this is a comment
    --lr 2e-5
    --schedule linear
    --stop "Human:"

A word is such a file where an argument could stand, not where an option's value does: `--stop @` is a text. An input
whose name begins with @ is ./@name.
"""

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import click

Part = tuple[click.Option | None, list[str]]  # an option that is given, with its value; None: an argument


def expand(command: click.Command, words: Sequence[str]) -> list[str]:
    """The words of a command line with those of its option files in their place. Raises UsageError: file, line, why.

    An option that may be repeated is the files' only where nothing after them gives it.
    """
    if isinstance(command, click.Group):  # its own options are flags, and come before the subcommand's name
        place = next((i for i, word in enumerate(words) if not word.startswith("-")), len(words))
        if place < len(words) and words[place].startswith("@"):
            raise click.UsageError(f"{words[place]}: a file of options stands behind the subcommand's name")
        subcommand = command.commands.get(words[place]) if place < len(words) else None
        return [*words[:place + 1], *expand(subcommand, words[place + 1:])] if subcommand else list(words)
    options = {name: option for option in command.params if isinstance(option, click.Option)
               for name in (*option.opts, *option.secondary_opts)}
    expanded: list[Part] = []
    given: set[click.Option] = set()  # by what stands further on
    for part in reversed(list(parts(words, options))):
        inside = [part]
        if part[0] is None and part[1][0].startswith("@") and len(part[1][0]) > 1:
            inside = list(read(part[1][0][1:], options))
        expanded[:0] = [one for one in inside if one is part or not (one[0] in given and repeats(one[0]))]
        given |= {option for option, _ in inside if option}
    return [word for _, its_words in expanded for word in its_words]


def parts(words: Sequence[str], options: Mapping[str, click.Option]) -> Iterator[Part]:
    """The options and arguments that the words are; from `--` on they are arguments, and no longer looked at."""
    rest = iter(words)
    for word in rest:
        if word == "--":
            yield None, [word, *rest]
        elif not word.startswith("-") or word == "-":
            yield None, [word]
        else:
            option, needs = named(word, options)
            yield option, [word, *([value] if needs and (value := next(rest, None)) is not None else [])]


def named(word: str, options: Mapping[str, click.Option]) -> tuple[click.Option | None, bool]:
    """The option of a word, "--lr", "--lr=1", "-t", "-t1" or "-vt", and whether the next word is its value."""
    if word.startswith("--"):
        name, equals, _ = word.partition("=")
        option = options.get(name)
        return option, option is not None and takes_value(option) and not equals
    for place, letter in enumerate(word[1:], 2):
        option = options.get(f"-{letter}")
        if option is None or takes_value(option):
            return option, option is not None and place == len(word)
    return option, False


def repeats(option: click.Option | None) -> bool:
    return option is not None and option.multiple


def takes_value(option: click.Option) -> bool:
    return not option.is_flag and not option.count


def read(file: str, options: Mapping[str, click.Option]) -> Iterator[Part]:
    """The options of a file, one a line. Raises UsageError."""
    try:
        lines = Path(file).read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise click.UsageError(f"@{file}: no file of options: {reason}; an input of that name is ./@{file}") from error
    for number, line in enumerate(lines, 1):
        where = f"@{file}:{number}"
        try:
            words = shlex.split(without_comment(line))
        except ValueError as error:
            raise click.UsageError(f"{where}: {str(error).lower()}") from error
        found = list(parts(words, options))
        if found:
            option, its_words = found[0]
            what = "one option a line" if len(found) > 1 else None
            if option is None:
                what = f"no option of the command: {its_words[0][:40]!r}"
            if what or option is None:
                raise click.UsageError(f"{where}: {what}; an input of that name is ./@{file}")
            if takes_value(option):
                must_have_value(option, its_words, where)
        yield from found


def must_have_value(option: click.Option, words: Sequence[str], where: str) -> None:
    """Raises UsageError where a line's option has no value, or one that it cannot have: file, line, why."""
    word, *rest = words
    if rest:
        [value] = rest
    elif word.startswith("--"):
        _, equals, value = word.partition("=")
    else:  # -t0.5, or -gt0.5
        equals = value = word[next(i for i, letter in enumerate(word) if f"-{letter}" in option.opts) + 1:]
    if not (rest or equals):
        raise click.UsageError(f"{where}: {word} requires an argument")
    try:
        if not getattr(option.type, "reads", False):
            option.type.convert(value, option, None)
    except click.BadParameter as error:
        raise click.UsageError(f"{where}: {error.format_message()}") from error


def without_comment(line: str) -> str:
    """The line up to a # that begins a word and is in no quotes, as a shell takes it."""
    for place in (mark.start() for mark in re.finditer(r"(?<!\S)#", line)):
        try:
            shlex.split(line[:place])
        except ValueError:  # in quotes
            continue
        return line[:place]
    return line
