"""How a result of al-eval is written: its labels, JSON or a table, never over its input."""

import json
import os
import pty
import subprocess

import pytest

from helpers.disks import file_limit
from helpers.evaluation import evaluate, jsonl, record, refused
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


@pytest.mark.parametrize("args, fields", [
    ("reward", {}), ("reward --as gold", {}), ("reward --against FILE", {}), ("kl", {"logps": [1], "ref_logps": [0]}),
    ("winrate", {"completions": ["a", "b"], "rewards": [1, 0]}),
    ("winrate x=FILE FILE", {"completions": ["a", "b"], "rewards": [1, 0]}),
    ("rm --by subset", {"completions": ["a", "b"], "rewards": [1, 0], "subset": "s"}),
    ("text", {}), ("conditions", {"condition": "Good."}), ("toxicity", {"toxicities": [0.5]}),
    ("difference a=FILE b=FILE", {}),
    ("difference a=FILE b=FILE --at-equal-kl", {"logps": [1], "ref_logps": [0]}),
])
def test_a_label_that_is_a_figure_s_name_is_refused_before_anything_is_read(args, fields, tmp_path):
    """Each of the result's own, though no line of the input can be read: judges are asked later, models written."""
    good, bad = tmp_path / "good.jsonl", tmp_path / "bad.jsonl"
    good.write_text(jsonl({"prompt": "p", "completions": ["a"], "rewards": [1], **fields}))
    bad.write_text("no record\n")
    done = call("al-eval", *args.replace("FILE", str(good)).split(), stdin=good.read_text())
    assert done.returncode == 0, done.stderr
    own = {name for line in done.stdout.splitlines() for name in json.loads(line)} - {"what"}
    for name in own:
        message = refused(2, *args.replace("FILE", str(bad)).split(), "--set", f"{name}=1", stdin=bad.read_text())
        assert message.startswith(f"al-eval: --set {name}=...: the result has a {name} of its own")


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


@pytest.mark.slow
def test_outputs_are_kept_apart(tmp_path):
    data, plot = tmp_path / "x.jsonl", tmp_path / "same.png"
    data.write_bytes(jsonl(record(1)).encode())
    (tmp_path / "link.png").symlink_to(data)
    for paths in (("-o", plot, "--plot", plot), ("--plot", tmp_path / "link.png"),
                  ("--plot", tmp_path / "none" / "x.png")):
        assert call("al-eval", "rm", data, *paths).returncode == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.png", "x.jsonl"]


@pytest.mark.slow
def test_a_full_disk_leaves_the_earlier_result(tmp_path):
    for name in ("far", "old"):
        (tmp_path / name).write_text("dear")
    (tmp_path / "link").symlink_to("far")
    data = jsonl(record(1))
    for name in ("old", "new", "link"):
        with file_limit(10):
            done = call("al-eval", "reward", "-o", tmp_path / name, stdin=data)
        assert (done.returncode, done.stderr) == (1, f"al-eval: file too large: {tmp_path}\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["far", "link", "old"]
    assert (tmp_path / "far").read_text() == (tmp_path / "old").read_text() == "dear"
    assert call("al-eval", "reward", "-o", tmp_path / "link", stdin=data).returncode == 0
    assert json.loads((tmp_path / "far").read_text())["records"] == 1 and (tmp_path / "link").is_symlink()
