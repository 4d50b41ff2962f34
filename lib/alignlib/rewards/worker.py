"""A program that is asked line by line: one process, kept, which writes a line for each that it reads.

    worker = Worker("./judge --fast", timeout=300)
    for line in worker.answers([b'{"completion": " Hello!"}\\n', b'{"completion": " Go away."}\\n']): ...
    worker.finish()

It is written to and read from at once, so that neither waits for the other with a full pipe; its stderr is the
command's own.
"""

import contextlib
import ctypes
import os
import selectors
import shlex
import shutil
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Iterator, Sequence

import click

PIECE = 1 << 16  # bytes that are written or read at a time; no number's line is longer
GRACE = 5.0  # seconds to end by itself once it has been told that no line will follow
MISPLACED = ": its numbers may have been others' than they seem"
PR_SET_PDEATHSIG = 1  # linux/prctl.h


class WorkerFailure(Exception):
    """The program gave no line, or one too many, in words that go behind its name."""


class Worker:
    """`program` is split as a shell would; `timeout`: seconds of silence. Raises UsageError for what is no program."""

    def __init__(self, program: str, timeout: float):
        try:
            self.words = shlex.split(program)
        except ValueError as error:
            raise click.UsageError(f"cmd:{program}: {error}") from error
        if not self.words or shutil.which(self.words[0]) is None:
            raise click.UsageError(f"cmd:{program}: {self.words[0] if self.words else 'nothing'}: no such program")
        self.timeout = timeout
        self.process: subprocess.Popen[bytes] | None = None
        self.lines: deque[bytes] = deque()  # that it has written, and nobody has taken
        self.rest = b""  # what it has written of the next one

    def answers(self, requests: Sequence[bytes]) -> Iterator[bytes]:
        """The line that it writes for each request, as they come. Raises WorkerFailure; then `end` it."""
        if self.process:
            self._must_be_silent()
        process = self.process = self.process or self._start()
        assert process.stdin and process.stdout
        unsent = memoryview(b"".join(requests))
        with selectors.DefaultSelector() as ready:
            ready.register(process.stdout, selectors.EVENT_READ)
            ready.register(process.stdin, selectors.EVENT_WRITE)
            for _ in requests:
                while not self.lines:
                    there = [key.fileobj for key, _ in ready.select(self.timeout)]
                    if not there:
                        raise WorkerFailure(f"silent for {self.timeout:g} s; does it keep its lines in a buffer? "
                                            "(jq --unbuffered, mawk -W interactive, stdbuf -oL)")
                    if process.stdin in there:
                        unsent = self._write(unsent)
                        if not unsent:
                            ready.unregister(process.stdin)
                    if process.stdout in there and not self._read():
                        raise WorkerFailure(self._end_in_words())
                yield self.lines.popleft()
        if self.lines or self.rest.strip():
            raise WorkerFailure("wrote more lines than it was given")

    def finish(self) -> None:
        """No line will follow: let it end. Raises WorkerFailure if it had written more lines than it was given."""
        process = self.process
        if process and process.stdin and process.stdout:
            process.stdin.close()
            with selectors.DefaultSelector() as ready:
                ready.register(process.stdout, selectors.EVENT_READ)
                while ready.select(GRACE) and self._read():
                    pass
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE)
        more = bool(self.rest.strip() or any(map(bytes.strip, self.lines)))
        self.end()
        if more:
            raise WorkerFailure(f"wrote more lines than it was given{MISPLACED}")

    def end(self) -> None:
        """End it now, with all that it has started; asked again, it is started anew."""
        process, self.process, self.rest = self.process, None, b""
        self.lines.clear()
        if process:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe:
                    pipe.close()

    def _start(self) -> subprocess.Popen[bytes]:
        """In a session of its own: Control-C is the command's, which ends it."""
        library = ctypes.CDLL(None) if sys.platform == "linux" else None

        def die_with_the_command() -> None:  # where that is killed and can end nothing any more
            if library:
                library.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

        environment = {"PYTHONUNBUFFERED": "1", **os.environ}
        try:
            process = subprocess.Popen(self.words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0,
                                       env=environment, start_new_session=True, preexec_fn=die_with_the_command)
        except OSError as error:
            raise WorkerFailure(f"cannot be started: {error.strerror}") from error
        assert process.stdin
        os.set_blocking(process.stdin.fileno(), False)
        return process

    def _write(self, unsent: memoryview) -> memoryview:
        """What is still to be sent after as much as the pipe takes; nothing to one that reads no more."""
        assert self.process and self.process.stdin
        try:
            return unsent[os.write(self.process.stdin.fileno(), unsent[:PIECE]):]
        except BlockingIOError:
            return unsent
        except BrokenPipeError:  # its output says more
            return memoryview(b"")

    def _read(self) -> bool:
        """Take what it has written; False where it will write no more. Raises WorkerFailure for an endless line."""
        assert self.process and self.process.stdout
        piece = os.read(self.process.stdout.fileno(), PIECE)
        *lines, self.rest = (self.rest + piece).split(b"\n")
        self.lines.extend(lines)
        if not piece and self.rest:  # the last line without its newline
            self.lines.append(self.rest)
            self.rest = b""
            return True
        if len(self.rest) > PIECE:
            raise WorkerFailure(f"wrote a line of more than {PIECE:,} bytes")
        return bool(piece)

    def _must_be_silent(self) -> None:
        """Raises WorkerFailure where it has written something since it was answered last."""
        assert self.process and self.process.stdout
        with selectors.DefaultSelector() as ready:
            ready.register(self.process.stdout, selectors.EVENT_READ)
            if ready.select(0) and self._read() and (self.lines or self.rest.strip()):
                raise WorkerFailure(f"wrote a line that it had not been asked for{MISPLACED}")

    def _end_in_words(self) -> str:
        """How it has ended."""
        assert self.process
        try:
            code = self.process.wait(GRACE)
        except subprocess.TimeoutExpired:
            return "closed its output"
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
