"""Where a run's examples lie: written once, taken up whole or not at all, gone at the end and after a failure."""

import errno
import fcntl
import json
import os
import subprocess
import sys

import click
import pytest

from alignlib.records.disk import Held
from alignlib.training.run_folder import Run
from alignlib.training.store import Store
from helpers import tiny
from helpers.commands import folders, lines, log, one_line, pairs, run, weights
from helpers.process import environment

GIVEN = [tiny.example(3, 4), tiny.example(2, 5, seed=1), tiny.example(5, 1, seed=2)]
FOUND = {"counts": [2, 1], "crcs": [1, 2], "skipped": 0, "cut": {}, "names": []}


def run_in(folder, **changes) -> Run:
    return Run(tiny.recipe(folder, **{"resume": folder.exists(), **changes}), {"command": "test"})


def filled(folder, found=FOUND, **changes) -> Store:
    store = Store(run_in(folder, **changes))
    with store.writing() as writer:
        for example in GIVEN:
            writer.add(example)
        store.finish(writer, found)
    return store


def left(store: Store) -> None:
    """As after a kill: the process that has locked it is no more."""
    store._lock.close()


def test_what_is_written_is_there_for_all(tmp_path):
    store = filled(tmp_path / "deep" / "run")
    assert store.mine and {file.name for file in store.folder.iterdir()} == {"ids", "numbers", "found.json", "lock"}
    examples, held_out = store.open()
    assert list(examples) == GIVEN[:2] and list(held_out) == GIVEN[2:] and store.found["crcs"] == [1, 2]


def test_at_the_end_nothing_of_it_is_left_and_what_is_mapped_stays(tmp_path):
    store = filled(tmp_path / "deep" / "run")
    examples, _ = store.open()
    store.remove()
    assert list(tmp_path.iterdir()) == [] and list(examples) == GIVEN[:2]


def test_a_failure_leaves_nothing_but_what_was_there(tmp_path):
    (tmp_path / "there").mkdir()
    for folder in (tmp_path / "new" / "run", tmp_path / "there"):
        with pytest.raises(ZeroDivisionError), Store(run_in(folder)).writing() as writer:
            writer.add(GIVEN[0])
            raise ZeroDivisionError
    assert list(tmp_path.rglob("*")) == [tmp_path / "there"]


def test_a_resumed_run_takes_up_what_is_whole(tmp_path):
    folder = tmp_path / "run"
    left(filled(folder))
    store = Store(run_in(folder))
    assert store.take_up() and store.found["counts"] == [2, 1]
    left(store)
    assert not Store(run_in(folder, seed=1)).take_up()  # of other options
    for name, damage in (("ids", b"12345678"), ("numbers", b""), ("found.json", b'{"files": {"ids": [8'),
                         ("found.json", b"{}")):
        store = Store(run_in(folder))
        whole = (store.folder / name).read_bytes()
        (store.folder / name).write_bytes(damage)
        assert not store.take_up(), name
        left(store)
        (store.folder / name).write_bytes(whole)
    (folder / ".examples" / "found.json").unlink()
    assert not Store(run_in(folder)).take_up()


def test_while_a_run_reads_no_other_does(tmp_path):
    folder = tmp_path / "run"
    store = filled(folder)
    for attempt in (lambda other: other.take_up(), lambda other: other.writing().__enter__()):
        with pytest.raises(click.UsageError, match="another run is writing it"):
            attempt(Store(run_in(folder)))
    assert [list(part) for part in store.open()] == [GIVEN[:2], GIVEN[2:]]


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS])
def test_where_there_are_no_locks_it_reads_without(number, tmp_path, monkeypatch):
    """NFS and Lustre may have none."""
    def none(*args):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", none)
    filled(tmp_path / "run")
    assert Store(run_in(tmp_path / "run")).take_up()


def keep_as_nfs_does(monkeypatch):
    """What is open stays in its folder under another name, till it is closed; the files of a store stand for it."""
    unlink, close = os.unlink, Held.close

    def rename(path, *, dir_fd=None):
        if os.path.basename(path) in ("ids", "numbers", "lock"):
            return os.rename(path, f".nfs-{path}", src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
        if os.path.basename(path).startswith(".nfs-"):
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        return unlink(path, dir_fd=dir_fd)

    def close_and_remove(held):
        close(held)
        if os.path.exists(kept := os.path.join(os.path.dirname(held.path), ".nfs-lock")):
            unlink(kept)

    monkeypatch.setattr(os, "unlink", rename)
    monkeypatch.setattr(Held, "close", close_and_remove)


def test_what_nfs_keeps_while_it_is_open_fails_no_run(tmp_path, monkeypatch):
    """One that is complete, one that begins after another was killed."""
    keep_as_nfs_does(monkeypatch)
    store = filled(tmp_path / "run")
    store.open()
    store.run._tidy()
    store.remove()
    assert sorted(path.name for path in store.folder.iterdir()) == [".nfs-ids", ".nfs-lock", ".nfs-numbers"]
    killed = Store(run_in(tmp_path / "other"))
    killed.folder.mkdir(parents=True)
    killed.lock()
    left(killed)
    run_in(tmp_path / "other", resume=False)
    assert not list((tmp_path / "other").iterdir())


def test_another_fault_of_a_lock_is_one(tmp_path, monkeypatch):
    def fails(*args):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(fcntl, "flock", fails)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        filled(tmp_path / "run")


def test_further_machines_have_files_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr("alignlib.ranks.reader", lambda: 4)
    monkeypatch.setattr("alignlib.ranks.rank", lambda: 5)
    store = Store(run_in(tmp_path / "run"))
    assert store.folder.name == ".examples-4" and not store.mine
    store.remove()  # not its own
    monkeypatch.setattr("alignlib.ranks.rank", lambda: 4)
    assert filled(tmp_path / "run").folder.name == ".examples-4"


def test_a_run_that_was_killed_while_it_read_reads_anew(tmp_path):
    folder = tmp_path / "run"
    store = Store(run_in(folder))
    killed = store.writing()
    killed.__enter__().add(GIVEN[0])
    left(store)
    assert [path.name for path in folder.iterdir()] == [".examples"]
    store = Store(run_in(folder))
    assert not store.take_up()
    run_in(folder, resume=False)
    assert not list(folder.iterdir())
    assert [list(part) for part in filled(folder).open()] == [GIVEN[:2], GIVEN[2:]]


@pytest.mark.slow
def test_a_full_disk_while_reading_leaves_nothing_and_names_the_folder(tmp_path):
    """A limit on the size of files stands for it: the system refuses the bytes beyond."""
    texts = tmp_path / "texts.jsonl"
    texts.write_bytes(lines(*pairs(100)) * 40)
    program = ("import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
               "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16)); "
               "from al_sft import main; main(sys.argv[1:], prog_name='al-sft')")
    done = subprocess.run([sys.executable, "-c", program, folders().policy, texts, "-o", tmp_path / "deep" / "run"],
                          env=environment(), capture_output=True, text=True)
    assert done.returncode == 1 and one_line(done.stderr).endswith(f": {tmp_path}/deep/run")
    assert not (tmp_path / "deep").exists()


TRAINERS = {
    "al-sft": ("policy", (), ()),
    "al-train-rm": ("reward", ("--more",), ({"domain": "a"}, {"domain": "b"})),
    "al-train-exo": ("policy", ("--loss", "dpo-pref"), ()),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["al-train-rm", *(pytest.param(name, marks=pytest.mark.long)
                                                    for name in ("al-sft", "al-train-exo"))])
def test_a_resumed_run_reads_no_text_again(name, tmp_path):
    """Killed while it trains; then its tokenizer is asked for nothing, and the weights are an unbroken run's."""
    model, args, more = TRAINERS[name]
    model = getattr(folders(), model)
    given = tmp_path / "given.jsonl"
    given.write_bytes(lines(*({**record, **(more[i % 2] if more else {})} for i, record in enumerate(pairs(8)))))
    args = (model, given, "--eval", given, "--steps", 4, "--batch-size", 3, "--save-every", 1, "--lr", "1e-3", *args)
    assert run(name, *args, "-o", tmp_path / "whole").returncode == 0
    stop = ("import sys\nfrom {module} import main\nfrom alignlib.training import run_folder\n"
            "from alignlib.models.encoding import Encoder\n{fault}\nmain(sys.argv[1:], prog_name={name!r})")

    def faulty(fault, *options):
        program = stop.format(module=name.replace("-", "_"), fault=fault, name=name)
        return subprocess.run([sys.executable, "-c", program, *map(str, args), "-o", str(tmp_path / "run"), *options],
                              env=environment(), capture_output=True, text=True)

    died = faulty("import os\nsave = run_folder.Run.save\n"
                  "def save_and_die(self, *rest, **more):\n    save(self, *rest, **more)\n    os._exit(9)\n"
                  "run_folder.Run.save = save_and_die")
    assert died.returncode == 9 and (tmp_path / "run" / ".examples" / "found.json").exists()
    done = faulty("Encoder.encode = None", "--resume")
    assert done.returncode == 0, done.stderr
    assert weights(tmp_path / "run") == weights(tmp_path / "whole") and log(tmp_path / "run") == log(tmp_path / "whole")
    assert not (tmp_path / "run" / ".examples").exists()
    finals = [json.loads((tmp_path / place / "run.json").read_text())["final"] for place in ("run", "whole")]
    assert finals[0]["loss"] == finals[1]["loss"]


@pytest.mark.slow
def test_cut_files_are_read_anew_and_other_input_is_refused(tmp_path):
    given, other = tmp_path / "given.jsonl", tmp_path / "other.jsonl"
    given.write_bytes(lines(*pairs(8))), other.write_bytes(lines(*pairs(7)))
    args = (folders().policy, "--steps", 4, "--batch-size", 3, "--save-every", 1, "--lr", "1e-3", "--keep", 0)
    assert run("al-sft", *args, given, "-o", tmp_path / "whole").returncode == 0
    program = ("import os, sys\nfrom al_sft import main\nfrom alignlib.training import run_folder\n"
               "save = run_folder.Run.save\n"
               "def save_and_die(self, *rest, **more):\n    save(self, *rest, **more)\n    os._exit(9)\n"
               "run_folder.Run.save = save_and_die\nmain(sys.argv[1:], prog_name='al-sft')")
    folder = tmp_path / "run"
    subprocess.run([sys.executable, "-c", program, *map(str, args), str(given), "-o", str(folder)], env=environment(),
                   capture_output=True)
    for damage in (lambda: None, lambda: (folder / ".examples" / "ids").write_bytes(b"")):
        damage()
        done = run("al-sft", *args, other, "-o", folder, "--resume")
        assert done.returncode == 2 and "cannot resume: input crc changed" in one_line(done.stderr)
    assert not (folder / ".examples").exists()  # what was read is another run's
    done = run("al-sft", *args, given, "-o", folder, "--resume")
    assert done.returncode == 0, done.stderr
    assert weights(folder) == weights(tmp_path / "whole") and log(folder) == log(tmp_path / "whole")


def test_a_start_that_fails_after_the_reading_leaves_nothing_of_it(tmp_path):
    given = lines(*({"text": "a day", "label": "sad"} for _ in range(3)))
    done = run("al-train-rm", folders().policy, "-o", tmp_path / "deep" / "run", "--loss", "classify", stdin=given)
    assert done.returncode != 0 and "one class only" in one_line(done.stderr) and not (tmp_path / "deep").exists()


def test_what_was_found_may_be_damaged_into_another_json(tmp_path):
    """It is read anew then, as where it was cut."""
    store = filled(tmp_path / "run")
    (store.folder / "found.json").write_text("[]")
    assert not store.take_up()
