"""What every command does where its files are another run's, or the disk is full: one line, and nothing lost or left.

The commands run in this process. A limit on the size of files stands in for a full disk; a real small one is used
where it may be mounted.
"""

import importlib
import json
from pathlib import Path

import pytest

from alignlib.records.disk import Held
from helpers.commands import folders, lines, pairs, prompts, rewarded
from helpers.disks import file_limit, small_disk

FILTERS = {
    "al-pref2rw": (lambda: [], lambda: pairs(40)),
    "al-score": (lambda: ["toy:overall"], lambda: rewarded(40)),
    "al-sample": (lambda: [folders().policy, "-m", 4], lambda: prompts(8)),
    "al-args": (lambda: [folders().policy, folders().reward, "-m", 4], lambda: prompts(4)),
    "al-label-ai": (lambda: ["--judge-rm", folders().reward], lambda: pairs(8)),
}
TRAINERS = {"al-sft": (pairs, []), "al-train-rm": (pairs, []), "al-train-exo": (rewarded, []),
            "al-train-alt": (rewarded, ["--scope", "pool"]),
            "al-train-ppo": (prompts, ["--reward", "length", "-n", 2, "-m", 4])}
DATA = {"toy": lambda at: ["toy", "--limit", 60, "-o", at / "out"],
        "new-model": lambda at: ["new-model", at / "a" / "out", at.parent / "corpus", "--size", "1m"],
        "model": lambda at: ["model", folders().policy, at / "out"]}


def end(name: str, capfd, *args: object) -> tuple[int, str]:
    """Run a command: its exit code, and its last line on stderr."""
    with pytest.raises(SystemExit) as leaving:
        importlib.import_module(name.replace("-", "_")).main([*map(str, args)], prog_name=name)
    said = capfd.readouterr().err.splitlines()
    assert not any("Traceback" in line for line in said)
    return leaving.value.code, said[-1]


@pytest.fixture
def at(tmp_path) -> Path:
    (tmp_path / "at").mkdir()
    return tmp_path / "at"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def filtering(name: str, at: Path) -> list[object]:
    args, records = FILTERS[name]
    (at.parent / "in").write_bytes(lines(*records()))
    return [*args(), at.parent / "in", "-o", at / "out"]


@pytest.mark.slow
@pytest.mark.parametrize("name", FILTERS)
def test_a_filter(name, at, capfd):
    args = filtering(name, at)
    for held in ("out", "bad"):
        other = Held(at / held)
        code, said = end(name, capfd, *args, "--on-error", "skip", "--rejects", at / "bad")
        assert (code, said) == (2, f"{name}: {at / held}: another run is writing it; give each run, and each --shard, "
                                   "a file of its own")
        other.remove(), other.close()
        assert names(at) == []
    with file_limit(500):  # not even the state
        assert end(name, capfd, *args) == (1, f"{name}: file too large: {at}")
    assert names(at) == []
    assert end(name, capfd, *args)[0] == 0 and names(at) == ["out"]
    whole = (at / "out").read_bytes()
    (at / "out").unlink()
    with file_limit(len(whole) - 1):
        assert end(name, capfd, *args) == (1, f"{name}: file too large: {at}")
    assert names(at) == ["out", "out.state"]
    assert end(name, capfd, *args, "--resume")[0] == 0 and (at / "out").read_bytes() == whole


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINERS)
def test_a_trainer(name, at, capfd):
    records, more = TRAINERS[name]
    (at.parent / "in").write_bytes(lines(*records(16)))
    args = [folders().policy, at.parent / "in", "-o", at / "a" / "out", "--batch-size", 4, "--steps", 2, *more]
    weights = (Path(folders().policy) / "model.safetensors").stat().st_size
    with file_limit(300):
        assert end(name, capfd, *args) == (1, f"{name}: file too large: {at / 'a' / 'out'}")
    assert names(at) == []
    with file_limit(weights // 2):
        assert end(name, capfd, *args) == (1, f"{name}: file too large: {at / 'a' / 'out'}")
    assert set(names(at / "a" / "out")) <= {".examples", "log.jsonl", "pool.jsonl", "ref_logps.pt", "started.json"}
    other = Held(at / "a" / "out" / "log.jsonl")
    assert end(name, capfd, *args, "--resume") == (2, f"{name}: {at / 'a' / 'out'}: another run is writing it; give "
                                                      "each run, and each --shard, a file of its own")
    other.close()
    assert end(name, capfd, *args, "--resume")[0] == 0 and (at / "a" / "out" / "run.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", DATA)
def test_al_data(name, at, capfd):
    (at.parent / "corpus").write_bytes(lines(*pairs(20)))
    args = DATA[name](at)
    where = at / "a" if name == "new-model" else at
    other = Held(where / "out.partial", folder=name != "toy")
    kind = "file" if name == "toy" else "folder"
    assert end("al-data", capfd, *args) == (2, f"al-data: {where / 'out'}: another run is writing it; give each run, "
                                               f"and each --shard, a {kind} of its own")
    other.remove(), other.close()
    with file_limit(20_000):
        code, said = end("al-data", capfd, *args)
    assert code == 1 and said.startswith(f"al-data: file too large: {at}")
    assert names(at) == []
    assert end("al-data", capfd, *args)[0] == 0 and names(where) == ["out"]


@pytest.mark.slow
def test_a_real_disk_that_is_full(tmp_path, capfd):
    (tmp_path / "in").write_bytes(lines(*pairs(200)))
    with small_disk(tmp_path, 64) as small:
        (small.at / "dear").write_bytes(b"result")
        full = (1, f"no space left on device: {small.at}")

        def said(name, *args):
            code, line = end(name, capfd, *args)
            return code, line.removeprefix(f"{name}: ")

        assert said("al-pref2rw", tmp_path / "in", "-o", small.at / "out") == full
        assert small.names() == ["dear", "out", "out.state"]
        assert said("al-data", "toy", "-o", small.at / "dear") == full
        assert said("al-data", "model", folders().policy, small.at / "model") == full
        code, line = said("al-sft", folders().policy, tmp_path / "in", "-o", small.at / "run", "--steps", 1)
        assert code == 1 and line.startswith(f"no space left on device: {small.at}")
        assert (small.at / "dear").read_bytes() == b"result"
        assert {"out", "out.state", "dear"} <= set(small.names()) <= {"out", "out.state", "dear", "run"}
        small.grow(4096)
        assert said("al-pref2rw", tmp_path / "in", "-o", small.at / "out", "--resume")[0] == 0
        assert len([json.loads(line) for line in (small.at / "out").read_text().splitlines()]) == 200


@pytest.mark.slow
def test_a_real_disk_that_cannot_be_written_to(tmp_path, capfd):
    """Said in a line, and nothing of it is left once it can be."""
    (tmp_path / "in").write_bytes(lines(*rewarded(4)))
    with small_disk(tmp_path, 64) as small:
        (small.at / "old").write_bytes(b"")
        small.mount(64, "remount", "ro")
        for name, *args in (("al-score", "toy:polite", tmp_path / "in", "-o", small.at / "out"),
                            ("al-score", "toy:polite", tmp_path / "in", "-o", small.at / "old"),
                            ("al-data", "toy", "-o", small.at / "out"), ("al-data", "toy", "-o", small.at / "old"),
                            ("al-eval", "reward", tmp_path / "in", "-o", small.at / "out")):
            code, said = end(name, capfd, *args)
            assert code == 2 and said == f"{name}: {args[-1]}: cannot be written: read-only file system"
        for name, *args in (("al-data", "model", folders().policy, small.at / "model"),
                            ("al-train-exo", folders().policy, tmp_path / "in", "-o", small.at / "model")):
            code, said = end(name, capfd, *args)
            assert code == 2 and said == f"{name}: {small.at / 'model'}: {small.at} cannot be written to: name a " \
                                         "folder elsewhere"
        small.mount(64, "remount", "rw")
        assert small.names() == ["old"]
