"""Where bytes leave for: at once; what a killed run left behind them goes with the first of them."""

import os

import pytest

from alignlib.records.disk import DiskFull, StateError
from alignlib.records.output import HELD, Output
from helpers.disks import file_limit


def test_what_stands_behind_goes_with_the_first_bytes_and_not_before(tmp_path):
    file = tmp_path / "out"
    file.write_bytes(b"one\ntorn")
    output = Output(str(file), at=4)
    assert file.read_bytes() == b"one\ntorn"
    output.write(b"two\n")
    assert file.read_bytes() == b"one\ntwo\n" and output.at == 8
    output.close(begun=True)
    assert file.read_bytes() == b"one\ntwo\n"


def test_a_run_that_wrote_nothing_leaves_a_file_as_it_was(tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_bytes(b"kept")
    for file in (old, new):
        Output(str(file)).close(begun=False)
    assert old.read_bytes() == b"kept" and not new.exists()


def test_a_run_without_records_leaves_an_empty_file(tmp_path):
    file = tmp_path / "out"
    file.write_bytes(b"of an earlier run")
    Output(str(file)).close(begun=True)
    assert file.read_bytes() == b""


def test_what_is_held_is_written_together(tmp_path):
    file = tmp_path / "out"
    output = Output(str(file))
    for part in (b"one\n", b"two\n"):
        output.hold(part)
    assert file.read_bytes() == b"" and output.at == 0  # of what is in the file
    output.flush()
    assert file.read_bytes() == b"one\ntwo\n" and output.at == 8 and not output.held
    output.hold(b"x" * HELD)
    assert file.stat().st_size == 8 + HELD  # enough for a write
    output.hold(b"last")
    output.close(begun=True)
    assert file.read_bytes().endswith(b"xlast")


def test_a_file_that_has_become_shorter_is_refused(tmp_path):
    file = tmp_path / "out"
    file.write_bytes(b"one")
    with pytest.raises(StateError, match="it has become shorter"):
        Output(str(file), at=4)


def test_a_file_is_one_runs_alone(tmp_path):
    file, link = tmp_path / "out", tmp_path / "link"
    link.symlink_to("out")
    first = Output(str(file))
    os.link(file, tmp_path / "same")
    for name in ("out", "link", "same"):
        with pytest.raises(StateError, match=f"{name}: another run is writing it"):
            Output(str(tmp_path / name))
    first.write(b"one\n")
    first.close(begun=True)
    assert file.read_bytes() == b"one\n" and link.is_symlink()
    assert not Output(str(link)).lock.new


def test_a_full_disk_is_named_and_what_it_had_no_space_for_goes(tmp_path):
    for name, before in (("new", None), ("old", b"of an earlier run")):
        if before:
            (tmp_path / name).write_bytes(before)
        output = Output(str(tmp_path / name))
        with file_limit(1000), pytest.raises(DiskFull, match=f"^file too large: {tmp_path}$"):
            output.write(bytes(2000))
        output.close(begun=False)
    assert list(tmp_path.iterdir()) == []


def test_a_refused_file_is_not_made(tmp_path):
    with pytest.raises(StateError, match="it has become shorter"):
        Output(str(tmp_path / "out"), at=4)
    with pytest.raises(StateError, match="none/out: no such folder"):
        Output(str(tmp_path / "none" / "out"))
    assert list(tmp_path.iterdir()) == []


def test_what_is_open_already_is_gone_on_with_where_it_stands(tmp_path):
    """As /dev/stdout is, where the shell has sent it into a file: what others have written there stays."""
    with open(tmp_path / "file", "wb", buffering=0) as handle:
        handle.write(b"before\n")
        output = Output(f"/dev/fd/{handle.fileno()}")
        output.write(b"line\n")
        output.close(begun=True)
        handle.write(b"after\n")
    assert (tmp_path / "file").read_bytes() == b"before\nline\nafter\n"
    with pytest.raises(DiskFull, match="^no space left on device: /dev$"):
        Output("/dev/full").write(b"line\n")
