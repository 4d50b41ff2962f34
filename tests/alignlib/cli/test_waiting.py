"""The line of what goes on: what is on the terminal while it does, and that nothing of it stays."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr

import pytest

from alignlib import waits
from alignlib.cli import bars, waiting
from helpers.commands import folders, lines, rewarded
from helpers.process import environment
from helpers.terminal import Terminal


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(waiting, "PATIENCE", 0.0)
    monkeypatch.setattr(waiting, "TICK", 0.001)
    monkeypatch.setattr(waits, "shown", waits.shown)


@contextmanager
def at_terminal() -> Iterator[Terminal]:
    """Standard error is a terminal, all of which has been read afterwards."""
    terminal = Terminal()
    try:
        with open(terminal.theirs, "w", closefd=False) as stream, redirect_stderr(stream):
            waiting.watch("al-test")
            yield terminal
            assert sys.stderr is stream  # as it was before any line
    finally:
        terminal.close()


def wait_for(terminal: Terminal, text: str, times: int = 1) -> None:
    while terminal.written.count(text) < times:
        time.sleep(0.001)


def test_the_innermost_is_shown_and_nothing_stays():
    with at_terminal() as terminal:
        with waits.doing("at work"):
            wait_for(terminal, "al-test [0 s]: at work")
            with waits.doing("loading sft"):
                wait_for(terminal, "al-test [0 s]: loading sft")
            wait_for(terminal, "al-test [0 s]: at work", 2)
    assert terminal.screen == [""]


KEPT = """
import sys, time
from alignlib import waits
from alignlib.cli import waiting

waiting.PATIENCE = 0.0
waiting.watch("al-test")
with waits.doing("loading"):
    while sys.stderr is sys.__stderr__:
        time.sleep(0.01)
    sys.kept = sys.stderr  # as a library's log keeps what it found
    print("a word", end="", file=sys.kept)
print(", another", end="", file=sys.kept)
"""


def test_who_kept_its_stream_goes_on_writing_and_nothing_complains_at_the_end():
    terminal = Terminal()
    done = subprocess.run([sys.executable, "-c", KEPT], env=environment(), stderr=terminal.theirs)
    terminal.close()
    assert done.returncode == 0 and terminal.screen == ["a word, another"]


def test_a_second_one_after_the_first():
    with at_terminal() as terminal:
        for text in ("loading a", "loading b"):
            with waits.doing(text):
                wait_for(terminal, f"al-test [0 s]: {text}")
    assert terminal.screen == [""]


def test_what_is_printed_meanwhile_stands_above_it():
    with at_terminal() as terminal:
        with waits.doing("loading"):
            wait_for(terminal, "loading")
            print("warning: mind this", file=sys.stderr)
            wait_for(terminal, "loading", 2)
    assert terminal.screen == ["warning: mind this", ""]


def test_a_bar_takes_its_place_and_gives_it_back():
    with at_terminal() as terminal:
        with waits.doing("loading"):
            wait_for(terminal, "loading")
            with bars.Bar(2, name="al-test", unit="records", where=bars.terminal(sys.stderr)) as bar:
                wait_for(terminal, "0/2")
                shown = terminal.written.count("loading")
                for done in range(2):
                    bar.reach(done)
                    bar.say("half way")
                wait_for(terminal, "half way", 2)
                assert terminal.written.count("loading") == shown
            wait_for(terminal, "loading", shown + 1)
    assert terminal.screen == [""]


def test_hushed_it_stays_away():
    with at_terminal() as terminal:
        with waits.doing("loading"):
            wait_for(terminal, "loading")
            waits.hush()
            with waits.doing("more"):
                os.write(terminal.theirs, b"typed")
                wait_for(terminal, "typed")
    assert "more" not in terminal.written and terminal.screen == ["typed"]


def test_a_failure_leaves_the_terminal_clean():
    with at_terminal() as terminal:
        with pytest.raises(KeyboardInterrupt), waits.doing("loading"):
            wait_for(terminal, "loading")
            raise KeyboardInterrupt
    assert terminal.screen == [""]


def test_without_a_terminal_nothing_is_shown(monkeypatch, tmp_path):
    monkeypatch.setattr(waits, "shown", waits.shown)
    with open(tmp_path / "log", "w") as log:
        monkeypatch.setattr(sys, "stderr", log)
        waiting.watch("al-test")
    assert isinstance(waits.shown, waits.Nobody)


def test_of_several_ranks_the_first_shows_it(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(waits, "shown", waits.shown)
    with open(terminal.theirs, "w", closefd=False) as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        for rank, kind in (("1", waits.Nobody), ("0", waiting.Watch)):
            monkeypatch.setenv("RANK", rank)
            waiting.watch("al-test")
            assert isinstance(waits.shown, kind)
    terminal.close()


@pytest.mark.slow
def test_a_real_command_shows_it_and_leaves_its_summary_alone(tmp_path):
    """From the import of torch on; nothing stays."""
    (tmp_path / "in").write_bytes(lines(*rewarded(3)))
    code = ("from alignlib.cli import waiting; waiting.PATIENCE = 0; from al_score import main; "
            f"main({[folders().reward, str(tmp_path / 'in'), '-o', str(tmp_path / 'out')]}, 'al-score')")
    terminal = Terminal()
    done = subprocess.run([sys.executable, "-c", code], env=environment(), stderr=terminal.theirs)
    terminal.close()
    assert done.returncode == 0 and "s]: at work" in terminal.written
    summary, prompt = terminal.screen
    assert summary.startswith("al-score: 3 records, ") and prompt == ""
