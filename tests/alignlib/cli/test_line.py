"""The line of a bar: one at a time on a terminal, its rate in words."""

import re

import pytest

from alignlib.cli.line import Line, open_again
from helpers.terminal import Terminal


@pytest.fixture
def terminal():
    terminal = Terminal()
    yield terminal
    terminal.close()


def line(stream, name, total, leave=False, **settings):
    """As another process would have it: it knows of no other, and has a lock of its own."""
    return Line(stream, "steps", total=total, desc=name, leave=leave, position=0, **settings)


def names(terminal):
    """Whose line was drawn, each time, but for the same one again."""
    drawn = [text.split(":")[0] for text in terminal.drawn]
    return [name for i, name in enumerate(drawn) if drawn[i - 1:i] != [name]]


def test_the_first_line_stays_till_its_end_and_another_follows(terminal):
    with open(terminal.theirs, "w", closefd=False) as stream:
        first, second = line(stream, "first", 3), line(stream, "second", 5)
        second.refresh(), first.refresh(), second.refresh()
        first.close()
        second.refresh(), second.close()
    terminal.close()
    assert names(terminal) == ["first", "second"] and terminal.screen == [""]


def test_one_that_counts_nothing_yet_makes_way(terminal):
    with open(terminal.theirs, "w", closefd=False) as stream:
        unknown = line(stream, "unknown", None)
        known = line(stream, "known", 5)
        unknown.update(3), unknown.refresh()
        known.close()
        unknown.refresh()
        another = line(stream, "another", 5)
        another.refresh(), unknown.close(), another.close()
    terminal.close()
    assert names(terminal) == ["unknown", "known", "unknown"]


def test_one_that_tells_something_makes_way_for_none(terminal):
    """Nor is it wiped off where another ends."""
    with open(terminal.theirs, "w", closefd=False) as stream:
        nothing = line(stream, "at work, and that for quite a while", None)
        loading = line(stream, "loading", None, tells=True)
        nothing.refresh(), nothing.close()
        counted = line(stream, "counted", 5)
        loading.refresh(), loading.close(), counted.close()
    terminal.close()
    assert names(terminal) == ["at work, and that for quite a while", "loading"] and terminal.screen == [""]
    shown = [text for text in terminal.seen if text.startswith("loading")]
    assert shown and not any("while" in text for text in shown)


def test_of_two_that_tell_nothing_no_remains_are_seen(terminal):
    with open(terminal.theirs, "w", closefd=False) as stream:
        both = [line(stream, name, None) for name in ("a line that is a long one", "short")]
        for shown in both * 2:
            shown.refresh()
        both[0].close(), both[1].close()
    terminal.close()
    shorts = [text for text in terminal.seen if text.startswith("short")]
    assert len(shorts) >= 3 and all(text.count("[") == text.count("]") == 1 for text in shorts)
    assert terminal.screen == [""]


def test_what_stays_is_drawn_at_its_end_in_any_case(terminal):
    with open(terminal.theirs, "w", closefd=False) as stream:
        first, second = line(stream, "first", 3), line(stream, "second", 5, leave=True)
        second.close(), first.close()
    terminal.close()
    assert terminal.screen[0].startswith("second:   0%|") and terminal.screen[1:] == [""]


@pytest.mark.parametrize(("total", "count"), [(10, r"\| 4/10 \[00:0{}<00:\d\d"), (None, r"al-test: 4 steps \[00:0{}")])
@pytest.mark.parametrize(("seconds", "rate"), [(8, "2.00s/step"), (2, "2.00 steps/s")])
def test_a_slow_rate_is_seconds_a_step(terminal, seconds, rate, total, count, monkeypatch):
    with open(terminal.theirs, "w", closefd=False) as stream:
        shown = line(stream, "al-test", total)
        monkeypatch.setattr(shown, "_time", lambda: shown.start_t + seconds)
        shown.update(4), shown.refresh(), shown.close()
    terminal.close()
    assert re.search(rf"{count.format(seconds)}, +{rate}\]", terminal.written)


def test_a_terminal_without_a_name_has_no_lock(tmp_path):
    with open(tmp_path / "file", "w") as file:
        assert open_again(file) is None
        one, two = line(file, "one", 2), line(file, "two", 2)
        assert one.take_terminal() and two.take_terminal()
        one.close(), two.close()
