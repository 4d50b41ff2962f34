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
from alignlib.records.disk import DiskFull, Held, StateError
from alignlib.training import loop, run_folder
from alignlib.training.run_folder import Run, step_of
from helpers import tiny
from helpers.disks import file_limit, small_disk
from helpers.process import command, environment
from helpers.training import examples, fit, log, same, weights

pytestmark = pytest.mark.slow

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


# -- a full disk, a second run -----------------------------------------------------------------------------------


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("what", ["checkpoint", "final"])
def test_a_full_disk_leaves_the_checkpoint_that_resume_needs(what, tmp_path):
    """At the second checkpoint, or at the model's own end: the resumed run is the unbroken one."""
    how = {"steps": 6, "save_every": 2 if what == "checkpoint" else 4}
    fit(tmp_path / "whole", keep=0, **how)
    with small_disk(tmp_path, 100_000) as small:
        weight = (tmp_path / "whole" / "model.safetensors").stat().st_size
        small.grow(3 * weight // 1024 + 80)  # one checkpoint: the weights, and two figures of each that Adam keeps
        with pytest.raises(DiskFull, match=f"^no space left on device: {small.at / 'run'}$"):
            fit(small.at / "run", **how)
        assert names(small.at / "run") == [f"checkpoint-{how['save_every']}", "log.jsonl", "started.json"]
        small.grow(100_000)
        _, made = fit(small.at / "run", resume=True, keep=0, **how)
        assert step_of(made.checkpoint) == how["save_every"]
        same(weights(small.at / "run"), weights(tmp_path / "whole"))
        assert names(small.at / "run") == names(tmp_path / "whole")


def test_a_file_that_may_not_grow_is_said_as_one(tmp_path):
    """Whatever library writes it: the tokenizer, the weights, what the optimizer keeps."""
    fit(tmp_path / "run", steps=1)
    sizes = {path.name: path.stat().st_size for path in (tmp_path / "run").iterdir()}
    model, tokenizer = sizes["model.safetensors"], sizes["tokenizer.json"]
    assert sizes["run.json"] < tokenizer < model
    for number, limit in enumerate((tokenizer - 1, model - 1, model + 1)):
        folder = tmp_path / f"run-{number}"
        with file_limit(limit), pytest.raises(DiskFull, match=f"^file too large: {folder}$"):
            fit(folder, steps=2, save_every=1)
        assert names(folder) == ["log.jsonl", "started.json"]


def test_the_log_is_cut_without_being_written_anew(tmp_path, monkeypatch):
    """So that a full disk cannot take it."""
    _, made = fit(tmp_path / "run", steps=4)
    before = (tmp_path / "run" / "log.jsonl").read_bytes().splitlines(keepends=True)
    with open(tmp_path / "run" / "log.jsonl", "ab") as handle:
        handle.write(b'{"step": 5, "lo')
    with file_limit(0):
        assert made.last_entry(3)["step"] == 3
    assert (tmp_path / "run" / "log.jsonl").read_bytes() == b"".join(before[:3])


def begun(folder, **changes):
    made = run_folder.Run(tiny.recipe(folder, **changes), {"command": "test"})
    made.begin()
    return made


def test_a_second_run_ends_and_takes_nothing(tmp_path):
    (tmp_path / "link").symlink_to("run")
    first = begun(tmp_path / "run")
    first.log({"step": 1, "tokens": 1})
    before = names(tmp_path / "run")
    for name in ("run", "link"):
        with pytest.raises(StateError, match=f"{name}: another run is writing it"):
            begun(tmp_path / name, resume=True)
    assert names(tmp_path / "run") == before and log(tmp_path / "run") == [{"step": 1, "tokens": 1}]


def test_of_two_runs_that_began_together_the_later_one_changes_nothing(tmp_path):
    """Whether the other has been killed meanwhile or has come to its end."""
    first, late = (run_folder.Run(tiny.recipe(tmp_path / "run"), {"command": "test"}) for _ in range(2))
    first.begin()
    del first  # as the end of its process
    resumed = run_folder.Run(tiny.recipe(tmp_path / "run", resume=True), {"command": "test"})
    with pytest.raises(StateError, match="another run has been writing it since this one began"):
        late.begin()
    late.leave_nothing()
    del late
    (tmp_path / "run" / "started.json").rename(tmp_path / "run" / "run.json")
    with pytest.raises(StateError, match="another run has been writing it since this one began"):
        resumed.begin()
    assert names(tmp_path / "run") == ["log.jsonl", "run.json"]


def test_what_a_killed_run_was_writing_goes(tmp_path):
    begun(tmp_path / "run")
    for name in (".checkpoint", ".final"):
        (tmp_path / "run" / name).mkdir()
    (tmp_path / "run" / "best.pt.partial").write_bytes(b"half")
    begun(tmp_path / "run", resume=True)
    assert names(tmp_path / "run") == ["log.jsonl", "started.json"]


def test_a_link_is_written_through(tmp_path):
    (tmp_path / "link").symlink_to("far/run")
    fit(tmp_path / "link", steps=1)
    assert (tmp_path / "link").is_symlink() and (tmp_path / "far" / "run" / "run.json").exists()


@pytest.mark.parametrize("there", [False, True])
def test_a_failed_start_leaves_nothing(tmp_path, there):
    """Neither files nor folders that were not there; but what has been logged stays."""
    folder = tmp_path / "a" / "run"
    if there:
        folder.mkdir(parents=True)
    made = begun(folder)
    made.leave_nothing()
    assert names(tmp_path) == (["a"] if there else []) and (not there or names(folder) == [])
    with file_limit(10), pytest.raises(DiskFull):
        made = run_folder.Run(tiny.recipe(folder), {"command": "test"})
        made.begin()
    made.leave_nothing()
    assert not folder.exists() or names(folder) == []
    made = begun(folder)
    made.log({"step": 1, "tokens": 1})
    made.leave_nothing()
    assert names(folder) == ["log.jsonl", "started.json"]


def test_a_run_that_is_gone_on_with_is_no_start(tmp_path):
    begun(tmp_path / "run")
    begun(tmp_path / "run", resume=True).leave_nothing()
    assert names(tmp_path / "run") == ["log.jsonl", "started.json"]


def test_a_model_that_was_cut_after_its_end_is_not_complete(tmp_path, capfd):
    def again() -> Run:
        return Run(tiny.recipe(tmp_path / "run", steps=1, resume=True), {"command": "test"})

    fit(tmp_path / "run", steps=1)
    assert again().complete and "is complete: nothing to resume" in capfd.readouterr().err
    file = tmp_path / "run" / "model.safetensors"
    size = file.stat().st_size
    with open(file, "ab") as handle:
        handle.truncate(size - 8)
    said = f"safetensors: was finished with {size:,} bytes, and has {size - 8:,} now; removing .*/run trains anew"
    with pytest.raises(click.UsageError, match=said):
        again()
    file.unlink()
    with pytest.raises(click.UsageError, match="and has 0 now"):
        again()


def killed_while_it_read(folder, *names):
    for name in (".examples", *names):
        (folder / name).mkdir(parents=True)
        (folder / name / "ids").write_bytes(b"half")


@pytest.mark.parametrize("more", [(), (".examples-8",)])
def test_what_a_run_had_read_that_was_killed_then_stands_in_nobodys_way(tmp_path, more):
    killed_while_it_read(tmp_path / "run", *more)
    (tmp_path / "run" / "log.jsonl").touch()  # it was about to begin
    fit(tmp_path / "run", steps=1)
    assert (tmp_path / "run" / "run.json").exists() and not list((tmp_path / "run").glob(".examples*"))


def test_what_another_run_is_reading_stays(tmp_path):
    killed_while_it_read(tmp_path / "run")
    other = Held(tmp_path / "run" / ".examples" / "lock")
    with pytest.raises(StateError, match="run: another run is writing it"):
        fit(tmp_path / "run", steps=1)
    assert (tmp_path / "run" / ".examples" / "ids").exists()
    other.close()
    (tmp_path / "run" / "notes.txt").touch()  # somebody's
    with pytest.raises(click.UsageError, match="run: exists and is not empty"):
        fit(tmp_path / "run", steps=1)
    assert (tmp_path / "run" / ".examples" / "ids").exists()


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
    cure = f"{tmp_path} cannot be resumed: train anew, into another folder"
    with pytest.raises(click.UsageError, match=f"{name}: {words}.*; {cure}"):
        Run(tiny.recipe(tmp_path, resume=True), {})


@pytest.mark.parametrize("damage", [lambda file: file.write_bytes(file.read_bytes()[:100]), lambda file: file.unlink()])
def test_the_best_model_is_looked_at_before_the_run_goes_on(damage, tmp_path, monkeypatch):
    how = dict(data=examples(8, 5, 3, rewards=[1.0, 0.0]), objective=Ranking(), best="accuracy", steps=4, eval_every=1,
               save_every=2, held_out=examples(2, 5, 3, rewards=[1.0, 0.0]))
    finish = Run.finish
    monkeypatch.setattr(Run, "finish", lambda *_: (_ for _ in ()).throw(Stopped))
    with pytest.raises(Stopped):
        fit(tmp_path / "run", model=RewardModel(tiny.classifier("llama"), tiny.tokenizer()), **how)
    monkeypatch.setattr(Run, "finish", finish)
    damage(tmp_path / "run" / "best.pt")
    monkeypatch.setattr(loop, "train_step", None)  # no step is taken
    with pytest.raises(click.UsageError, match=r"best.pt: not a checkpoint .*; remove .*/checkpoint-\d, and --resume"):
        fit(tmp_path / "run", resume=True, model=RewardModel(tiny.classifier("llama"), tiny.tokenizer()), **how)


def test_what_is_wrong_in_a_checkpoint_gets_its_cure(tmp_path):
    made = Run(tiny.recipe(tmp_path / "run"), {})
    made.checkpoint = tmp_path / "run" / "checkpoint-2"
    cure = f"; remove {made.checkpoint}, and --resume begins anew"
    for said, more in ((f"{made.checkpoint}/model.safetensors: cut", cure),
                       (f"{made.checkpoint}/trainer.pt: cut; remove it", ""), ("--lr: no number", "")):
        assert made.with_cure(said) == said + more


def test_a_name_that_is_not_utf_8_is_written_in_escapes(tmp_path):
    run = Run(tiny.recipe(tmp_path / "run", eval="a\udcff.jsonl"), {})
    assert run.fixed["eval"] == "a\\udcff.jsonl"
