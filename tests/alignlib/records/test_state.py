"""A filter's memory beside its output: what a killed run said, or that it had nothing to say."""

import gzip

import pytest

from alignlib.records.disk import DiskFull, StateError
from alignlib.records.state import BYTES, FIELDS, NOTHING, PIECE, PLACES, State, parse, sample, state_path
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


# -- the input ---------------------------------------------------------------------------------------------------

LONG = bytes(range(256)) * (3 * PIECE // 256) * PLACES  # of which not every byte is looked at


def resumed(tmp_path, files: list[str]) -> dict:
    state = State(str(tmp_path / "out"), files)
    try:
        said = state.read(resume=True)
        state.must_be_of(files)
        return said
    finally:
        state.close(done=False)


def killed_over(tmp_path, data: bytes) -> list[str]:
    """A run over an input was killed: its files."""
    (tmp_path / "in").write_bytes(data)
    state = State(str(tmp_path / "out"), [str(tmp_path / "in")])
    state.write(SAID)
    state.close(done=False)
    return [str(tmp_path / "in")]


@pytest.mark.parametrize("data", [b"", b"{}\n", LONG])
def test_the_same_input_is_known_again_by_its_bytes(tmp_path, data):
    """Longer than it was too, in several files too."""
    files = killed_over(tmp_path, data)
    assert resumed(tmp_path, files) == SAID
    (tmp_path / "in").write_bytes(data + b'{"one": "more"}\n')
    assert resumed(tmp_path, files) == SAID
    (tmp_path / "in").write_bytes(data[:len(data) // 2])
    (tmp_path / "rest").write_bytes(data[len(data) // 2:])
    assert resumed(tmp_path, [*files, str(tmp_path / "rest")]) == SAID


@pytest.mark.parametrize("data, words", [(LONG[:-1], "become shorter"), (LONG[:-1] + b"!", "changed"), (b"", "shorter"),
                                         (b"!" + LONG[1:], "changed"), (LONG[:len(LONG) // 2] * 3, "changed")])
def test_another_input_that_begins_the_same_is_refused(tmp_path, data, words):
    files = killed_over(tmp_path, LONG[:-256] + LONG[1000:1256])
    (tmp_path / "in").write_bytes(data)
    with pytest.raises(StateError, match=f"out: cannot resume: the input has .*{words}"):
        resumed(tmp_path, files)


def test_what_can_be_read_once_only_or_may_be_unpacked_is_not_looked_at(tmp_path):
    files = killed_over(tmp_path, LONG)
    with gzip.open(tmp_path / "in.gz", "wb") as file:
        file.write(LONG[:10])
    for other in ("/dev/null", str(tmp_path / "in.gz"), str(tmp_path / "none")):
        assert sample([*files, other]) is None
        assert resumed(tmp_path, [other]) == SAID


def test_a_state_has_room_for_the_largest_numbers(tmp_path):
    killed_over(tmp_path, LONG)
    most = {name: 1 << 62 for name in FIELDS} | {"key": "f" * 32, "crc": 1 << 32, "crc_before": 1 << 32,
                                                 "put_aside": 1 << 32}
    state = State(str(tmp_path / "other"), [str(tmp_path / "in")])
    state.input = [1 << 62, "f" * 32]
    state.write(most)
    assert state_path(str(tmp_path / "other")).stat().st_size == BYTES
    state.close(done=True)
