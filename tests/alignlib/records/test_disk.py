"""What is written to disk: where links lead, one run at a time, whole or not there, a full disk by name."""

import errno
import fcntl
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models

from alignlib.records import disk
from alignlib.records.disk import DiskFull, Held, StateError, whole, whole_folder, writing
from alignlib.records.jsonl import DataError
from alignlib.records.output import Output
from helpers.disks import file_limit, small_disk


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# -- a full disk -------------------------------------------------------------------------------------------------


def plainly(path: Path) -> None:
    path.write_bytes(bytes(100_000))


def by_torch(path: Path) -> None:
    with open(path, "wb") as handle:
        torch.save(torch.zeros(100_000), handle)


def by_safetensors(path: Path) -> None:
    save_file({"a": torch.zeros(100_000)}, path)


def by_tokenizers(path: Path) -> None:
    Tokenizer(models.WordLevel({f"word{i}": i for i in range(9_000)}, unk_token="word0")).save(str(path))


ways = pytest.mark.parametrize("write", [plainly, by_torch, by_safetensors, by_tokenizers])


@ways
def test_a_file_that_may_not_grow_is_named(tmp_path, write):
    with pytest.raises(DiskFull) as raised, file_limit(20_000), writing(tmp_path / "file"):
        write(tmp_path / "file")
    assert str(raised.value) == f"file too large: {tmp_path}"


@ways
def test_a_full_disk_is_named(tmp_path, write):
    with small_disk(tmp_path, 64) as small, pytest.raises(DiskFull) as raised, writing(small.at):
        write(small.at / "file")
    assert str(raised.value) == f"no space left on device: {small.at}"


def test_torchs_own_writer_gives_no_reason_and_the_disk_does(tmp_path):
    """DeepSpeed saves by path."""
    with small_disk(tmp_path, 64) as small:
        with pytest.raises(DiskFull, match="^no space left on device: "), writing(small.at):
            torch.save(torch.zeros(100_000), small.at / "file")
    with pytest.raises(RuntimeError, match="inline_container"), writing(tmp_path):  # there is space
        raise RuntimeError("[enforce fail at inline_container.cc:672]")


def test_other_errors_stay_what_they_are(tmp_path):
    for error in (OSError(errno.EIO, "Input/output error"), RuntimeError("(os error 5)"), KeyError("x"),
                  DataError("in:1: unknown field: disk is full"), ValueError("(os error 28)")):
        assert disk.full(error) is None
        with pytest.raises(type(error)), writing(tmp_path):
            raise error
    assert disk.full(OSError(errno.EDQUOT, "")) == errno.EDQUOT
    assert disk.full(sqlite3.OperationalError("database or disk is full")) == errno.ENOSPC
    error = OSError(errno.EIO, "Input/output error")
    assert disk.named(error, "x") is error


@pytest.mark.parametrize(("path", "where"), [("a/b/file", "a/b"), ("file", "."), (None, "standard output")])
def test_the_folder_is_what_is_full(path, where):
    assert str(disk.named(OSError(errno.ENOSPC, ""), path)) == f"no space left on device: {where}"


# -- one run at a time -------------------------------------------------------------------------------------------


def test_a_file_is_one_runs_alone(tmp_path):
    first = Held(tmp_path / "file")
    assert first.new
    with pytest.raises(StateError, match="^mine: another run is writing it; give each run, and each --shard, a file"):
        Held(tmp_path / "file", shown="mine")
    first.close()
    assert not Held(tmp_path / "file").new


def test_a_file_that_some_read_is_written_by_none(tmp_path):
    first = Held(tmp_path / "file", shared=True)
    second = Held(tmp_path / "file", shared=True)
    assert first.new and not second.new and not second.alone()
    with pytest.raises(StateError, match="another run is writing it"):
        Held(tmp_path / "file")
    first.close()
    assert second.alone()
    with pytest.raises(StateError, match="another run is writing it"):
        Held(tmp_path / "file", shared=True)


HOLDS = """
import sys, time
from alignlib.records.disk import Held
held = [Held(sys.argv[1]), Held(sys.argv[2], folder=True)]
print("held", flush=True)
time.sleep(600)
"""


def test_a_lock_goes_with_a_killed_process(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLDS, tmp_path / "file", tmp_path / "folder"],
                               stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"held\n"
    for name, how in (("file", {}), ("folder", {"folder": True})):
        with pytest.raises(StateError, match=f"another run is writing it; .* a {name} of its own"):
            Held(tmp_path / name, **how)
    process.kill()
    process.communicate()
    assert not Held(tmp_path / "file").new and not Held(tmp_path / "folder", folder=True).new


@pytest.mark.parametrize("gone", [os.unlink, lambda path: os.rename(path, f"{path}.renamed")])
def test_what_goes_between_opening_and_locking_is_made_anew(tmp_path, monkeypatch, gone):
    (tmp_path / "file").write_bytes(b"of the run before")
    lock = fcntl.flock

    def lose(*args):
        monkeypatch.setattr(fcntl, "flock", lock)
        gone(tmp_path / "file")
        lock(*args)

    monkeypatch.setattr(fcntl, "flock", lose)
    held = Held(tmp_path / "file")
    assert held.new and os.path.samestat(os.fstat(held.fd), os.stat(tmp_path / "file"))


def test_where_there_are_no_locks_runs_go_on_without(tmp_path, monkeypatch):
    def none(*args):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    with whole(tmp_path / "file") as handle:
        handle.write(b"whole")
    assert (tmp_path / "file").read_bytes() == b"whole"
    assert not Held(tmp_path / "file", shared=True).alone()  # for all that one knows


def test_what_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    for make in (Held, lambda path: Held(path, folder=True), disk.make_folders):
        with pytest.raises(StateError, match="file/x: cannot be written: not a directory"):
            make(tmp_path / "file" / "x")
    with pytest.raises(StateError, match="none/x: no such folder"):
        Held(tmp_path / "none" / "x")
    long = "n" * 250
    with pytest.raises(StateError, match=f"{long}: cannot be written: file name too long"), whole(tmp_path / long):
        pass
    assert names(tmp_path) == ["file"]


def test_folders_that_were_made_are_taken_back_unless_somebody_uses_them(tmp_path):
    (tmp_path / "link").symlink_to("far")
    made = disk.make_folders(tmp_path / "link" / "a" / "b")
    assert made == [str(tmp_path / "far" / name) for name in ("a/b", "a")] + [str(tmp_path / "far")]
    (tmp_path / "far" / "other").write_bytes(b"")
    disk.remove_empty(made)
    assert names(tmp_path / "far") == ["other"]


# -- whole, or not there -----------------------------------------------------------------------------------------


def test_a_file_appears_once_it_is_whole(tmp_path):
    with whole(tmp_path / "file") as handle:
        handle.write(b"new")
        assert names(tmp_path) == ["file.partial"]
    assert names(tmp_path) == ["file"] and (tmp_path / "file").read_bytes() == b"new"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_run_that_fails_leaves_what_was_there(tmp_path, error):
    (tmp_path / "old").write_bytes(b"dear")
    for name in ("old", "new"):
        with pytest.raises(error), whole(tmp_path / name) as handle:
            handle.write(b"half")
            raise error
    assert names(tmp_path) == ["old"] and (tmp_path / "old").read_bytes() == b"dear"


def test_a_full_disk_leaves_what_was_there(tmp_path):
    (tmp_path / "old").write_bytes(b"dear")
    with file_limit(1000), pytest.raises(DiskFull, match=f"^file too large: {tmp_path}$"), \
            whole(tmp_path / "old") as handle:
        handle.write(bytes(100_000))
    assert names(tmp_path) == ["old"] and (tmp_path / "old").read_bytes() == b"dear"


def test_what_links_lead_to_is_written_and_keeps_its_mode(tmp_path):
    (tmp_path / "far").mkdir()
    for name in ("link", "dangling"):
        (tmp_path / name).symlink_to(f"far/{name}")
    (tmp_path / "far" / "link").write_bytes(b"older, and longer")
    (tmp_path / "far" / "link").chmod(0o640)
    for name in ("link", "dangling"):
        with whole(tmp_path / name) as handle:
            handle.write(b"new")
    assert all((tmp_path / name).is_symlink() for name in ("link", "dangling"))
    assert names(tmp_path / "far") == ["dangling", "link"] and (tmp_path / "far" / "link").read_bytes() == b"new"
    assert (tmp_path / "far" / "link").stat().st_mode & 0o777 == 0o640


def test_of_two_runs_the_second_ends_and_the_first_is_whole(tmp_path):
    (tmp_path / "link").symlink_to("file")
    with whole(tmp_path / "file") as handle:
        handle.write(b"first")
        with pytest.raises(StateError, match="link: another run is writing it"), whole(tmp_path / "link") as other:
            other.write(b"second")
        with pytest.raises(StateError, match="file: another run is writing it"):
            Output(str(tmp_path / "file"))
    assert names(tmp_path) == ["file", "link"] and (tmp_path / "file").read_bytes() == b"first"


def test_what_a_filter_writes_is_not_replaced(tmp_path):
    output = Output(str(tmp_path / "file"))
    with pytest.raises(StateError, match="another run is writing it"), whole(tmp_path / "file"):
        pass
    output.write(b"line\n")
    output.close(begun=True)
    assert names(tmp_path) == ["file"] and (tmp_path / "file").read_bytes() == b"line\n"
    (tmp_path / "file.state").write_bytes(b"of a killed run")
    with pytest.raises(StateError, match="an unfinished run is here: .* removing .*/file.state starts"), \
            whole(tmp_path / "file"):
        pass


def test_what_a_killed_run_left_is_taken_over(tmp_path):
    (tmp_path / "file.partial").write_bytes(b"longer than what comes now")
    with whole(tmp_path / "file") as handle:
        handle.write(b"new")
    assert names(tmp_path) == ["file"] and (tmp_path / "file").read_bytes() == b"new"


def test_devices_and_descriptors_are_written_as_they_are(tmp_path):
    (tmp_path / "file").write_bytes(b"before\n")
    with open(tmp_path / "file", "ab") as handle:
        with whole(f"/dev/fd/{handle.fileno()}") as other:
            other.write(b"between\n")
        handle.write(b"after\n")
    assert (tmp_path / "file").read_bytes() == b"before\nbetween\nafter\n"
    with whole("/dev/null") as handle:
        handle.write(b"gone")
    with pytest.raises(DiskFull, match="^no space left on device: /dev$"), whole("/dev/full") as handle:
        handle.write(b"gone")
    assert names(tmp_path) == ["file"] and not os.path.exists("/dev/null.partial")


def test_a_folder_appears_once_it_is_whole(tmp_path):
    (tmp_path / "link").symlink_to("a/b")
    with whole_folder(tmp_path / "link") as partial:
        (partial / "file").write_bytes(b"")
        assert not (tmp_path / "a" / "b").exists()
        with pytest.raises(StateError, match="b: another run is writing it; .* a folder of its own"), \
                whole_folder(tmp_path / "a" / "b"):
            pass
    assert names(tmp_path / "link") == ["file"] and names(tmp_path / "a") == ["b"]


def test_a_folder_that_fails_takes_those_above_it_along(tmp_path):
    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error), whole_folder(tmp_path / "a" / "b" / "c") as partial:
            (partial / "file").write_bytes(b"")
            raise error
    assert names(tmp_path) == []
    with file_limit(1000), pytest.raises(DiskFull, match=f"^file too large: {tmp_path}$"), \
            whole_folder(tmp_path / "model") as partial:
        by_safetensors(partial / "model.safetensors")
    assert names(tmp_path) == []


def test_a_folder_that_a_killed_run_left_is_taken_over(tmp_path):
    (tmp_path / "model.partial" / "more").mkdir(parents=True)
    (tmp_path / "model.partial" / "old").write_bytes(b"")
    with whole_folder(tmp_path / "model") as partial:
        (partial / "new").write_bytes(b"")
    assert names(tmp_path) == ["model"] and names(tmp_path / "model") == ["new"]


def test_a_folder_in_use_is_not_replaced(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in (".", "/proc"):
        with pytest.raises(StateError, match="cannot be replaced where it is in use"), whole_folder(folder):
            pass


def test_weights_get_the_mode_of_what_is_beside_them(tmp_path):
    for name, mode in (("config.json", 0o640), ("model-1.safetensors", 0o600), ("model-2.safetensors", 0o600)):
        (tmp_path / name).touch()
        (tmp_path / name).chmod(mode)
    disk.even_modes(tmp_path, "config.json")
    assert {file.stat().st_mode & 0o777 for file in tmp_path.iterdir()} == {0o640}
