"""Commands at a terminal: a real one, of which this side keeps what was written to it, and shows what is left on it."""

import errno
import fcntl
import os
import pty
import struct
import subprocess
import termios
import threading
from dataclasses import dataclass, field

from helpers.process import command, environment

ROWS, COLUMNS = 24, 160


class Terminal:
    """A terminal: `theirs` is the descriptor to give to a command."""

    def __init__(self, rows: int = ROWS, columns: int = COLUMNS):
        self._mine, self.theirs = pty.openpty()
        fcntl.ioctl(self.theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self._open = True
        self._parts: list[bytes] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                self._parts.append(os.read(self._mine, 1 << 16))
            except OSError as error:
                if error.errno != errno.EIO:  # nobody has the other side any more
                    raise
                return

    def close(self) -> None:
        """When the commands have ended; what they have written is whole then."""
        if self._open:
            self._open = False
            os.close(self.theirs)
            self._reader.join()
            os.close(self._mine)

    @property
    def written(self) -> str:
        return b"".join(self._parts).decode()

    @property
    def drawn(self) -> list[str]:
        """What a line was, each time that it was drawn."""
        return [text for text in self.written.replace("\n", "\r").split("\r") if text.strip()]

    @property
    def screen(self) -> list[str]:
        """The lines that a person sees at the end; the last one is where the next prompt comes, and should be empty."""
        return self.looked_at()[0]

    @property
    def seen(self) -> list[str]:
        """What stood in the last line, each time that the cursor went back to where it begins."""
        return self.looked_at()[1]

    def looked_at(self) -> tuple[list[str], list[str]]:
        rows, column, seen = [""], 0, []
        for character in self.written:
            if character == "\n":
                rows, column = [*rows, ""], 0
            elif character == "\r":
                column = 0
                seen.append(rows[-1].rstrip())
            else:
                rows[-1] = rows[-1][:column] + character + rows[-1][column + 1:]
                column += 1
        return [row.rstrip() for row in rows], seen


@dataclass
class Done:
    """How a command at a terminal ended."""

    returncode: int
    stdout: str  # where it is no terminal
    stderr: str
    written: str
    screen: list[str] = field(default_factory=list)


def at_terminal(name: str, *args: object, streams: tuple[str, ...] = ("stderr",), stdin: bytes = b"",
                **environ: str) -> Done:
    """Run a command to its end: `streams` of it are the terminal, the others pipes; more of its environment."""
    terminal = Terminal()
    outputs = {stream: terminal.theirs if stream in streams else subprocess.PIPE for stream in ("stdout", "stderr")}
    done = subprocess.run(command(name, *args), input=stdin, env={**environment(), **environ}, **outputs)
    terminal.close()
    return Done(done.returncode, (done.stdout or b"").decode(), (done.stderr or b"").decode(), terminal.written,
                terminal.screen)
