"""How a result of al-eval is written: its labels, JSON or a table, never over its input."""

import json
import os
import pty
import subprocess

from helpers.evaluation import evaluate, jsonl, record
from helpers.process import call, command, environment


def test_set_comes_first_but_never_instead():
    labels = ["--set", "method=exo-rw", "--set", "step=20", "--set", "what=x"]
    figures = evaluate("reward", *labels, stdin=jsonl(record(1)))
    assert list(figures)[:4] == ["what", "method", "step", "records"]
    assert (figures["what"], figures["method"], figures["step"]) == ("reward", "exo-rw", 20)


def test_a_label_does_not_take_the_place_of_a_figure():
    record = {"prompt": "p", "completions": ["a"], "rewards": [1]}
    done = call("al-eval", "reward", "--as", "method", "--set", "method=a", stdin=json.dumps(record) + "\n")
    assert done.returncode == 2 and "--set method" in done.stderr


def test_table_on_a_terminal_json_in_a_pipe(tmp_path):
    data = jsonl(*(record(i, i + 1) for i in range(4)))
    shown = call("al-eval", "reward", "--table", stdin=data).stdout
    assert shown.splitlines()[0].split() == ["figure", "value", "n"]
    assert any(line.split()[0] == "reward" and line.split()[-1] == "8" for line in shown.splitlines())
    # A real terminal as standard output gives the same table.
    mine, theirs = pty.openpty()
    subprocess.run(command("al-eval", "reward"), input=data.encode(), stdout=theirs, stderr=subprocess.DEVNULL,
                   env=environment(), check=True)
    os.close(theirs)
    assert os.read(mine, 1 << 16).decode().replace("\r\n", "\n") == shown
    os.close(mine)
    # A file gets JSON.
    done = call("al-eval", "reward", "-o", tmp_path / "out.json", stdin=data)
    assert done.stdout == "" and json.loads((tmp_path / "out.json").read_text())["records"] == 4


def test_figures_in_a_table_agree_with_the_json():
    data = jsonl(*(record(i % 5, 1, prompt=f"p{i}") for i in range(50)))
    mean = evaluate("rm", stdin=data)["accuracy"]
    row = next(line for line in call("al-eval", "rm", "--table", stdin=data).stdout.splitlines() if "accuracy" in line)
    assert row.split() == ["accuracy", f"{mean['mean']:.2f}", f"[{mean['low']:.2f},", f"{mean['high']:.2f}]", "50"]


def test_the_input_is_not_the_output(tmp_path):
    data = tmp_path / "x.jsonl"
    data.write_text('{"prompt": "p", "completions": ["a"], "rewards": [1]}\n')
    before = data.read_bytes()
    for output in (data, tmp_path / "none" / "x.json"):
        assert call("al-eval", "reward", data, "-o", output).returncode == 2
    assert data.read_bytes() == before
