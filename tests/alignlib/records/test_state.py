"""A filter's memory beside its output: what a killed run said, or that it had nothing to say."""

import pytest

from alignlib.records.disk import DiskFull, StateError
from alignlib.records.state import FIELDS, NOTHING, State, parse, state_path
from helpers.disks import file_limit

SAID = {"key": "k", "line": 3, "crc": 1, "crc_before": 2, "out": 30, "rejects": 0, "written": 3, "rejected": 0,
        "put_aside": None, "records": None}


def killed(output: str, said: dict | None) -> None:
    """Leave the state of a run that was killed; None: before it said anything."""
    state = State(output)
    if said:
        state.write(said)
    state.close(done=False)


def test_what_was_said_is_read_again(tmp_path):
    assert SAID.keys() == FIELDS.keys()
    output = str(tmp_path / "out")
    killed(output, SAID)
    with pytest.raises(StateError, match="an unfinished run is here: --resume goes on with it, removing .*/out.state"):
        State(output).read(resume=False)
    state = State(output)
    assert not state.new and state.read(resume=True) == SAID
    state.close(done=True)
    assert not state_path(output).exists()


@pytest.mark.parametrize("said", [None, {**SAID, "line": NOTHING}])
@pytest.mark.parametrize("resume", [False, True])
def test_a_run_of_which_nothing_had_left_stands_in_nobodys_way(tmp_path, said, resume):
    killed(str(tmp_path / "out"), said)
    assert State(str(tmp_path / "out")).read(resume) == {}


def test_every_name_of_an_output_finds_its_state(tmp_path):
    (tmp_path / "link").symlink_to("out")
    killed(str(tmp_path / "link"), SAID)
    assert (tmp_path / "out.state").exists()
    with pytest.raises(StateError, match="link: an unfinished run is here: .*/out.state starts anew"):
        State(str(tmp_path / "link")).read(resume=False)


def test_a_state_is_one_runs_alone(tmp_path):
    state = State(str(tmp_path / "out"))
    with pytest.raises(StateError, match="out: another run is writing it"):
        State(str(tmp_path / "out"))
    state.close(done=True)


def test_a_full_disk_is_named(tmp_path):
    state = State(str(tmp_path / "out"))
    with file_limit(0), pytest.raises(DiskFull, match=f"^file too large: {tmp_path}$"):
        state.write(SAID)


@pytest.mark.parametrize("raw", [b"{something else", b"[1]", b"null", b"{}", b'{"key": "k", "line": "2"}'])
def test_what_is_no_state_is_told_apart(raw):
    assert parse(raw) is None
