"""What a training run leaves in its folder and goes on from: checkpoints, the best model, signals."""

import itertools
import json
import signal
import subprocess

import click
import pytest
import torch

import al_sft
from al_train_rm.ranking import Ranking
from alignlib.cli import exits
from alignlib.models import load
from alignlib.models.policy import RewardModel
from alignlib.training import loop, run_folder
from alignlib.training.run_folder import Run
from helpers import tiny
from helpers.process import command, environment
from helpers.training import examples, fit, log, same, weights

# -- checkpoints ------------------------------------------------------------------------------------------------


class Stopped(Exception):
    """Stands for a kill."""


@pytest.mark.parametrize("changes", [{}, {"lora": 2}, {"lora": 2, "lora_dropout": 0.5},
                                     {"optimizer": "rmsprop", "schedule": "cosine", "warmup": 2}])
def test_a_resumed_run_is_the_unbroken_one(changes, tmp_path, monkeypatch):
    """Bitwise: weights, and the log less its clock. The data goes on where it was, in the same order."""
    how = {"steps": 7, "save_every": 2, "batch_size": 3, "pack_tokens": 60, **changes}
    fit(tmp_path / "whole", **how)

    def stop_at(*args):
        if next(steps) == 5:
            raise Stopped
        return step_of(*args)

    steps, step_of = itertools.count(), loop.train_step
    monkeypatch.setattr(loop, "train_step", stop_at)
    with pytest.raises(Stopped):
        fit(tmp_path / "broken", **how)
    monkeypatch.setattr(loop, "train_step", step_of)
    _, made = fit(tmp_path / "broken", resume=True, **how)
    assert made.checkpoint.name == "checkpoint-4"
    same(weights(tmp_path / "broken"), weights(tmp_path / "whole"))
    logs, files = [], []
    for folder in (tmp_path / "broken", tmp_path / "whole"):
        logs.append([{**entry, "tokens_per_second": None} for entry in log(folder)])
        files.append({path.name for path in folder.iterdir()})
    assert logs[0] == logs[1] and len(logs[0]) == 7 and files[0] == files[1]


@pytest.mark.parametrize("keep, kept", [(1, []), (2, [4, 6]), (0, [2, 4, 6])])
def test_checkpoints_that_are_kept(keep, kept, tmp_path):
    _, made = fit(tmp_path / "run", steps=6, save_every=2, keep=keep)
    assert sorted(run_folder.step_of(path) for path in made.folder.glob("checkpoint-*")) == kept
    for step in kept:
        assert weights(made.folder / f"checkpoint-{step}")
    left = {path.name for path in made.folder.rglob("*")}
    assert "run.json" in left and not left & {"trainer.pt", "started.json", "ref_logps.pt", ".checkpoint", ".final"}


def test_a_share_of_the_run_between_checkpoints(tmp_path):
    _, made = fit(tmp_path / "run", steps=9, save_every=0.3, keep=0)
    assert sorted(run_folder.step_of(path) for path in made.folder.glob("checkpoint-*")) == [3, 6, 9]


def test_the_best_model_is_the_one_saved(tmp_path, monkeypatch):
    """Accuracies 0.5, 0.9, 0.7 at steps 2, 4, 6: the weights are those after step 4, also when resumed from it."""
    figures, states = iter([0.5, 0.9, 0.7]), []

    def judged(model, *_):
        states.append({name: weight.clone() for name, weight in model.core.state_dict().items()})
        return {"accuracy": next(figures)}

    monkeypatch.setattr(loop, "evaluate", judged)
    data = examples(8, 5, 3, rewards=[1.0, 0.0])
    how = dict(data=data, objective=Ranking(), held_out=data[:2], best="accuracy", steps=6, eval_every=2, save_every=4)
    reward = RewardModel(tiny.classifier("llama"), tiny.tokenizer())
    _, made = fit(tmp_path / "run", model=reward, **how)
    loaded = load.load_reward(str(made.folder), "cpu", "fp32").core.state_dict()
    same(loaded, states[1])
    assert not torch.equal(states[1]["score.weight"], states[2]["score.weight"])
    final = json.loads((made.folder / "run.json").read_text())["final"]
    assert final["best_accuracy"] == 0.9 and final["eval_accuracy"] == 0.7
    assert [entry.get("eval_accuracy") for entry in log(made.folder)] == [None, 0.5, None, 0.9, None, 0.7]


# -- signals, by real processes -----------------------------------------------------------------------------------


def sft(folder, given, data, *more):
    return [given, str(data), "-o", str(folder), "--batch-size=2", "--steps=120", "--lr=1e-3", *more]


def process(*args):
    """Its standard output is so narrow that it has to wait, after some twenty lines, until they are read."""
    return subprocess.Popen(command("al-sft", *args), env=environment(), stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True, pipesize=4096)


@pytest.fixture
def prepared(tmp_path):
    """A policy folder and a file of ten records."""
    lines = [json.dumps({"prompt": f"Q{i}: the", "chosen": f" answer {i}"}) for i in range(10)]
    (tmp_path / "data.jsonl").write_text("\n".join(lines))
    return tiny.save(tiny.causal("llama"), tmp_path / "given"), tmp_path / "data.jsonl"


@pytest.mark.long
@pytest.mark.slow
def test_sigterm_saves_and_exits_143_and_the_run_goes_on(prepared, tmp_path):
    with pytest.raises(SystemExit, match="^0$"):
        al_sft.main(sft(tmp_path / "whole", *prepared), prog_name="al-sft")
    first = process(*sft(tmp_path / "run", *prepared))
    for _ in range(3):
        first.stdout.readline()
    first.send_signal(signal.SIGTERM)
    _, errors = first.communicate()
    assert first.returncode == exits.TERMINATED == 143, errors
    (checkpoint,) = (tmp_path / "run").glob("checkpoint-*")
    step = run_folder.step_of(checkpoint)
    assert 3 <= step < 120
    assert errors == f"al-sft: stopped by SIGTERM after step {step}; --resume goes on\n"
    second = process(*sft(tmp_path / "run", *prepared, "--resume"))
    rest, errors = second.communicate()
    assert second.returncode == 0, errors
    assert [json.loads(line)["step"] for line in rest.splitlines()] == list(range(step + 1, 121))
    same(weights(tmp_path / "run"), weights(tmp_path / "whole"))


def test_a_loss_that_is_no_number_is_exit_code_1(prepared, tmp_path, capfd):
    with pytest.raises(SystemExit, match="^1$"):
        al_sft.main(sft(tmp_path / "run", *prepared, "--lr=1e30", "--warmup=0"), prog_name="al-sft")
    errors = capfd.readouterr().err
    assert "FloatingPointError: the loss is " in errors and errors.count("\n") == 1
    assert not (tmp_path / "run" / "run.json").exists()


@pytest.mark.parametrize("name", ["started.json", "run.json"])
@pytest.mark.parametrize(("content", "words"), [
    (b'{"options": {"le', "broken JSON"), (b"[]", "expected an object"), (b"{}", "options: not what a training writes"),
    (b'{"options": 3}', "options: not what a training writes"), (b"", "broken JSON"),
])
def test_what_a_run_was_is_said_to_be_damaged(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(click.UsageError, match=f"{name}: {words}"):
        Run(tiny.recipe(tmp_path, resume=True), {})


def test_a_name_that_is_not_utf_8_is_written_in_escapes(tmp_path):
    run = Run(tiny.recipe(tmp_path / "run", eval="a\udcff.jsonl"), {})
    assert run.fixed["eval"] == "a\\udcff.jsonl"
