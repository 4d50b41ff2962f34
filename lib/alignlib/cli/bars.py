"""How far the work is, while one waits: a line on a terminal, drawn anew below whatever is printed meanwhile."""

import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO

from alignlib import waits


def terminal(*streams: TextIO) -> TextIO | None:
    """The first of the streams that is a terminal: where a bar goes, whatever line is there at the moment."""
    return next((getattr(stream, "terminal", stream) for stream in streams if stream.isatty()), None)


def typed(files: Sequence[str]) -> bool:
    """Whether any of the input is typed at a terminal, which a bar would write over."""
    return (not files or "-" in files) and sys.stdin is not None and sys.stdin.isatty()


class Bar:
    """`done` things of `total`, their rate and the time left; None: nobody knows how many they are.

    name     what is being done, or the command that does it
    unit     what the things are
    where    the terminal; None: nothing is shown
    stays    whether the line is left there at the end
    """

    def __init__(self, total: int | None, done: int = 0, *, name: str, unit: str, where: TextIO | None,
                 stays: bool = False):
        self.where = where
        if where is None:
            return
        from alignlib.cli.line import Above, Line

        waits.shown.aside(self)
        self._bar = Line(where, unit, total=total, initial=done, desc=name, leave=stays)
        self._mixed = sys.stdout.isatty()
        self._stderr, self._above = sys.stderr, Above(sys.stderr)
        sys.stderr = self._above
        self._ended = threading.Event()
        self._clock = threading.Thread(target=self._tick, daemon=True)
        self._clock.start()

    def __enter__(self) -> "Bar":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _tick(self) -> None:
        """A batch may take long: the time goes on meanwhile."""
        while not self._ended.wait(1):
            self._bar.refresh()

    def reach(self, done: int, text: str = "") -> None:
        """So many things are done; the text is shown behind the figures."""
        if self.where:
            if text:
                self._bar.set_postfix_str(text, refresh=False)
            self._bar.update(done - self._bar.n)

    def say(self, text: str) -> None:
        """Show this behind the figures, at once."""
        if self.where:
            self._bar.set_postfix_str(text)

    def note(self, text: str) -> None:
        """Leave a line on the terminal, above this one."""
        if self.where:
            self._bar.write(text, file=self.where)

    @contextmanager
    def during(self, text: str) -> Iterator[None]:
        """In its body this is shown behind the figures, then again what was."""
        before = self._bar.postfix if self.where else None
        self.say(text)
        yield
        self.say(before or "")

    @contextmanager
    def aside(self) -> Iterator[None]:
        """In its body standard output may be written to: the line is away, if that is a terminal too."""
        if self.where and self._mixed:
            with self._bar.external_write_mode(file=self.where):
                yield
        else:
            yield

    def close(self) -> None:
        """The end: the line is left as it is, or wiped off."""
        if self.where:
            self._ended.set()
            self._clock.join()
            sys.stderr = self._stderr
            self._bar.close()
            self._above.end()
            waits.shown.back(self)
