"""A bar: its line on a terminal, what stays of it, what is printed meanwhile."""

import re
import sys
from contextlib import contextmanager, redirect_stderr

import pytest

from alignlib.cli import bars
from helpers.terminal import Terminal

RATE = r"[ \d.]+(records/s|s/ records)"
SETTINGS = {"name": "al-test", "unit": "records"}


@pytest.fixture
def terminal():
    terminal = Terminal()
    yield terminal
    terminal.close()


@contextmanager
def at(terminal):
    """Standard error is the terminal, all of which has been read afterwards."""
    with open(terminal.theirs, "w", closefd=False) as stream, redirect_stderr(stream):
        yield
        assert sys.stderr is stream  # as it was before any bar
    terminal.close()


def bar(total, done=0, **settings):
    return bars.Bar(total, done, where=bars.terminal(sys.stderr), **SETTINGS, **settings)


def test_no_terminal_no_bar(capsys):
    with bar(3) as nothing:
        with nothing.aside(), nothing.during("saving"):
            nothing.reach(2, "loss=1")
        nothing.say("more"), nothing.note("a line")
    assert bars.terminal(sys.stderr, sys.stdout) is None and capsys.readouterr() == ("", "")


def test_the_first_terminal_is_where_it_goes(terminal, tmp_path):
    with open(tmp_path / "file", "w") as file, at(terminal):
        assert bars.terminal(file, sys.stderr) is sys.stderr and bars.terminal(file) is None


def test_how_far_it_is_and_what_is_left_of_it(terminal):
    with at(terminal), bar(4, 1) as shown:
        shown.reach(3)
        shown.say("half way")  # drawn at once
    first, last = terminal.drawn[0], terminal.drawn[-1]
    assert re.fullmatch(r"al-test:  25%\|.*\| 1/4 \[00:\d\d<\?, \? records/s\]", first)
    assert re.fullmatch(rf"al-test:  75%\|.*\| 3/4 \[00:\d\d<00:\d\d,{RATE}, half way\]", last)
    assert terminal.screen == [""]


def test_a_terminal_of_no_size_has_80_columns():
    terminal = Terminal(0, 0)  # a new one, until somebody says
    with at(terminal), bar(4) as shown:
        shown.reach(3)
        shown.say("half way")
    assert re.fullmatch(r"al-test:  75%\|.+\| 3/4 \[.*, half way\]", terminal.drawn[-1])
    assert len(terminal.drawn[-1]) == 79


def test_the_count_so_far_where_nobody_knows_how_many_there_are(terminal):
    with at(terminal), bar(None, stays=True) as shown:
        shown.reach(7, "loss=1.5")
    line, prompt = terminal.screen
    assert re.fullmatch(rf"al-test: 7 records \[00:\d\d,{RATE}, loss=1\.5\]", line) and prompt == ""


def test_what_is_printed_meanwhile_stands_above_it(terminal):
    with at(terminal), bar(2, stays=True) as shown:
        print("one line,", "in parts", file=sys.stderr)
        shown.note("step 1: fine")
        shown.reach(2)
    assert terminal.screen[:2] == ["one line, in parts", "step 1: fine"]
    assert terminal.screen[2].startswith("al-test: 100%|") and terminal.screen[3:] == [""]


def test_what_goes_on_meanwhile_is_said_and_forgotten(terminal):
    with at(terminal), bar(2, stays=True) as shown:
        shown.reach(1, "loss=2")
        with shown.during("saving"):
            pass
        shown.reach(2)
    assert any(line.endswith(", saving]") for line in terminal.drawn)
    assert terminal.screen[0].endswith(", loss=2]")


def test_a_failure_leaves_the_terminal_clean(terminal):
    with at(terminal), pytest.raises(KeyboardInterrupt), bar(2) as shown, shown.aside():
        raise KeyboardInterrupt
    assert "0/2" in terminal.written and terminal.screen == [""]


def test_input_that_is_typed_is_known(terminal, monkeypatch, tmp_path):
    with open(terminal.theirs, closefd=False) as keyboard:
        monkeypatch.setattr(sys, "stdin", keyboard)
        assert bars.typed(()) and bars.typed(["a", "-"]) and not bars.typed(["a"])
    (tmp_path / "a").touch()
    with open(tmp_path / "a") as file:
        monkeypatch.setattr(sys, "stdin", file)
        assert not bars.typed(())
    monkeypatch.setattr(sys, "stdin", None)  # closed
    assert not bars.typed(())
