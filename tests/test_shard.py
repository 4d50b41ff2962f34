"""--shard: N blocks of the input, whose outputs, one after the other, are the output of all."""

import gzip
import os
import shlex
import subprocess
from pathlib import Path

import pytest

from alignlib.records.jsonl import DataError, dumps
from alignlib.records.stream import StateError, Stream
from helpers.commands import folders, lines, one_line, pairs, prompts, rewarded, run
from helpers.numbered import copy_until
from helpers.process import ROOT, call, command, environment

GOOD = [b'{"n": %d}\n' % n for n in range(23)]


def write(path: Path, *rows: bytes) -> str:
    path.write_bytes(b"".join(rows))
    return str(path)


# -- blocks --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 5, 8, 23])
@pytest.mark.parametrize("size", [1, 4, 64])
@pytest.mark.parametrize("shards", [1, 2, 3, 7])
def test_blocks_are_whole_windows_dealt_evenly(tmp_path, count, size, shards):
    name = write(tmp_path / "in", *GOOD[:count])
    blocks = [Stream([name], shard=(i, shards)).block(size) for i in range(1, shards + 1)]
    assert [n for block in blocks for n in block if n < count] == list(range(count))
    windows = [len(block) / size for block in blocks]
    assert all(number.is_integer() for number in windows) and max(windows) - min(windows) <= 1


def test_the_windows_of_the_shards_are_those_of_the_whole(tmp_path):
    """Over several files, blank lines, a byte order mark, holes where lines are bad."""
    (tmp_path / "b.gz").write_bytes(gzip.compress(b"\n" + b"".join(GOOD[5:12])))
    files = [write(tmp_path / "a", b"\xef\xbb\xbf\n", *GOOD[:3], b"bad\n", b" \n", GOOD[4]), str(tmp_path / "b.gz"),
             write(tmp_path / "c", *GOOD[12:20], b"bad\n")]

    def windows(**settings):
        with Stream(files, skip=True, **settings) as stream:
            return [[(line.index, line.where, line.crc) for line in window] for window in stream.windows(4)]

    whole = windows()
    assert len(whole) == 5 and [len(window) for window in whole] == [3, 4, 4, 4, 4]
    for shards in (1, 2, 3, 8):
        assert sum((windows(shard=(i, shards)) for i in range(1, shards + 1)), []) == whole


def test_others_lines_are_not_parsed_and_no_more_are_read_than_needed(tmp_path):
    """A bad line is its shard's alone, by the number it has in the whole file."""
    name, seen = write(tmp_path / "in", *GOOD[:5], b"bad\n", *GOOD[6:9]), []

    def read(shard):
        with Stream([name], shard=shard, prepare=lambda record: seen.append(record["n"])) as stream:
            return [line.index for window in stream.windows(1) for line in window]

    assert read((1, 3)) == [0, 1, 2] and read((3, 3)) == [6, 7, 8] and seen == [0, 1, 2, 6, 7, 8]
    with pytest.raises(DataError, match="in:6: broken JSON"):
        read((2, 3))


# -- resume --------------------------------------------------------------------------------------------------

INPUT = [*GOOD[:6], b"bad 6\n", b"bad 7\n", b"\n", *GOOD[8:11], b"bad 11\n", *GOOD[12:15]]  # 15 records


def copy(folder: Path, shard, *, stop: int | None = None, size: int = 3, **settings) -> Stream:
    """The shard's records into `out`, bad lines into `bad`; with `stop`, die before that many records were written."""
    stream = Stream([str(folder / "in")], str(folder / "out"), shard=shard, skip=True, rejects=str(folder / "bad"),
                    key="k", **settings)
    return copy_until(stream, size, stop)


def test_outputs_and_rejects_of_the_shards_in_order_are_the_whole(tmp_path):
    write(tmp_path / "in", *INPUT)
    copy(tmp_path, None)
    whole = [(tmp_path / name).read_bytes() for name in ("out", "bad")]
    assert whole == [b"".join(dumps({"n": n}) for n in (*range(6), *range(8, 11), *range(12, 15))),
                     b"bad 6\nbad 7\nbad 11\n"]
    for shards in (2, 3, 5, 9):
        parts = [b"", b""]
        for i in range(1, shards + 1):
            copy(tmp_path, (i, shards))
            parts = [part + (tmp_path / name).read_bytes() for part, name in zip(parts, ("out", "bad"), strict=True)]
        assert parts == whole


@pytest.mark.parametrize("stop", range(4))
@pytest.mark.parametrize("lost", [False, True])
@pytest.mark.parametrize("shard,good,bad", [((2, 2), 6, 3), ((2, 3), 4, 2)])  # records 6-14, and 3-8
def test_a_killed_shard_goes_on_where_it_was(tmp_path, shard, good, bad, stop, lost):
    """Also where the last line was announced, but not yet written."""
    write(tmp_path / "in", *INPUT)
    copy(tmp_path, shard)
    whole = [(tmp_path / name).read_bytes() for name in ("out", "bad")]
    assert [len(part.splitlines()) for part in whole] == [good, bad]
    copy(tmp_path, shard, stop=stop)
    if lost:
        kept = (tmp_path / "out").read_bytes().splitlines(keepends=True)[:-1]
        (tmp_path / "out").write_bytes(b"".join(kept))
    stream = copy(tmp_path, shard, resume=True)
    assert [(tmp_path / name).read_bytes() for name in ("out", "bad")] == whole
    assert (stream.written, stream.rejected) == (good, bad) and not (tmp_path / "out.state").exists()


def test_a_shards_bad_lines_leave_at_once_where_nothing_of_it_comes_before(tmp_path):
    write(tmp_path / "in", *INPUT)
    with Stream([str(tmp_path / "in")], shard=(2, 2), skip=True, rejects=str(tmp_path / "bad")) as stream:
        (line,) = next(stream.windows(3))
        assert line.record == {"n": 8} and (tmp_path / "bad").read_bytes() == b"bad 6\nbad 7\n"


def test_a_shard_that_fails_before_its_first_record_takes_nothing(tmp_path):
    write(tmp_path / "in", *INPUT), write(tmp_path / "old", b"dear\n")
    for name in ("old", "new"):
        with pytest.raises(DataError, match="in:7"), \
                Stream([str(tmp_path / "in")], str(tmp_path / name), shard=(2, 2)) as stream:
            list(stream.windows(3))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "old"]
    assert (tmp_path / "old").read_bytes() == b"dear\n"


@pytest.mark.parametrize("rows,words", [
    ([*INPUT, b'{"n": 15}\n'], "the input had 15 records"),  # which would move the borders
    (INPUT[:-1], "the input had 15 records"),
    ([b'{"n": 7}\n', *INPUT[1:]], "the input has changed"),
])
def test_a_shard_of_another_input_is_refused(tmp_path, rows, words):
    write(tmp_path / "in", *INPUT)
    copy(tmp_path, (2, 2), stop=2)
    before = (tmp_path / "out").read_bytes()
    write(tmp_path / "in", *rows)
    with pytest.raises(StateError, match=words):
        copy(tmp_path, (2, 2), resume=True)
    assert (tmp_path / "out").read_bytes() == before


# -- commands ------------------------------------------------------------------------------------------------


def sharded(name: str, *args: object, shards: int) -> str:
    done = [run(name, *args, "--shard", f"{i}/{shards}") for i in range(1, shards + 1)]
    assert all(one.returncode == 0 for one in done), done
    return "".join(one.stdout for one in done)


@pytest.mark.slow
@pytest.mark.parametrize("name,args,records", [
    ("al-pref2rw", (), pairs(40)),
    ("al-score", ("toy:overall",), rewarded(9)),
    ("al-score", ("reward",), rewarded(70)),
    ("al-score", ("policy", "--logps"), rewarded(70)),
    ("al-sample", ("policy", "-n", 3, "-m", 8, "--logps", "--window", 4), prompts(14)),
])
def test_the_commands_outputs_in_order_are_the_whole_byte_for_byte(tmp_path, name, args, records):
    given = write(tmp_path / "in", lines(*records))
    args = [getattr(folders(), arg, arg) if isinstance(arg, str) else arg for arg in args]
    whole = run(name, *args, given)
    assert whole.returncode == 0 and len(whole.stdout.splitlines()) == len(records)
    assert sharded(name, *args, given, shards=2) == whole.stdout
    assert sharded(name, *args, given, shards=5) == whole.stdout


@pytest.mark.slow
def test_more_shards_than_windows_leave_some_empty(tmp_path):
    given = write(tmp_path / "in", lines(*pairs(2)))
    for i in range(1, 6):
        done = call("al-pref2rw", given, "--shard", f"{i}/5", "-o", tmp_path / f"out.{i}")
        assert done.returncode == 0 and ("1 records" in done.stderr or "0 records" in done.stderr)
    sizes = [len((tmp_path / f"out.{i}").read_bytes().splitlines()) for i in range(1, 6)]
    assert sorted(sizes) == [0, 0, 0, 1, 1]
    done = call("al-pref2rw", write(tmp_path / "none"), "--shard", "2/2")
    assert (done.returncode, done.stdout) == (0, "") and "0 records" in one_line(done.stderr)


def test_another_shard_does_not_go_on_with_this_ones_output(tmp_path):
    given, out = write(tmp_path / "in", lines(*pairs(6)) + b"bad\n"), tmp_path / "out"
    assert call("al-pref2rw", given, "--shard", "2/2", "-o", out).returncode == 65
    done = call("al-pref2rw", given, "--shard", "1/2", "-o", out, "--resume")
    assert done.returncode == 2 and "made with other options" in one_line(done.stderr)
    write(tmp_path / "in", lines(*pairs(7)))
    assert call("al-pref2rw", given, "--shard", "2/2", "-o", out, "--resume").returncode == 0
    assert out.read_text() == call("al-pref2rw", given, "--shard", "2/2").stdout


def test_standard_input_is_sharded_if_it_is_a_file(tmp_path):
    """By processes that have inherited it together, as from a shell's `for ... done < FILE`."""
    given = write(tmp_path / "in", lines(*pairs(30)))
    with open(given, "rb") as source:
        started = [subprocess.Popen(command("al-pref2rw", "--shard", f"{i}/3"), stdin=source, stdout=subprocess.PIPE,
                                    stderr=subprocess.DEVNULL, env=environment()) for i in (1, 2, 3)]
        made = [process.communicate()[0] for process in started]
    assert b"".join(made).decode() == call("al-pref2rw", given).stdout


def test_what_cannot_be_counted_first_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for files, what in (((), "standard input"), ((tmp_path / "pipe",), "pipe")):
        argv = command("al-pref2rw", *files, "--shard", "1/2")
        done = subprocess.run(argv, stdin=subprocess.PIPE, capture_output=True, text=True, env=environment())
        assert done.returncode == 2 and f"{what}: --shard counts the records first" in one_line(done.stderr)


@pytest.mark.parametrize("wrong", ["0/2", "3/2", "1", "1/", "/2", "-1/2", "a/b", "1/2/3", "1.0/2"])
def test_what_is_no_shard_is_refused(wrong):
    done = call("al-pref2rw", f"--shard={wrong}")
    assert done.returncode == 2 and f"{wrong}: expected I/N, from 1/N to N/N" in one_line(done.stderr)


# -- the docs ------------------------------------------------------------------------------------------------


def recipes() -> list[str]:
    """The scripts of the section on filters in docs/devices.md."""
    section = (ROOT / "docs" / "devices.md").read_text().split("## Filters on several devices\n")[1].split("\n## ")[0]
    blocks = [block for block in section.split("\n\n") if block.startswith("    ")]
    return ["\n".join(line[4:] for line in block.splitlines()) for block in blocks]


@pytest.mark.long
@pytest.mark.slow
def test_the_recipes_of_the_docs(tmp_path):
    """With two shards for four, and a tiny model; Slurm's part is to set SLURM_ARRAY_TASK_ID."""
    shell, array = (text.replace("N=4", "N=2").replace("/4", "/2") for text in recipes())
    (tmp_path / "sft").symlink_to(folders().policy)
    given = write(tmp_path / "prompts.jsonl", lines(*prompts(70)))
    tool = tmp_path / "bin" / "al-sample"
    tool.parent.mkdir()
    tool.write_text(f'#!/bin/sh\nexec {shlex.join(command("al-sample"))} -m 2 "$@"\n')
    tool.chmod(0o755)
    where = {**environment(), "PATH": f"{tool.parent}{os.pathsep}{os.environ['PATH']}"}

    def script(text, **more):
        done = subprocess.run(["sh", "-c", text], cwd=tmp_path, env={**where, **more}, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    script(shell)
    whole = run("al-sample", folders().policy, "-m", 2, given)
    assert (tmp_path / "samples.jsonl").read_text() == whole.stdout
    first = (tmp_path / "part.1").read_bytes()
    (tmp_path / "part.1").unlink()
    script(array, SLURM_ARRAY_TASK_ID="1")
    assert (tmp_path / "part.1").read_bytes() == first != (tmp_path / "part.2").read_bytes()
