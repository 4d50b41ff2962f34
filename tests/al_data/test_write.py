"""What is done with the records of any source: their order, their fields, the file they go to."""

import json
import os
import subprocess
from collections import Counter
from random import Random

import pytest

from al_data.write import hide_preference, narrow, narrow_all
from alignlib.records.jsonl import DataError, Skip
from helpers.commands import lines
from helpers.disks import file_limit
from helpers.process import call, command, environment, succeeded

PAIR = {"chosen": "\n\nHuman: Hi\n\nAssistant: Hello.", "rejected": "\n\nHuman: Hi\n\nAssistant: Go."}
RECORD = {"prompt": "\n\nHuman: Hi\n\nAssistant:", "chosen": " Hello.", "rejected": " Go."}


def test_shuffle_is_seeded_and_loses_nothing():
    def run(*extra):
        return succeeded(call("al-data", "toy", "--limit", 30, "--shuffle", *extra))

    by_id = {record["id"]: record for record in run("--seed", 1)}
    assert len(by_id) == 30 and list(by_id) != sorted(by_id)
    assert run("--seed", 1) == list(by_id.values())


def test_only_needs_its_fields():
    done = call("al-data", "tldr", "--from", "-", "--only", "pref", stdin=lines({"prompt": "p", "chosen": "c"}))
    assert done.returncode == 65 and "have no rejected" in done.stderr


def test_output_file_is_whole_or_absent(tmp_path):
    target = tmp_path / "out.jsonl"
    assert call("al-data", "hh", "--from", "-", "-o", target, stdin=lines(PAIR)).returncode == 0
    assert json.loads(target.read_text()) == RECORD
    assert call("al-data", "hh", "--from", "-", "-o", target, stdin=lines(PAIR) + b"x\n").returncode == 65
    assert list(tmp_path.iterdir()) == [target]
    assert target.read_text() == json.dumps(RECORD, separators=(",", ":")) + "\n"  # the earlier one, untouched
    assert call("al-data", "hh", "--from", "-", "-o", "/dev/null", stdin=lines(PAIR)).returncode == 0


@pytest.mark.slow
def test_of_two_runs_the_second_ends_before_it_reads(tmp_path):
    """Today's way to Make: both started at once. What the first says it wrote is there."""
    (tmp_path / "link").symlink_to("out")
    for options in ([], ["--shuffle"]):
        first = subprocess.Popen(command("al-data", "hh", "--from", "-", "-o", tmp_path / "out", *options),
                                 stdin=subprocess.PIPE, stderr=subprocess.PIPE, env=environment())
        while not (tmp_path / "out.partial").exists():
            assert first.poll() is None
        for name in ("out", "link"):
            second = call("al-data", "toy", "--limit", 3, "-o", tmp_path / name)
            assert second.returncode == 2
            assert second.stderr == (f"al-data: {tmp_path / name}: another run is writing it; give each run, and each "
                                     "--shard, a file of its own\n")
        assert first.communicate(lines(PAIR))[1].startswith(b"al-data hh: 1 records") and first.returncode == 0
        assert json.loads((tmp_path / "link").read_text()) == RECORD and (tmp_path / "link").is_symlink()
        assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "out"]


@pytest.mark.slow
def test_a_killed_run_stands_in_nobodys_way(tmp_path):
    first = subprocess.Popen(command("al-data", "hh", "--from", "-", "-o", tmp_path / "out"), stdin=subprocess.PIPE,
                             env=environment())
    while not (tmp_path / "out.partial").exists():
        assert first.poll() is None
    first.kill()
    first.communicate()
    assert (tmp_path / "out.partial").exists()
    assert call("al-data", "toy", "--limit", 3, "-o", tmp_path / "out").returncode == 0
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_input_is_not_what_is_written_meanwhile(tmp_path):
    (tmp_path / "out.partial").write_bytes(lines(PAIR))
    done = call("al-data", "hh", "--from", tmp_path / "out.partial", "-o", tmp_path / "out")
    assert done.returncode == 2 and "out.partial: would be overwritten while it is in use" in done.stderr
    assert (tmp_path / "out.partial").read_bytes() == lines(PAIR)


def test_a_full_disk_leaves_the_earlier_file(tmp_path):
    (tmp_path / "out").write_bytes(b"dear")
    with file_limit(20_000):
        done = call("al-data", "toy", "--limit", 500, "-o", tmp_path / "out")
    assert (done.returncode, done.stderr) == (1, f"al-data: file too large: {tmp_path}\n")
    assert (tmp_path / "out").read_bytes() == b"dear" and [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.slow
def test_standard_output_by_its_other_name(tmp_path):
    """Nothing is made in /dev, and what stands in the shell's file stays."""
    for name in ("/dev/stdout", "-"):
        with open(tmp_path / "file", "wb", buffering=0) as file:
            file.write(b"before\n")
            subprocess.run(command("al-data", "hh", "--from", "-", "-o", name), input=lines(PAIR), stdout=file,
                           env=environment(), check=True)
            file.write(b"after\n")
        before, record, after = (tmp_path / "file").read_text().splitlines()
        assert (before, json.loads(record), after) == ("before", RECORD, "after")
    assert os.path.islink("/dev/stdout")


WEBGPT = {"question": {"full_text": "Why?"}, "answer_0": "Bad.", "answer_1": "Good.", "score_0": -1, "score_1": 1}


def test_records_for_a_judge_hide_which_is_better():
    rows = [{**WEBGPT, "question": {"full_text": f"{number}?"}} for number in range(40)]
    done = call("al-data", "webgpt", "--from", "-", "--only", "judge", stdin=lines(*rows))
    written = succeeded(done)
    assert [list(record) for record in written] == [["prompt", "domain", "completions", "human_winner"]] * 40
    assert all(record["completions"][record["human_winner"]] == " Good." for record in written)
    assert 8 < sum(record["human_winner"] for record in written) < 32
    again = succeeded(call("al-data", "webgpt", "--from", "-", "--only", "judge", "--seed", 1, stdin=lines(*rows)))
    assert again != written


def test_only_keeps_its_fields_and_what_names_a_record():
    record = {"id": "a", **RECORD, "domain": "d", "extra": 1}
    assert list(narrow(record, "sft")) == ["id", "prompt", "chosen", "domain"]
    with pytest.raises(DataError, match="^--only judge: the records of this set have no completions$"):
        narrow(record, "judge")
    with pytest.raises(Skip, match="^a tie$"):
        narrow({"prompt": "p", "completions": ["a", "b"], "winner": None}, "pref")


def test_ties_are_counted():
    dropped = Counter()
    records = [{"prompt": "p", "completions": ["a", "b"], "winner": None}, RECORD]
    assert list(narrow_all(records, "pref", Random(0), dropped)) == [RECORD] and dropped == {"a tie": 1}


def test_a_record_without_a_preference_has_none_to_hide():
    assert hide_preference({"prompt": "p"}, Random(0)) == {"prompt": "p"}
