"""What goes on is told to whoever shows it; where nobody does, nothing happens."""

from contextlib import contextmanager

import pytest

from alignlib import waits


class Heard:
    def __init__(self):
        self.words = []

    @contextmanager
    def doing(self, text):
        self.words.append(f"+{text}")
        try:
            yield
        finally:
            self.words.append(f"-{text}")

    def aside(self, owner):
        self.words.append(owner)

    def back(self, owner):
        raise AssertionError("what hushes never comes back")


def test_what_goes_on_begins_and_ends(monkeypatch):
    monkeypatch.setattr(waits, "shown", heard := Heard())
    with pytest.raises(KeyError), waits.doing("loading"), waits.doing("asking"):
        raise KeyError
    waits.hush()
    assert heard.words == ["+loading", "+asking", "-asking", "-loading", "for good"]


def test_nobody_is_told_where_there_is_no_terminal(capfd, monkeypatch):
    monkeypatch.setattr(waits, "shown", waits.Nobody())
    with waits.doing("loading"):
        waits.hush()
        waits.shown.aside(1), waits.shown.back(1)
    assert capfd.readouterr() == ("", "")
