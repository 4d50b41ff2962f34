"""A finished output that was cut afterwards is not taken for a complete one."""

import pytest

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


def test_standard_input_cannot_be_counted(tmp_path):
    (tmp_path / "out").write_text(LINE)
    must_be_whole(str(tmp_path / "out"), ["-"], 1, aside=False, rejects=None, part=False)
