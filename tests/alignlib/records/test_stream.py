"""Windows of a stream, and going on after a kill: every place at which a run can stop."""

import gzip
import os
import shutil
from contextlib import contextmanager
from pathlib import Path

import orjson
import pytest

from alignlib.records import output as outputs
from alignlib.records import stream
from alignlib.records.disk import DiskFull, StateError
from alignlib.records.jsonl import DataError, Skip, at_hand, count_ahead, dumps
from alignlib.records.stream import Stream
from helpers.disks import file_limit, small_disk
from helpers.numbered import BAD, GOOD, copy_until, write


def numbers(windows) -> list[list[int]]:
    return [[line.record["n"] for line in window] for window in windows]


def windows_of(tmp_path, lines, size, **settings) -> list[list[int]]:
    with Stream([write(tmp_path / "in", *lines)], **settings) as stream:
        return numbers(stream.windows(size))


def test_windows_are_cut_by_line_number(tmp_path):
    assert windows_of(tmp_path, GOOD, 4) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert windows_of(tmp_path, GOOD[:8], 4) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert windows_of(tmp_path, GOOD[:3], 1) == [[0], [1], [2]]
    assert windows_of(tmp_path, [b"\n", GOOD[0], b"\n", GOOD[1], GOOD[2]], 2) == [[0, 1], [2]]
    assert windows_of(tmp_path, [], 4) == []


@pytest.mark.parametrize(
    ("bad", "windows"),
    [
        ({0}, [[1, 2, 3], [4, 5, 6, 7], [8, 9]]),
        ({9}, [[0, 1, 2, 3], [4, 5, 6, 7], [8]]),
        ({3, 4}, [[0, 1, 2], [5, 6, 7], [8, 9]]),
        ({4, 5, 6, 7}, [[0, 1, 2, 3], [8, 9]]),
        ({0, 1, 2, 3, 8, 9}, [[4, 5, 6, 7]]),
        (set(range(10)), []),
    ],
)
def test_bad_lines_leave_holes_and_move_no_border(tmp_path, bad, windows):
    lines = [b"bad %d\n" % n if n in bad else GOOD[n] for n in range(10)]
    rejects = tmp_path / "rejects"
    with Stream([write(tmp_path / "in", *lines)], str(tmp_path / "out"), skip=True, rejects=str(rejects)) as stream:
        seen = []
        for window in stream.windows(4):
            seen += numbers([window])
            for line in window:
                stream.write(line, line.record)
    assert seen == windows
    assert rejects.read_bytes() == b"".join(lines[n] for n in sorted(bad))
    assert [orjson.loads(raw)["n"] for raw in (tmp_path / "out").read_bytes().splitlines()] == sum(windows, [])
    assert (stream.written, stream.rejected) == (10 - len(bad), len(bad))


def test_several_files_are_one_stream(tmp_path):
    (tmp_path / "b.gz").write_bytes(gzip.compress(b"".join(GOOD[3:7])))
    files = [write(tmp_path / "a", *GOOD[:3]), str(tmp_path / "b.gz"), write(tmp_path / "c", *GOOD[7:])]
    with Stream(files) as stream:
        assert numbers(stream.windows(4)) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_what_came_before_a_bad_line_still_comes(tmp_path):
    seen = []
    with pytest.raises(DataError, match=r"in:7: broken JSON"), \
            Stream([write(tmp_path / "in", *GOOD[:6], BAD, *GOOD[7:])]) as stream:
        for window in stream.windows(4):
            seen += numbers([window])
    assert seen == [[0, 1, 2, 3], [4, 5]]


def test_a_window_comes_before_the_next_line_is_read(tmp_path):
    taken = []
    with Stream([write(tmp_path / "in", *GOOD)], prepare=lambda record: taken.append(record["n"])) as stream:
        next(stream.windows(4))
    assert taken == [0, 1, 2, 3]


def test_skip_puts_aside_whatever_on_error_says(tmp_path):
    def prepare(record):
        if record["n"] == 1:
            raise Skip("one")

    rejects = tmp_path / "rejects"
    with Stream([write(tmp_path / "in", *GOOD[:3])], rejects=str(rejects), prepare=prepare) as stream:
        assert numbers(stream.windows(4)) == [[0, 2]]
    assert rejects.read_bytes() == GOOD[1] and stream.rejected == 1


def test_rejects_of_two_files_do_not_run_together(tmp_path):
    files = [write(tmp_path / "a", b"bad one"), write(tmp_path / "b", b"bad two\r\n")]
    with Stream(files, skip=True, rejects=str(tmp_path / "rejects")) as stream:
        assert list(stream.windows(2)) == []
    assert (tmp_path / "rejects").read_bytes() == b"bad one\nbad two\r\n"


# -- resume: a run stopped after any write, or within one ----------------------------------------------

INPUT = [BAD, GOOD[0], GOOD[1], b"\n", b"[]\n", b"[1]\n", GOOD[2], GOOD[3], GOOD[4], BAD]


def run(folder: Path, *, stop: int | None = None, size: int = 2, **settings) -> Stream:
    """Copy `in` to `out`, rejects to `bad`; with `stop`, die before that many records were written."""
    settings = {"skip": True, "rejects": str(folder / "bad"), "key": "k", **settings}
    stream = Stream([str(folder / "in")], str(folder / "out"), **settings)
    return copy_until(stream, size, stop)


def results(folder: Path) -> tuple[bytes, bytes]:
    return (folder / "out").read_bytes(), (folder / "bad").read_bytes()


@pytest.fixture
def whole(tmp_path) -> tuple[bytes, bytes]:
    """What an unbroken run writes: output, rejects."""
    folder = tmp_path / "whole"
    folder.mkdir()
    write(folder / "in", *INPUT)
    run(folder)
    assert results(folder)[0] == b"".join(dumps({"n": n}) for n in range(5))
    assert results(folder)[1] == BAD + b"[]\n[1]\n" + BAD
    return results(folder)


@pytest.mark.parametrize("size", [1, 2, 3, 64])
@pytest.mark.parametrize("stop", range(5))
@pytest.mark.parametrize("torn", [b"", b'{"n":'])
def test_stopped_after_any_record_or_within_one(tmp_path, whole, size, stop, torn):
    write(tmp_path / "in", *INPUT)
    run(tmp_path, stop=stop, size=size)
    with open(tmp_path / "out", "ab") as handle:
        handle.write(torn)
    stream = run(tmp_path, resume=True, size=size)
    assert results(tmp_path) == whole
    assert (stream.written, stream.rejected) == (5, 4)
    assert not (tmp_path / "out.state").exists()


@pytest.mark.parametrize("stop", range(1, 5))
def test_a_state_said_but_its_line_not_written(tmp_path, whole, stop):
    write(tmp_path / "in", *INPUT)
    run(tmp_path, stop=stop)
    lines = (tmp_path / "out").read_bytes().splitlines(keepends=True)
    (tmp_path / "out").write_bytes(b"".join(lines[:-1]))  # as if killed between the two writes
    run(tmp_path, resume=True)
    assert results(tmp_path) == whole


@pytest.mark.parametrize("held", [1, 20, 1 << 15])
@pytest.mark.parametrize("stop", range(5))
def test_no_kill_loses_a_held_record_nor_writes_one_twice(tmp_path, whole, monkeypatch, held, stop):
    """Whatever part of what was held the kill left in the file."""
    monkeypatch.setattr(outputs, "HELD", held)
    killed = tmp_path / "killed"
    killed.mkdir()
    write(killed / "in", *INPUT)
    lost = bytes(run(killed, stop=stop, size=1, hold=True)._out.held)
    assert len(lost) < held
    for length in range(len(lost) + 1):
        folder = tmp_path / str(length)
        shutil.copytree(killed, folder)
        with open(folder / "out", "ab") as handle:
            handle.write(lost[:length])
        stream = run(folder, resume=True, size=1, hold=True)
        assert results(folder) == whole and (stream.written, stream.rejected) == (5, 4)


def test_held_records_leave_together_and_before_a_bad_line(tmp_path, monkeypatch):
    wrote = []
    monkeypatch.setattr(outputs.Output, "write", lambda self, data: wrote.append((Path(self.path).name, data)))
    write(tmp_path / "in", *INPUT)
    run(tmp_path, size=1, hold=True)
    assert wrote == [("bad", BAD), ("out", GOOD[0].replace(b" ", b"") + GOOD[1].replace(b" ", b"")), ("bad", b"[]\n"),
                     ("bad", b"[1]\n"), ("out", b'{"n":2}\n{"n":3}\n{"n":4}\n'), ("bad", BAD)]


def test_nothing_is_held_where_the_input_must_be_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    regular = write(tmp_path / "in", *GOOD)
    for files, hold in (((regular,), True), ((regular, str(tmp_path / "pipe")), False)):
        with Stream(files, str(tmp_path / "out"), hold=True) as stream:
            assert stream._hold is hold
    assert at_hand([regular, regular]) and not at_hand([regular, str(tmp_path / "none")])


def test_killed_again_and_again(tmp_path, whole):
    write(tmp_path / "in", *INPUT)
    for stop in (0, 1, 1, 3, 4, 4):
        run(tmp_path, stop=stop, resume=True)
    run(tmp_path, resume=True)
    assert results(tmp_path) == whole


def test_killed_before_anything_was_said(tmp_path, whole):
    write(tmp_path / "in", *INPUT)
    write(tmp_path / "out.state")
    run(tmp_path, resume=True)
    assert results(tmp_path) == whole


def test_a_resumed_window_comes_whole_but_is_written_once(tmp_path):
    write(tmp_path / "in", *GOOD)
    run(tmp_path, stop=6, size=4)
    settings = {"resume": True, "key": "k", "skip": True, "rejects": str(tmp_path / "bad")}
    with Stream([str(tmp_path / "in")], str(tmp_path / "out"), **settings) as stream:
        seen = []
        for window in stream.windows(4):
            seen += numbers([window])
            for line in window:
                stream.write(line, line.record)
    assert seen == [[4, 5, 6, 7], [8, 9]]
    assert (tmp_path / "out").read_bytes() == b"".join(dumps({"n": n}) for n in range(10))


def test_a_complete_file_is_left_alone(tmp_path, whole):
    write(tmp_path / "in", *INPUT)
    run(tmp_path)
    before = os.stat(tmp_path / "out").st_mtime_ns
    assert run(tmp_path, resume=True, key="whatever").complete
    assert results(tmp_path) == whole and os.stat(tmp_path / "out").st_mtime_ns == before


def test_without_resume_a_finished_file_is_made_anew_and_an_unfinished_one_refused(tmp_path, whole):
    write(tmp_path / "in", *INPUT)
    write(tmp_path / "out", b"older and longer than what comes now\n" * 9)
    run(tmp_path)
    assert results(tmp_path) == whole
    run(tmp_path, stop=2)
    with pytest.raises(StateError, match="unfinished run"):
        run(tmp_path)


def test_other_options_are_refused(tmp_path):
    write(tmp_path / "in", *INPUT)
    run(tmp_path, stop=2)
    with pytest.raises(StateError, match="other options"):
        run(tmp_path, resume=True, key="other")


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([BAD, GOOD[7], *INPUT[2:]], "the input has changed"),
        ([b"{brokem\n", *INPUT[1:]], "the input has changed"),
        ([b"\n", *INPUT], "the input has changed"),
        (INPUT[:2], "the input has become shorter"),
        ([], "the input has become shorter"),
    ],
)
def test_another_input_is_refused(tmp_path, lines, words):
    write(tmp_path / "in", *INPUT)
    run(tmp_path, stop=3)
    before = results(tmp_path)
    write(tmp_path / "in", *lines)
    with pytest.raises(StateError, match=words):
        run(tmp_path, resume=True)
    assert results(tmp_path) == before


def test_another_input_that_begins_the_same_is_refused(tmp_path):
    """After a kill: none of its lines was bad, so that none has to be mended."""
    write(tmp_path / "in", *GOOD)
    run(tmp_path, stop=3)
    before = results(tmp_path)
    write(tmp_path / "in", *GOOD[:4], GOOD[0], *GOOD[5:])
    with pytest.raises(StateError, match="the input has changed"):
        run(tmp_path, resume=True)
    write(tmp_path / "in", *GOOD[:4])
    with pytest.raises(StateError, match="the input has become shorter"):
        run(tmp_path, resume=True)
    assert results(tmp_path) == before
    write(tmp_path / "in", *GOOD, GOOD[0])  # longer it may be
    run(tmp_path, resume=True)
    assert len((tmp_path / "out").read_bytes().splitlines()) == len(GOOD) + 1


def test_lines_that_had_not_left_may_change(tmp_path):
    """The way to go on after a bad line: mend it."""
    write(tmp_path / "in", GOOD[0], GOOD[1], BAD)
    with pytest.raises(DataError, match="in:3"):
        run(tmp_path, skip=False, rejects=None)
    write(tmp_path / "in", *GOOD[:4])
    run(tmp_path, skip=False, rejects=None, resume=True)
    assert (tmp_path / "out").read_bytes() == b"".join(dumps({"n": n}) for n in range(4))


@pytest.mark.parametrize("name", ["out", "bad"])
def test_an_output_that_was_cut_meanwhile_is_refused(tmp_path, name):
    write(tmp_path / "in", *INPUT)
    run(tmp_path, stop=4)
    os.truncate(tmp_path / name, 1)
    with pytest.raises(StateError, match="shorter"):
        run(tmp_path, resume=True)


def test_an_output_that_is_gone_is_refused(tmp_path):
    write(tmp_path / "in", *INPUT)
    run(tmp_path, stop=2)
    (tmp_path / "out").unlink()
    with pytest.raises(StateError, match="it is gone"):
        run(tmp_path, resume=True)


def test_a_run_that_fails_before_its_first_record_leaves_nothing(tmp_path):
    name = write(tmp_path / "in", BAD)
    with pytest.raises(DataError), Stream([name], str(tmp_path / "out")) as stream:
        list(stream.windows(1))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]


def test_a_run_that_fails_before_its_first_record_takes_nothing(tmp_path):
    """Nor does one that is killed there, and resumed."""
    name, old = write(tmp_path / "in", BAD), tmp_path / "out"
    old.write_bytes(b"dear\n")
    with pytest.raises(DataError), Stream([name], str(old)) as stream:
        list(stream.windows(1))
    assert old.read_bytes() == b"dear\n" and not os.path.exists(f"{old}.state")
    write(tmp_path / "in", *GOOD)
    run(tmp_path, stop=0)
    assert old.read_bytes() == b"dear\n"
    run(tmp_path, resume=True)
    assert old.read_bytes() == b"".join(dumps({"n": n}) for n in range(10))


def test_two_runs_do_not_write_one_file(tmp_path):
    write(tmp_path / "in", *GOOD)
    first = run(tmp_path, stop=3)
    with pytest.raises(StateError, match="another run is writing it"):
        run(tmp_path, resume=True)
    del first  # as the end of its process
    assert run(tmp_path, resume=True).next == 10


def test_a_run_that_another_has_finished_meanwhile_is_not_begun_anew(tmp_path, whole, monkeypatch):
    write(tmp_path / "in", *INPUT)
    run(tmp_path, stop=2)
    state = stream.State

    def late(*given):  # between the look and the lock
        monkeypatch.setattr(stream, "State", state)
        run(tmp_path, resume=True)
        return state(*given)

    monkeypatch.setattr(stream, "State", late)
    with pytest.raises(StateError, match="out: another run has finished it just now"):
        run(tmp_path, resume=True)
    assert results(tmp_path) == whole and not (tmp_path / "out.state").exists()


# -- two runs, one file --------------------------------------------------------------------------------


def test_two_runs_do_not_put_aside_into_one_file(tmp_path):
    """Nor into what the other writes: of the first run nothing is lost, and the second leaves nothing."""
    write(tmp_path / "in", *INPUT)
    first = Stream([str(tmp_path / "in")], str(tmp_path / "out"), skip=True, rejects=str(tmp_path / "bad"))
    for output, rejects in (("other", "bad"), ("other", "out"), ("bad", None), ("bad", "more")):
        for shard in (None, (2, 2)):
            with pytest.raises(StateError, match="another run is writing it; give each run, and each --shard, a file"):
                Stream([str(tmp_path / "in")], str(tmp_path / output), skip=True, shard=shard,
                       rejects=rejects and str(tmp_path / rejects))
    copy_until(first, 2, None)
    assert results(tmp_path)[1] == BAD + b"[]\n[1]\n" + BAD
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad", "in", "out"]


def test_shards_one_after_the_other_do_not_lose_each_others_rejects(tmp_path):
    """What a shard has put aside is not the next one's to make anew; its own is."""
    write(tmp_path / "in", *INPUT)
    run(tmp_path, shard=(1, 2))
    kept = results(tmp_path)[1]
    assert kept
    for output in (None, str(tmp_path / "out-2")):
        with pytest.raises(StateError, match="bad: there already, perhaps of another shard: give each --shard a "):
            Stream([str(tmp_path / "in")], output, skip=True, rejects=str(tmp_path / "bad"), shard=(2, 2))
    assert results(tmp_path)[1] == kept and not (tmp_path / "out-2").exists()
    run(tmp_path, shard=(1, 2))
    assert results(tmp_path)[1] == kept


def test_rejects_are_not_what_a_killed_run_will_go_on_with(tmp_path, whole):
    write(tmp_path / "in", *INPUT)
    run(tmp_path, stop=2)
    with pytest.raises(StateError, match="out: an unfinished run is here"):
        Stream([str(tmp_path / "in")], str(tmp_path / "other"), skip=True, rejects=str(tmp_path / "out"))
    run(tmp_path, resume=True)
    assert results(tmp_path) == whole and not list(tmp_path.glob("other*"))


def test_a_link_is_written_through_and_its_run_goes_on_by_any_name(tmp_path, whole):
    write(tmp_path / "in", *INPUT)
    (tmp_path / "out").symlink_to("far")
    run(tmp_path, stop=2)
    assert (tmp_path / "far.state").exists() and not (tmp_path / "out.state").exists()
    with pytest.raises(StateError, match="unfinished run"):
        Stream([str(tmp_path / "in")], str(tmp_path / "far"))
    run(tmp_path, resume=True)
    assert results(tmp_path) == whole and (tmp_path / "out").is_symlink()


# -- a failed start leaves nothing ---------------------------------------------------------------------


@pytest.mark.parametrize("how", [{"output": "none/out"}, {"rejects": "none/bad"}, {"rejects": "in/bad"}])
def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path, how):
    name = write(tmp_path / "in", *INPUT)
    paths = {option: str(tmp_path / path) for option, path in {"output": "out", "rejects": "bad", **how}.items()}
    with pytest.raises(StateError, match="no such folder|cannot be written"):
        Stream([name], skip=True, **paths)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    run(tmp_path)


@pytest.mark.parametrize("limit", [0, 600])  # not even for the state; not for the first record
def test_a_disk_full_from_the_start_leaves_nothing(tmp_path, limit):
    write(tmp_path / "in", dumps({"text": "x" * 1000}))
    with file_limit(limit), pytest.raises(DiskFull, match=f"^file too large: {tmp_path}$"), \
            Stream([str(tmp_path / "in")], str(tmp_path / "out")) as stream:
        for window in stream.windows(1):
            stream.write(window[0], window[0].record)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_a_disk_full_in_the_middle_leaves_what_resume_needs(tmp_path):
    records = [dumps({"n": n, "text": "x" * 1000}) for n in range(10)]
    name = write(tmp_path / "in", *records)

    def copy(resume=False):
        with Stream([name], str(tmp_path / "out"), resume=resume) as stream:
            for window in stream.windows(2):
                for line in window:
                    stream.write(line, line.record)

    with file_limit(4500), pytest.raises(DiskFull):
        copy()
    assert (tmp_path / "out").stat().st_size == 4500  # the last record is torn
    with pytest.raises(StateError, match="an unfinished run is here: --resume goes on with it"):
        copy()
    copy(resume=True)
    assert (tmp_path / "out").read_bytes() == b"".join(records) and not (tmp_path / "out.state").exists()


def test_a_real_disk_full_and_then_not(tmp_path, whole):
    """Rejects and records alike: wherever it was full, the resumed run has the bytes of an unbroken one."""
    lines = [line for n in range(40) for line in (BAD * 20, dumps({"n": n, "text": "x" * 500}))]
    write(tmp_path / "in", *lines)
    run(tmp_path)
    expected = results(tmp_path)
    with small_disk(tmp_path, 12) as small:
        paths = {"output": str(small.at / "out"), "rejects": str(small.at / "bad")}
        for kilobytes in (20, 28, 400):
            with pytest.raises(DiskFull, match=f"^no space left on device: {small.at}$"), \
                    Stream([str(tmp_path / "in")], skip=True, resume=True, **paths) as stream:
                for window in stream.windows(2):
                    for line in window:
                        stream.write(line, line.record)
            small.grow(kilobytes)
        with Stream([str(tmp_path / "in")], skip=True, resume=True, **paths) as stream:
            for window in stream.windows(2):
                for line in window:
                    stream.write(line, line.record)
        assert ((small.at / "out").read_bytes(), (small.at / "bad").read_bytes()) == expected
        assert small.names() == ["bad", "out"]


def test_a_run_killed_before_its_first_record_need_not_be_resumed(tmp_path, whole):
    write(tmp_path / "in", *INPUT)
    write(tmp_path / "out.state")
    run(tmp_path)
    assert results(tmp_path) == whole


@pytest.mark.parametrize("rejects", [None, "other"])
def test_the_rejects_go_on_where_they_were_or_not_at_all(tmp_path, rejects):
    write(tmp_path / "in", *INPUT)
    run(tmp_path, stop=2)
    with pytest.raises(StateError, match="--rejects is not"):
        run(tmp_path, resume=True, rejects=rejects and str(tmp_path / rejects))
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("state", [b"{something else", b"[1, 2]", b"null", b"{}", b'{"line": -1}',
                                   b'{"key": "k", "line": "2", "crc": 0, "out": 0}'])
def test_a_state_that_is_none_is_named(tmp_path, state):
    write(tmp_path / "in", *INPUT)
    write(tmp_path / "out.state", state)
    with pytest.raises(StateError, match="out.state: not the state of a run"):
        run(tmp_path, resume=True)


def test_devices_and_pipes_get_no_state(tmp_path):
    name = write(tmp_path / "in", *GOOD)
    with Stream([name], "/dev/null") as stream:
        assert not os.path.exists("/dev/null.state")
        for window in stream.windows(1):
            stream.write(window[0], window[0].record)
    assert stream.written == 10


# -- what shows how far it is --------------------------------------------------------------------------


class Shown:
    """A bar that remembers what it was told."""

    def __init__(self, total, done):
        self.total, self.counts, self.asides, self.closed = total, [done], 0, False

    def reach(self, done):
        self.counts.append(done)

    @contextmanager
    def aside(self):
        self.asides += 1
        yield

    def close(self):
        self.closed = True


def shown_by(*files, size=2, **settings) -> Shown:
    bars = []

    def bar(total, done):
        bars.append(Shown(total, done))
        return bars[-1]

    with Stream(files, bar=bar, **settings) as stream:
        for window in stream.windows(size):
            for line in window:
                stream.write(line, line.record)
    (shown,) = bars
    assert shown.closed
    return shown


def test_a_bar_counts_what_has_left_of_the_records_of_files(tmp_path):
    files = [write(tmp_path / "a", *GOOD[:3], b"\n", BAD), str(tmp_path / "b.gz")]
    (tmp_path / "b.gz").write_bytes(gzip.compress(b"".join(GOOD[3:5])))
    shown = shown_by(*files, output=str(tmp_path / "out"), skip=True)
    assert (shown.total, shown.counts, shown.asides) == (6, list(range(7)), 0)


def test_a_bar_makes_way_for_records_on_standard_output(tmp_path):
    assert shown_by(write(tmp_path / "in", *GOOD)).asides == 10


def test_what_cannot_be_counted_beforehand_is_not(tmp_path):
    """A broken end shows only where the reading comes to it, and what is before it still leaves."""
    os.mkfifo(tmp_path / "pipe")
    assert count_ahead([write(tmp_path / "a", *GOOD), str(tmp_path / "pipe")]) is None
    assert count_ahead([]) is count_ahead(["-"]) is count_ahead([str(tmp_path / "a"), "-"]) is None
    (tmp_path / "cut.gz").write_bytes(gzip.compress(b"".join(GOOD))[:-4])
    assert count_ahead([str(tmp_path / "cut.gz")]) is None and count_ahead([str(tmp_path / "a")]) == 10


@pytest.mark.parametrize(("shard", "size", "total"), [((1, 2), 4, 4), ((2, 2), 4, 6), ((3, 4), 1, 2), ((1, 4), 4, 0)])
def test_a_shards_bar_has_the_shards_records(tmp_path, shard, size, total):
    shown = shown_by(write(tmp_path / "in", *GOOD), shard=shard, size=size)
    assert (shown.total, shown.counts) == (total, list(range(total + 1)))


def test_a_resumed_bar_begins_where_it_goes_on(tmp_path):
    name, how = write(tmp_path / "in", *GOOD), {"output": str(tmp_path / "out"), "key": "k", "shard": (2, 2)}
    copy_until(Stream([name], **how), 2, 3)
    shown = shown_by(name, resume=True, **how)
    assert (shown.total, shown.counts) == (6, [3, 4, 5, 6])
    assert Stream([name], resume=True, **how).complete
