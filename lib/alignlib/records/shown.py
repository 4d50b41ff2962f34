"""Text of strangers (records, names of files, servers' answers) as a terminal may get it."""

import re
import sys

from alignlib.records.jsonl import Record, dumps

WARNINGS = 5  # bad lines that are named
# What JSON lets stand and a terminal may obey: DEL, C1, marks of direction, ends of lines that are none elsewhere.
CONTROLS = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def one_line(text: str) -> str:
    r"""One line of what can be printed: of a line's end and the like a space, of ESC `\x1b`, of bidi marks `\u202e`.

    What turns colours on, moves the cursor or the order of letters is no more than its name then.
    """
    return " ".join("".join(char if char.isprintable() or char.isspace() else escape(char) for char in text).split())


def escape(char: str) -> str:
    """A character's name in Python's way, half a surrogate pair's too."""
    return char.encode("unicode_escape").decode()


def dumps_to_terminal(record: Record) -> bytes:
    """`dumps`, with controls as JSON's escapes, which are read as the same."""
    return CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", dumps(record).decode()).encode()


def say(words: str) -> None:
    """A line on stderr, whatever the names in it."""
    print(one_line(words), file=sys.stderr)


def say_skipped(error: Exception, number: int) -> None:
    """Name the bad line that is left out, the `number`-th so; of more than a few the summary gives the count alone."""
    if number <= WARNINGS:
        say(f"skipped {error}")
