"""What goes on where it may take long: said by whoever does it, shown to a person who waits by cli/waiting.py."""

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol


class Shown(Protocol):
    """What shows it."""

    def doing(self, text: str) -> AbstractContextManager[None]: ...

    def aside(self, owner: object) -> None:
        """Show nothing until the owner of the terminal, a bar say, is `back`."""

    def back(self, owner: object) -> None: ...


class Nobody:
    """No terminal."""

    def doing(self, text: str) -> AbstractContextManager[None]:
        return nullcontext()

    def aside(self, owner: object) -> None: ...

    def back(self, owner: object) -> None: ...


WORK = "at work"  # where nothing more is known
shown: Shown = Nobody()


def doing(text: str) -> AbstractContextManager[None]:
    """In its body this goes on: "loading sft"."""
    return shown.doing(text)


def hush() -> None:
    """From here on something else is written to the terminal, or somebody types there."""
    shown.aside("for good")
