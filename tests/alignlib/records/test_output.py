"""Where bytes leave for: at once; what a killed run left behind them goes with the first of them."""

import os

import pytest

from alignlib.records.output import HELD, Output, StateError, regular


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


def test_only_files_can_be_gone_on_with(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_bytes(b"")
    assert [regular(str(tmp_path / name)) for name in ("file", "new", "pipe")] == [True, True, False]
    assert not regular("/dev/null")
