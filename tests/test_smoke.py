"""Experiments that really run, to their reports: SCALE=smoke, tens of records and a few steps in the toy world.

`make test` runs three of them, `make smoke` all.
"""

import json
import subprocess
import sys

import pytest

from helpers import forks, tiny
from helpers.process import ROOT, call, environment

EXO = ["sft", "exo-pref", "exo-rw", "dpo-pref", "dpo-rw"]
ARGS = ["greedy", "top-k", "nucleus", "contrastive", "best-of-8", "segment", "args-greedy-1", "args-stochastic-1",
        "ppo", "ppo-args-greedy-1",
        *(f"{size}{way}-1" for size in ("", "half-") for way in ("args-prefixes", "next-token", "vocabulary"))]
ALT = ["sft", "iteration-1", "iteration-2"]
FEEDBACK = ["teacher, 50 %", "teacher, 50 % + AI feedback", "teacher, 100 %"]
# The rows of each experiment's tables, the longest experiments first.
ROWS = {
    "hh-more": ["helpful", "harmless", "polite", "concise", "multitask", "more"],
    "rlaif": [f"{teacher} {row}" for teacher in ("weak", "strong") for row in FEEDBACK],
    "hh-exo": [*EXO, "ppo"], "tldr-exo": EXO, "imdb-exo": EXO,
    "hh-online": ["sft", "exo-rw", "online-exo-rw", "online-dpo-rw", "ppo", "rloo", "grpo"],
    "tldr-alt-rm": [*ALT, "ppo", "ppo-5"], "tldr-quark": [*ALT, "ppo", "ppo-5"],
    "rtp-alt": ALT, "tldr-alt-lmu": ALT, "hh-alt-lmc": ALT, "hh-steerlm": ALT,
    "hh-args": ARGS, "shp-args": ARGS, "chat": ["before", "after"], "grpo-chat": ["before", "words", "rm"],
}
ALWAYS = {"hh-exo", "hh-args", "tldr-alt-rm"}


def tables(text: str) -> list[dict[str, list[str]]]:
    """The tables of a Markdown text, each {row: [cell, ...]}."""
    all_tables: list[dict[str, list[str]]] = []
    for before, line in zip(["", *text.splitlines()], text.splitlines(), strict=False):
        row, *cells = [cell.strip() for cell in line[1:-1].split("|")] if line.startswith("|") else [""]
        if row and not before.startswith("|"):
            all_tables.append({})
        elif row and set(row) != {"-"}:
            all_tables[-1][row] = cells
    return all_tables


def check(text: str, rows: list[str]) -> None:
    """Every table of a report has these rows, in their order, and a number in every cell."""
    assert tables(text)
    for table in tables(text):
        assert list(table) == rows, text
        assert all(any(letter.isdigit() for letter in cell) for cells in table.values() for cell in cells), text


def made(name: str, runs, venv, *settings: str) -> None:
    """Make an experiment, with the commands of a virtual environment."""
    done = subprocess.run(
        ["make", name, "JOBS=1", f"RUNS={runs}", "SETUP=", f"VENV={venv}", *settings], cwd=ROOT,
        env={**environment(), "MAKEFLAGS": ""}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
@pytest.mark.experiment
@pytest.mark.parametrize("name", [
    name if name in ALWAYS else pytest.param(name, marks=pytest.mark.smoke) for name in ROWS])
def test_it_runs_to_its_report(name, tmp_path):
    venv = sys.prefix if name == "imdb-exo" else forks.folder()  # one with the scripts of an installation
    made(name, tmp_path, venv, "SCALE=smoke")
    check((tmp_path / f"smoke-{name}" / "report" / "table.md").read_text(), ROWS[name])


# Of SCALE=real: as little as a setting allows, on a chat model of the toy world.
LITTLE = [
    "real.sft=--lora 4 --lr 1e-3 --steps 2", "real.rm=--lora 4 --lr 1e-3 --steps 2", "real.prompts=8",
    "real.align=--lora 4 --lr 1e-3 --batch-size 4", "real.on-policy=--lora 4 --lr 1e-3 --batch-size 8",
    "real.learn=--lora 4 --lr 1e-3 --batch-size 4", "real.a-rollout=4", "tldr-alt-rm.real.a-rollout=2",
    "hh.real.pairs=24", "hh.real.held-out=6", "tldr.real.records=12", "tldr.real.held-out=6", "real.round=4",
    "real.samples=5", "real.weights=1", "real.new-tokens=12"]
REAL = {"hh-exo": [*EXO, "grpo"], "tldr-alt-rm": [*ALT, "ppo", "ppo-5"],
        "hh-args": ["greedy", "top-k", "nucleus", "contrastive", "best-of-8", "segment", "args-greedy-1",
                    "args-stochastic-1", "next-token-1"]}


@pytest.mark.slow
@pytest.mark.experiment
@pytest.mark.smoke
@pytest.mark.parametrize("name", REAL)
def test_a_real_model_runs_to_its_report(name, tmp_path):
    """A chat model, files of pairs or summaries; what judges is trained too, on the other half of the pairs."""
    model = tiny.causal("llama", max_position_embeddings=512, vocab_size=300)
    tiny.save(model, tmp_path / "chatty", tiny.chat_tokenizer())
    for part in ("train", "test"):
        task = ["--task", "summary"] if name == "tldr-alt-rm" else []
        done = call("al-data", "toy", *task, "--limit", 80, "--split", part)
        (tmp_path / f"{'sft' if task else 'pairs'}.{part}.jsonl").write_text(done.stdout)
    made(name, tmp_path / "runs", forks.folder(), "SCALE=real", f"MODEL={tmp_path}/chatty", f"DATA={tmp_path}", *LITTLE)
    (report,) = tmp_path.glob("runs/*/report")
    check((report / "table.md").read_text(), REAL[name])
    if name != "tldr-alt-rm":
        assert json.loads((report / "gold.json").read_text())["records"] == 6
    if name == "hh-exo":
        before, *after = json.loads((report / "frontier.json").read_text())["points"]
        assert before["method"] == "sft" and abs(before["kl"]["mean"]) < 0.01
        assert {point["method"] for point in after} == set(REAL[name]) - {"sft"}


def test_all_experiments_are_here():
    assert set(ROWS) == {path.parent.name for path in (ROOT / "examples").glob("*/experiment.mk")}
    assert set(ROWS) >= ALWAYS


TABLE = "accuracy:\n\n| method | all |\n| --- | ---: |\n| sft | 1 [0, 2] |\n| exo-rw | 2 [1, 3] |\n"


def test_a_report_that_lacks_a_row_or_a_figure_is_noticed():
    check(TABLE, ["sft", "exo-rw"])
    check(TABLE + "\n" + TABLE, ["sft", "exo-rw"])
    lacking = TABLE.replace("| exo-rw | 2 [1, 3] |\n", "")
    for text in ("", lacking, f"{TABLE}\n{lacking}", TABLE.replace("2 [1, 3]", "")):
        with pytest.raises(AssertionError):
            check(text, ["sft", "exo-rw"])


def test_a_step_that_fails_fails_the_experiment(tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "al-data").write_text("#!/bin/sh\necho '{}'\nexit 1\n")
    (tmp_path / "bin" / "al-data").chmod(0o755)
    done = subprocess.run(["make", "hh-exo", "SCALE=smoke", f"RUNS={tmp_path}", "SETUP=", f"VENV={tmp_path}"], cwd=ROOT,
                          env={**environment(), "MAKEFLAGS": ""}, capture_output=True, text=True)
    assert done.returncode == 2 and not (tmp_path / "smoke-hh-exo" / "train.jsonl").exists()
