"""A program that is asked line by line, as a process: it answers, dies, is silent, writes too much, ends with us."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest

from alignlib.rewards import worker
from alignlib.rewards.worker import Worker, WorkerFailure
from helpers.process import environment

LONG = 20.0  # seconds that no test comes to


def program(code: str) -> str:
    """A command line that runs Python without its site: quick to start."""
    return f"{sys.executable} -S -c {quoted(code)}"


def quoted(text: str) -> str:
    return "'" + text.replace("'", "'\"'\"'") + "'"


ECHO = "import sys\nfor line in sys.stdin: print(len(line))"


def failure(code: str, requests=(b"a\n", b"b\n"), timeout=LONG) -> str:
    asked = Worker(program(code), timeout)
    with pytest.raises(WorkerFailure) as raised:
        list(asked.answers(requests))
    asked.end()
    return str(raised.value)


def test_one_process_answers_call_after_call():
    asked = Worker(program("import os, sys\nfor line in sys.stdin: print(os.getpid(), len(line))"), LONG)
    first, second = (list(asked.answers([b"ab\n", b"c\n"])) for _ in range(2))
    assert first == second and [line.split()[1] for line in first] == [b"3", b"2"]
    assert list(asked.answers([])) == []
    number = int(first[0].split()[0])
    asked.finish()
    with pytest.raises(ProcessLookupError):
        os.kill(number, 0)


def test_large_lines_come_through():
    """More than the pipes hold, both ways, at the same time."""
    asked = Worker(program(ECHO), LONG)
    assert list(asked.answers([b"x" * 300_000 + b"\n"] * 6)) == [b"300001"] * 6
    asked.end()
    asked = Worker(program("import sys\nfor line in sys.stdin: print('1' + ' ' * 60000)"), LONG)
    assert [line.strip() for line in asked.answers([b"x" * 60_000 + b"\n"] * 40)] == [b"1"] * 40
    asked.end()


@pytest.mark.slow
def test_how_it_ends_is_said(monkeypatch):
    assert failure("raise SystemExit(3)") == "ended with exit code 3"
    assert failure("import os; os.kill(os.getpid(), 9)") == "killed by SIGKILL"
    assert failure("print(1)") == "ended with exit code 0"  # one line for two
    assert "silent for 0.2 s" in failure("import sys; sys.stdin.read()", timeout=0.2)
    monkeypatch.setattr(worker, "GRACE", 0.1)
    assert failure("import os, sys; os.close(1); sys.stdin.read()") == "closed its output"
    more = "import sys; sys.stdout.write('1\\n' * 3); sys.stdin.read()"
    assert failure(more) == "wrote more lines than it was given"
    assert failure("import sys\nwhile True: sys.stdout.write('1' * 4096)") == "wrote a line of more than 65,536 bytes"


def test_a_line_too_many_shows_at_the_next_call_or_at_the_end():
    late = "import sys\nfor line in sys.stdin:\n    print(1)\nprint(2)"
    asked = Worker(program(late), LONG)
    assert list(asked.answers([b"a\n"])) == [b"1"]
    with pytest.raises(WorkerFailure, match="wrote more lines than it was given"):
        asked.finish()
    early = "import sys, time\nfor line in sys.stdin: print(1, flush=True), time.sleep(0.1), print(2)"
    asked = Worker(program(early), LONG)
    assert list(asked.answers([b"a\n"])) == [b"1"]
    with pytest.raises(WorkerFailure, match="wrote a line that it had not been asked for"):
        while True:
            assert list(asked.answers([])) == []
    asked.end()


def test_a_last_line_needs_no_newline():
    asked = Worker(program("import sys; input(); sys.stdout.write('7')"), LONG)
    assert list(asked.answers([b"a\n"])) == [b"7"]
    asked.end()


def test_one_that_has_failed_is_started_anew():
    asked = Worker(program("print(input())"), LONG)
    assert list(asked.answers([b"1\n"])) == [b"1"]
    with pytest.raises(WorkerFailure, match="ended with exit code 0"):
        list(asked.answers([b"2\n"]))
    asked.end()
    assert list(asked.answers([b"3\n"])) == [b"3"]
    asked.end()


@pytest.mark.parametrize(("words", "message"), [
    ("", "no such program"), ("no-such-program x", "no-such-program: no such program"), ("'", "No closing quotation")])
def test_what_is_no_program_is_refused(words, message):
    with pytest.raises(click.UsageError, match=message):
        Worker(words, 1.0)


def test_it_ends_with_the_command_however_that_ends(tmp_path):
    """Killed with SIGKILL, the command can end nothing: a program that does not read on ends all the same."""
    (tmp_path / "program.py").write_text(
        "import os, sys, time\nsys.stdin.readline()\nprint(os.getpid())\nwhile True: time.sleep(1)\n")
    code = (f"from alignlib.rewards.worker import Worker\nimport time\n"
            f"worker = Worker({f'{sys.executable} -S {tmp_path}/program.py'!r}, 60)\n"
            f"print(next(worker.answers([b'a\\n'])).decode(), flush=True)\ntime.sleep(60)")
    command = subprocess.Popen([sys.executable, "-c", code], env=environment(), stdout=subprocess.PIPE)
    number = int(command.stdout.readline())
    command.send_signal(signal.SIGKILL)
    command.communicate()
    while alive(number):
        time.sleep(0.01)


def alive(number: int) -> bool:
    """Whether the process is there, and no zombie that somebody has yet to take notice of."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
