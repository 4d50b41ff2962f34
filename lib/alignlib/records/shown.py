"""Text of strangers (records, names of files, servers' answers) as a terminal may get it."""


def one_line(text: str) -> str:
    r"""One line of what can be printed: of a line's end and the like a space, of ESC `\x1b`, of bidi marks `\u202e`.

    What turns colours on, moves the cursor or the order of letters is no more than its name then.
    """
    return " ".join("".join(char if char.isprintable() or char.isspace() else escape(char) for char in text).split())


def escape(char: str) -> str:
    """A character's name in Python's way, half a surrogate pair's too."""
    return char.encode("unicode_escape").decode()
