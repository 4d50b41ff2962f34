"""al-data as a process: pipes, options, bad rows."""

import gzip
import json
import subprocess

import pytest

from alignlib.toy import world
from helpers.commands import lines
from helpers.process import call, command, environment, succeeded

PAIR = {"chosen": "\n\nHuman: Hi\n\nAssistant: Hello.", "rejected": "\n\nHuman: Hi\n\nAssistant: Go."}
SAME = {"chosen": "\n\nHuman: Hi\n\nAssistant: Hello. ", "rejected": "\n\nHuman: Hi\n\nAssistant: Hello."}
RECORD = {"prompt": "\n\nHuman: Hi\n\nAssistant:", "chosen": " Hello.", "rejected": " Go."}


@pytest.mark.parametrize("name", [(), ("toy",), ("hh",), ("imdb",), ("sharegpt",), ("new-model",)])
def test_every_command_has_help(name):
    done = call("al-data", *name, "--help")
    assert done.returncode == 0 and len(done.stdout.splitlines()) > 8


def test_help_imports_nothing_heavy():
    program = ("import sys, al_data; print([name for name in ('torch', 'transformers', 'datasets', 'numpy', 'pyarrow', "
               "'tokenizers') if name in sys.modules])")
    done = subprocess.run([*command("al-data")[:2], program], capture_output=True, env=environment(), check=True)
    assert done.stdout.decode().strip() == "[]"


def test_toy_writes_the_world_of_the_library():
    written = succeeded(call("al-data", "toy", "--limit", 5, "--seed", 7, "--split", "test"))
    assert written == list(world.records("dialogue", "test", 7, 5))
    assert len(succeeded(call("al-data", "toy", "--task", "summary"))) == 2000


def test_toy_labels_and_domains():
    written = succeeded(call("al-data", "toy", "--task", "review", "--labels", "--limit", 4))
    assert written == list(world.labelled("review", limit=4))
    written = succeeded(call("al-data", "toy", "--by", "polite", "--limit", 4, "--only", "pref"))
    assert [list(record) for record in written] == [["id", "prompt", "chosen", "rejected", "domain"]] * 4


def test_head_ends_it_quietly():
    pipe = subprocess.Popen(command("al-data", "toy", "--limit", 200_000), stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, env=environment())
    first = pipe.stdout.readline()
    pipe.stdout.close()
    assert json.loads(first) == next(world.records("dialogue"))
    assert pipe.wait() == 0 and pipe.stderr.read() == b""


@pytest.mark.parametrize("arguments, message", [
    (["toys"], "No such command 'toys'"),
    (["toy", "--task", "chess"], "'chess' is not one of 'dialogue', 'summary', 'review'"),
    (["toy", "--split", "dev"], "'dev' is not one of"),
    (["toy", "--labels", "--only", "sft"], "--labels or --only: give one of the two"),
    (["toy", "--labels", "--task", "summary"], "--labels is for the tasks"),
    (["hh", "--from", "/no/such/file"], "does not exist"),
    (["toy", "-o", "{tmp}/no/folder"], "no/folder: no such folder"),
    (["hh", "--part", "x"], "'x' is not one of 'harmless-base'"),
    (["new-model", "{tmp}/a", "/no/such/file"], "/no/such/file: no such file"),
    (["new-model", "{tmp}/a", "--size", "7b"], "'7b' is not one of '1m', '2m'"),
])
def test_usage_mistakes_are_one_line(tmp_path, arguments, message):
    done = call("al-data", *(argument.format(tmp=tmp_path) for argument in arguments))
    assert done.returncode == 2 and done.stdout == ""
    assert message in done.stderr and len(done.stderr.splitlines()) == 1


def test_hh_from_a_pipe_counts_what_it_drops():
    done = call("al-data", "hh", "--from", "-", stdin=lines(PAIR, SAME, PAIR))
    assert succeeded(done) == [RECORD, RECORD]
    assert "2 records, 1 dropped (no answer differs by more than white space)" in done.stderr


def test_records_pass_through_unchanged(tmp_path):
    path = tmp_path / "pairs.train.jsonl.gz"
    path.write_bytes(gzip.compress(lines({"id": "a", **RECORD, "extra": [1, None]})))
    assert succeeded(call("al-data", "hh", "--from", path)) == [{"id": "a", **RECORD, "extra": [1, None]}]
    assert succeeded(call("al-data", "hh", "--from", path, "--only", "sft")) == [
        {"id": "a", "prompt": RECORD["prompt"], "chosen": RECORD["chosen"]}]
    assert succeeded(call("al-data", "hh", "--from", path, "--only", "prompts")) == [
        {"id": "a", "prompt": RECORD["prompt"]}]


@pytest.mark.parametrize("text, message", [
    (lines(PAIR) + b'{"chosen": \n', "<stdin>:2: broken JSON"),
    (lines(PAIR) + b"[1]\n", "<stdin>:2: expected an object, got an array"),
    (lines(PAIR, {"chosen": "x"}), "<stdin>:2: rejected: missing"),
    (lines(PAIR, {**PAIR, "rejected": None}), "<stdin>:2: rejected: expected a string, got null"),
])
def test_bad_rows_are_named(text, message):
    done = call("al-data", "hh", "--from", "-", stdin=text)
    assert done.returncode == 65 and len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith(f"al-data: {message}")
    assert [json.loads(line) for line in done.stdout.splitlines()] == [RECORD]  # what came before is out


def test_empty_input_is_no_mistake(tmp_path):
    (tmp_path / "empty.jsonl").write_text("")
    done = call("al-data", "hh", "--from", tmp_path / "empty.jsonl")
    assert (done.returncode, done.stdout) == (0, "") and "0 records" in done.stderr
