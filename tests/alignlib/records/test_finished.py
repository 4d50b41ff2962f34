"""A finished output that was cut afterwards is not taken for a complete one."""

import os

import pytest

from alignlib.records import finished
from alignlib.records.disk import StateError
from alignlib.records.finished import must_be_whole

LINE = '{"n": 1}\n'


def check(tmp_path, output: str, records: int = 3, *, each: int = 1, rejects: str | None = None, aside: bool = False,
          part: bool = False) -> None:
    (tmp_path / "in").write_text(LINE * records + "\n")
    (tmp_path / "out").write_text(output)
    if rejects is not None:
        (tmp_path / "rejects").write_text(rejects)
    must_be_whole(str(tmp_path / "out"), [str(tmp_path / "in")], each, aside=aside or rejects is not None,
                  rejects=None if rejects is None else str(tmp_path / "rejects"), part=part)


@pytest.mark.parametrize("how", [
    {"output": LINE * 3}, {"output": LINE * 6, "each": 2}, {"output": LINE * 2, "rejects": "bad\n"},
    {"output": LINE, "aside": True}, {"output": LINE, "part": True}, {"output": "", "records": 0},
])
def test_a_whole_one_is_left_alone(tmp_path, how):
    check(tmp_path, **how)


@pytest.mark.parametrize("how", [
    {"output": LINE * 2}, {"output": LINE * 3 + LINE[:4]}, {"output": LINE * 2 + LINE[:-1]}, {"output": ""},
    {"output": LINE * 5, "each": 2}, {"output": LINE * 4, "each": 2}, {"output": LINE, "rejects": "bad\n"},
    {"output": LINE[:-1], "part": True}, {"output": LINE + "{", "aside": True}, {"output": LINE * 4},
])
def test_a_cut_one_is_seen(tmp_path, how):
    with pytest.raises(StateError, match="out: was finished.*(removing it|removing)"):
        check(tmp_path, **how)


def standard_input(monkeypatch, descriptor: int) -> None:
    monkeypatch.setattr("sys.stdin", open(descriptor))


def test_a_pipe_cannot_be_counted(tmp_path, monkeypatch):
    (tmp_path / "out").write_text(LINE)
    standard_input(monkeypatch, os.pipe()[0])
    must_be_whole(str(tmp_path / "out"), ["-"], 1, aside=False, rejects=None, part=False)


def test_standard_input_that_is_a_file_is_counted_and_left_to_be_read(tmp_path, monkeypatch):
    (tmp_path / "in").write_text(LINE * 2)
    (tmp_path / "out").write_text(LINE)
    descriptor = os.open(tmp_path / "in", os.O_RDONLY)
    standard_input(monkeypatch, descriptor)
    with pytest.raises(StateError, match="with 1 of the input's 2 records"):
        must_be_whole(str(tmp_path / "out"), [], 1, aside=False, rejects=None, part=False)
    assert os.read(descriptor, 100) == LINE.encode() * 2


@pytest.fixture
def attributes(tmp_path):
    (tmp_path / "any").write_text("")
    finished.mark(tmp_path / "any")
    if finished.marked(tmp_path / "any") is None:
        pytest.skip("a file system that keeps no attributes")


@pytest.mark.parametrize("how", [{"part": True}, {"aside": True}, {}])
def test_where_nothing_can_be_counted_its_own_attribute_tells(tmp_path, how, monkeypatch, attributes):
    """Of a shard, of a pipe, of records put aside nowhere: cut at a line's end, grown, or as it was."""
    output = tmp_path / "out"
    output.write_text(LINE * 3)
    finished.mark(output)
    standard_input(monkeypatch, os.pipe()[0])

    def look() -> None:
        must_be_whole(str(output), ["-"], 1, **{"aside": False, "rejects": None, "part": False, **how})

    look()
    os.truncate(output, 2 * len(LINE))
    with pytest.raises(StateError, match="out: was finished with 27 bytes, and has 18 now; removing it starts anew"):
        look()
    output.write_text(LINE * 4)
    with pytest.raises(StateError, match="was finished with 27 bytes, and has 36 now"):
        look()


def test_a_file_system_without_attributes_keeps_none(tmp_path, monkeypatch):
    (tmp_path / "out").write_text(LINE)
    monkeypatch.delattr(os, "setxattr")
    monkeypatch.delattr(os, "getxattr")
    finished.mark(tmp_path / "out")
    assert finished.marked(tmp_path / "out") is None
