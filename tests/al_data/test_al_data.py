"""al-data as a process: pipes, options, bad rows, no network."""

import gzip
import json
import subprocess
import time

import pytest

from alignlib.toy import world
from helpers.process import call, command, environment

PAIR = {"chosen": "\n\nHuman: Hi\n\nAssistant: Hello.", "rejected": "\n\nHuman: Hi\n\nAssistant: Go."}
SAME = {"chosen": "\n\nHuman: Hi\n\nAssistant: Hello. ", "rejected": "\n\nHuman: Hi\n\nAssistant: Hello."}
RECORD = {"prompt": "\n\nHuman: Hi\n\nAssistant:", "chosen": " Hello.", "rejected": " Go."}


def lines(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def records(done):
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("name", [(), ("toy",), ("hh",), ("imdb",), ("sharegpt",), ("new-model",)])
def test_every_command_has_help(name):
    done = call("al-data", *name, "--help")
    assert done.returncode == 0 and len(done.stdout.splitlines()) > 8


def test_help_imports_nothing_heavy():
    program = ("import sys, al_data; print([name for name in ('torch', 'transformers', 'datasets', 'numpy', 'pyarrow', "
               "'tokenizers') if name in sys.modules])")
    done = subprocess.run([*command("al-data")[:2], program], capture_output=True, env=environment(), check=True)
    assert done.stdout.decode().strip() == "[]"


# ------------------------------------------------------------------------------------------------------- the toy world


def test_toy_writes_the_world_of_the_library():
    made = records(call("al-data", "toy", "--limit", 5, "--seed", 7, "--split", "test"))
    assert made == list(world.records("dialogue", "test", 7, 5))
    assert len(records(call("al-data", "toy", "--task", "summary"))) == 2000


def test_toy_labels_and_domains():
    made = records(call("al-data", "toy", "--task", "review", "--labels", "--limit", 4))
    assert made == list(world.labelled("review", limit=4))
    made = records(call("al-data", "toy", "--by", "polite", "--limit", 4, "--only", "pref"))
    assert [list(record) for record in made] == [["id", "prompt", "chosen", "rejected", "domain"]] * 4


def test_head_ends_it_quietly():
    pipe = subprocess.Popen(command("al-data", "toy", "--limit", 200_000), stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, env=environment())
    first = pipe.stdout.readline()
    pipe.stdout.close()
    assert json.loads(first) == next(world.records("dialogue"))
    assert pipe.wait(20) == 0 and pipe.stderr.read() == b""


@pytest.mark.parametrize("arguments, message", [
    (["toys"], "No such command 'toys'"),
    (["toy", "--task", "chess"], "'chess' is not one of 'dialogue', 'summary', 'review'"),
    (["toy", "--split", "dev"], "'dev' is not one of"),
    (["toy", "--labels", "--only", "sft"], "--labels goes with none"),
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


# -------------------------------------------------------------------------------------------------------- data sets


def test_hh_from_a_pipe_counts_what_it_drops():
    done = call("al-data", "hh", "--from", "-", stdin=lines(PAIR, SAME, PAIR))
    assert records(done) == [RECORD, RECORD]
    assert "2 records, 1 dropped (no answer differs by more than white space)" in done.stderr


def test_records_pass_through_unchanged(tmp_path):
    path = tmp_path / "pairs.train.jsonl.gz"
    path.write_bytes(gzip.compress(lines({"id": "a", **RECORD, "extra": [1, None]}).encode()))
    assert records(call("al-data", "hh", "--from", path)) == [{"id": "a", **RECORD, "extra": [1, None]}]
    assert records(call("al-data", "hh", "--from", path, "--only", "sft")) == [
        {"id": "a", "prompt": RECORD["prompt"], "chosen": RECORD["chosen"]}]
    assert records(call("al-data", "hh", "--from", path, "--only", "prompts")) == [
        {"id": "a", "prompt": RECORD["prompt"]}]


def test_tldr_and_imdb_from_files(tmp_path):
    post = {"subreddit": "a", "title": "b", "post": "c", "summary": " d"}
    prompt = "SUBREDDIT: r/a\nTITLE: b\nPOST: c\nTL;DR:"
    assert records(call("al-data", "tldr", "--from", "-", stdin=lines(post))) == [{"prompt": prompt, "chosen": " d"}]
    pair = {"info": post, "summaries": [{"text": "x"}, {"text": "y "}], "choice": 1}
    assert records(call("al-data", "tldr-pref", "--from", "-", stdin=lines(pair))) == [
        {"prompt": prompt, "chosen": " y", "rejected": " x", "domain": "summarisation"}]
    for label, text in (("pos", "a fine film"), ("neg", "a poor film")):
        (tmp_path / "train" / label).mkdir(parents=True)
        (tmp_path / "train" / label / "0_1.txt").write_text(text)
    assert records(call("al-data", "imdb", "--from", tmp_path, "--labels")) == [
        {"text": "a poor film", "label": "negative"}, {"text": "a fine film", "label": "positive"}]
    assert records(call("al-data", "imdb", "--from", tmp_path, "--prompt-words", 2))[1] == {
        "prompt": "a fine", "chosen": " film"}


def test_a_file_is_split_by_the_prompt_s_hash(tmp_path):
    path = tmp_path / "all.jsonl"
    path.write_text(lines(*({**RECORD, "prompt": f"{number}:"} for number in range(500))))
    train, test = (records(call("al-data", "hh", "--from", path, "--split", split)) for split in world.SPLITS)
    assert len(train) + len(test) == len(records(call("al-data", "hh", "--from", path))) == 500
    assert not {record["prompt"] for record in train} & {record["prompt"] for record in test}
    assert 25 < len(test) < 80


def test_shuffle_is_seeded_and_loses_nothing():
    def run(*extra):
        return records(call("al-data", "toy", "--limit", 30, "--shuffle", *extra))

    by_id = {record["id"]: record for record in run("--seed", 1)}
    assert len(by_id) == 30 and list(by_id) != sorted(by_id)
    assert run("--seed", 1) == list(by_id.values())


@pytest.mark.parametrize("text, message", [
    (lines(PAIR) + '{"chosen": \n', "<stdin>:2: broken JSON"),
    (lines(PAIR) + "[1]\n", "<stdin>:2: expected an object, got an array"),
    (lines(PAIR, {"chosen": "x"}), "<stdin>:2: rejected: missing"),
    (lines(PAIR, {**PAIR, "rejected": None}), "<stdin>:2: rejected: expected a string, got null"),
])
def test_bad_rows_are_named(text, message):
    done = call("al-data", "hh", "--from", "-", stdin=text)
    assert done.returncode == 65 and len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith(f"al-data: {message}")
    assert [json.loads(line) for line in done.stdout.splitlines()] == [RECORD]  # what came before is out


def test_only_needs_its_fields():
    done = call("al-data", "tldr", "--from", "-", "--only", "pref", stdin=lines({"prompt": "p", "chosen": "c"}))
    assert done.returncode == 65 and "have no rejected" in done.stderr


def test_empty_input_is_no_mistake(tmp_path):
    (tmp_path / "empty.jsonl").write_text("")
    done = call("al-data", "hh", "--from", tmp_path / "empty.jsonl")
    assert (done.returncode, done.stdout) == (0, "") and "0 records" in done.stderr


def test_output_file_is_whole_or_absent(tmp_path):
    target = tmp_path / "out.jsonl"
    assert call("al-data", "hh", "--from", "-", "-o", target, stdin=lines(PAIR)).returncode == 0
    assert json.loads(target.read_text()) == RECORD
    assert call("al-data", "hh", "--from", "-", "-o", target, stdin=lines(PAIR) + "x\n").returncode == 65
    assert list(tmp_path.iterdir()) == [target]
    assert target.read_text() == json.dumps(RECORD, separators=(",", ":")) + "\n"  # the earlier one, untouched
    assert call("al-data", "hh", "--from", "-", "-o", "/dev/null", stdin=lines(PAIR)).returncode == 0


def test_offline_says_how_to_go_on(tmp_path):
    """A host that refuses at once stands for a machine without network."""
    settings = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path)}
    clean = {name: value for name, value in environment().items() if "proxy" not in name.lower()}
    for name in ("hh", "tldr", "tldr-pref", "imdb", "sharegpt"):
        start = time.monotonic()
        done = subprocess.run(command("al-data", name), capture_output=True, env={**clean, **settings})
        message = done.stderr.decode()
        assert done.returncode == 1 and done.stdout == b"", message
        assert len(message.splitlines()) == 1 and "cannot reach the Hub" in message and "--from PATH" in message
        assert time.monotonic() - start < 20  # the Hub's client alone retries for longer
