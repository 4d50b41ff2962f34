"""What all of al-eval's subcommands share: empty input, bad lines, missing fields, usage, help."""

import json
import subprocess
import sys

import pytest

from helpers.evaluation import NONE, jsonl, record, refused, save
from helpers.process import call, environment

ALL = ["reward", "rm", "kl", "text", "frontier", "curve", "table"]


@pytest.mark.parametrize("what", ALL)
def test_empty_input(what):
    done = call("al-eval", what)
    figures = json.loads(done.stdout)
    assert done.returncode == 0 and figures["what"] == what
    assert done.stderr.startswith(f"al-eval {what}: 0 records, ") or "records" not in figures
    assert all(value == NONE for value in figures.values() if isinstance(value, dict))


@pytest.mark.parametrize("what", ALL)
@pytest.mark.slow
def test_bad_lines(what, tmp_path):
    good = {**record(1, 2), "logps": [1, 2], "ref_logps": [1, 2], "method": "a", "reward": 1, "kl": 1,
            "step": 1, "loss": 2}
    file = save(tmp_path / "data.jsonl", good)
    for bad, why in ((b"{", "broken JSON"), (b"[1]", "expected an object, got an array"), (b'"\xff"', "invalid UTF-8")):
        file.write_bytes(jsonl(good).encode() + b"\n" + bad + b"\n")
        assert refused(65, what, file).startswith(f"al-eval: {file}:3: {why}")


@pytest.mark.slow
def test_missing_and_wrong_fields():
    for what, field in (("reward", "rewards"), ("reward", "completions"), ("rm", "rewards"), ("kl", "logps"),
                        ("kl", "ref_logps"), ("text", "completions"), ("text", "prompt")):
        row = {"prompt": "p", "completions": ["a", "b"], "rewards": [1, 2], "logps": [1, 2], "ref_logps": [1, 2]}
        gone = {name: value for name, value in row.items() if name != field}
        said = refused(65, what, stdin=jsonl(row, gone))
        assert said.partition(";")[0] == f"al-eval: <stdin>:2: {field}: missing"
    message = refused(65, "reward", stdin=jsonl({"prompt": "p", "completions": ["a"], "rewards": [1, 2]}))
    assert message == "al-eval: <stdin>:1: rewards: 2 entries for 1 completions"
    message = refused(65, "reward", stdin='{"prompt": "p", "completions": ["a"], "rewards": [NaN]}\n')
    assert "<stdin>:1: NaN is no number in JSON" in message


def test_usage():
    assert "--set" in refused(2, "reward", "--set", "nonsense")
    assert "No such command" in refused(2, "nonsense")
    assert "--as words: the result has another words" in refused(2, "reward", "--as", "words")
    assert "does not exist" in refused(2, "reward", "none.jsonl")


@pytest.mark.parametrize("what", [[], *([what] for what in ALL)])
def test_help_and_schema(what):
    done = call("al-eval", *what, "--help")
    assert done.returncode == 0 and done.stdout.startswith("Usage: al-eval")
    if what:
        assert "Streams" in done.stdout or "Reads all input first" in " ".join(done.stdout.split())
        json.loads(call("al-eval", *what, "--schema").stdout)


def test_help_loads_nothing_heavy():
    code = ("import sys; import al_eval; "
            "print(sorted({'torch', 'numpy', 'scipy', 'matplotlib', 'transformers', 'datasets'} & set(sys.modules)))")
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
