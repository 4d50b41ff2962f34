"""A line of what a command does, after two seconds without a bar or a word: "al-sample [3 s]: loading sft"."""

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from alignlib import waits

if TYPE_CHECKING:
    from alignlib.cli.line import Line

PATIENCE = 2.0  # seconds without a word
TICK = 0.25


class Watch:
    """Of the things under way the innermost is shown, on the terminal `where`, behind the command's name."""

    def __init__(self, name: str, where: TextIO):
        self.name, self.where = name, where
        self._texts: list[str] = []
        self._since = 0.0  # the time.monotonic() from which on nothing has been shown
        self._owners: list[object] = []  # of the terminal meanwhile
        self._line: Line | None = None
        self._stderr: TextIO | None = None  # what sys.stderr was before the line
        self._above: Any = None  # what it is meanwhile: what is printed goes above the line
        self._lock = threading.RLock()
        self._ended = threading.Event()

    @contextmanager
    def doing(self, text: str) -> Iterator[None]:
        """In its body this goes on."""
        with self._lock:
            self._texts.append(text)
            if len(self._texts) == 1:
                self._since, self._ended = time.monotonic(), threading.Event()
                threading.Thread(target=self._tick, args=(self._ended,), daemon=True).start()
        try:
            yield
        finally:
            with self._lock:
                self._texts.remove(text)
                if not self._texts:
                    self._ended.set()
                    self._wipe()

    def aside(self, owner: object) -> None:
        with self._lock:
            self._owners.append(owner)
            self._wipe()

    def back(self, owner: object) -> None:
        with self._lock:
            self._owners = [other for other in self._owners if other is not owner]
            self._since = time.monotonic()

    def _tick(self, ended: threading.Event) -> None:
        while not ended.wait(TICK):
            with self._lock:
                if not (ended.is_set() or self._owners) and time.monotonic() >= self._since + PATIENCE:
                    self._draw()

    def _draw(self) -> None:
        from alignlib.cli.line import Above, Line

        text = f"{self.name} [{time.monotonic() - self._since:.0f} s]: {self._texts[-1]}"
        if self._line is None:
            self._stderr, self._above = sys.stderr, Above(sys.stderr)
            sys.stderr = self._above
            self._line = Line(self.where, "", desc=text, bar_format="{desc}", leave=False, tells=self._tells)
        elif text != self._line.desc:
            self._line.tells = self._tells
            self._line.set_description_str(text)

    @property
    def _tells(self) -> bool:
        """Whether it says more than that something goes on."""
        return self._texts[-1] != waits.WORK

    def _wipe(self) -> None:
        if self._line is not None:
            if sys.stderr is self._above:  # else somebody has redirected it meanwhile
                sys.stderr = self._stderr
            self._line.close()
            self._line = None
            self._above.end()


def watch(name: str) -> None:
    """Show from now on, if standard error is a terminal, what the command `name` does while nothing else is shown.

    Of several ranks only the first does.
    """
    here = sys.stderr.isatty() and os.environ.get("RANK", "0") == "0"
    waits.shown = Watch(name, sys.stderr) if here else waits.Nobody()
