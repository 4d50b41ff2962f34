"""What every trainer promises about its folder, its input, its options and its end, by the commands themselves."""

import json
import shlex
import subprocess

import pytest

from helpers.commands import (
    CONTEXT,
    folders,
    lines,
    log,
    one_line,
    pairs,
    prompts,
    read,
    rewarded,
    run,
    stopped,
    weights,
)
from helpers.process import command, environment

TRAINERS = {
    "al-sft": ("policy", lambda count: pairs(count)),
    "al-train-rm": ("reward", lambda count: pairs(count)),
    "al-train-exo": ("policy", lambda count: rewarded(count)),
}
every = pytest.mark.parametrize("name", TRAINERS)
one_of_them = pytest.mark.parametrize("name", ["al-train-exo", *(pytest.param(name, marks=pytest.mark.long)
                                                                 for name in ("al-sft", "al-train-rm"))])


def train(name, records, *args, model=None, out=None):
    """The folder, and what the command said."""
    out = out or folders().new(name)
    done = run(name, model or getattr(folders(), TRAINERS[name][0]), "-o", out, *args, stdin=lines(*records))
    assert done.returncode == 0, done.stderr
    return out, done


def data(name, count):
    return TRAINERS[name][1](count)


@every
@pytest.mark.slow
def test_a_run_leaves_a_model_a_log_and_what_made_it(name):
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

    out, done = train(name, data(name, 10), "--batch-size", 4, "--epochs", 1.5, "--lr", "1e-3")
    assert {file.name for file in out.iterdir()} >= {"config.json", "model.safetensors", "tokenizer.json", "run.json"}
    assert not list(out.glob("checkpoint-*")) and not (out / "started.json").exists()
    assert not [file for file in out.iterdir() if file.suffix in (".tmp", ".pt") or file.name.startswith(".")]
    entries = read(done.stdout)
    assert (out / "log.jsonl").read_text() == done.stdout
    assert [entry["step"] for entry in entries] == [1, 2, 3, 4, 5]  # 3 an epoch, the last of 2 records
    assert [entry["epoch"] for entry in entries] == [0.3333, 0.6667, 1, 1.3333, 1.6667]
    assert all(entry["tokens_per_second"] > 0 and entry["grad_norm"] > 0 for entry in entries)
    said = json.loads((out / "run.json").read_text())
    assert said["options"]["command"] == name and said["options"]["lr"] == 1e-3 and said["options"]["batch_size"] == 4
    assert said["final"] == entries[-1] and {"torch", "align-tools"} < set(said["versions"])
    auto = AutoModelForSequenceClassification if name == "al-train-rm" else AutoModelForCausalLM
    assert auto.from_pretrained(out).dtype.itemsize == 4 and AutoTokenizer.from_pretrained(out).eos_token == "<|eos|>"
    assert weights(out) != weights(getattr(folders(), TRAINERS[name][0]))
    assert "10 records" in one_line(done.stderr)


@every
@pytest.mark.slow
def test_a_complete_run_is_resumed_by_doing_nothing(name):
    out, _ = train(name, data(name, 4))
    before = {file.name: file.stat().st_mtime_ns for file in out.iterdir()}
    _, done = train(name, data(name, 4), "--resume", out=out)
    assert done.stdout == "" and one_line(done.stderr) == f"{out} is complete: nothing to resume"
    assert {file.name: file.stat().st_mtime_ns for file in out.iterdir()} == before
    model = getattr(folders(), TRAINERS[name][0])
    done = run(name, model, "-o", out, "--resume", "--lr", 1, stdin=lines(*data(name, 4)))
    assert done.returncode == 2 and "cannot resume: lr changed" in one_line(done.stderr)
    done = run(name, model, "-o", out, stdin=lines(*data(name, 4)))
    assert done.returncode == 2 and one_line(done.stderr) == f"{name}: {out}: exists and is not empty"


@pytest.mark.slow
@every
def test_bad_input_is_65_and_leaves_no_folder(name, tmp_path):
    model, good = getattr(folders(), TRAINERS[name][0]), data(name, 3)
    nothing, long = tmp_path / "nothing", [{**good[0], "prompt": "wash the old door. " * 100}]
    nothing.write_bytes(b"\n")
    for given, args, message in (
        (b"", (), "no records to train on"),
        (lines(*good[:2]) + b"[]\n" + lines(good[2]), (), "<stdin>:3: expected an object, got an array"),
        (lines(*good[:2], {**good[2], "prompt": None}), (), "<stdin>:3: prompt: expected a string, got null"),
        (lines(*good[:2], *prompts(1)), (), "<stdin>:3: c"),  # chosen: or completions: missing
        (lines(*good, *long), ("--on-long", "fail"), "<stdin>:4: too long: "),
        (lines(*long), ("--on-long", "skip"), "no records to train on"),
        (lines(*good), ("--eval", nothing), f"{nothing}: no records to evaluate on"),
    ):  # whatever has been read by then
        out = folders().new()
        done = run(name, model, "-o", out, *args, stdin=given)
        assert (done.returncode, done.stdout) == (65, "") and message in one_line(done.stderr)
        assert not out.exists()


@every
@pytest.mark.slow
def test_bad_input_may_be_left_out_and_is_named(name):
    good = data(name, 3)
    bad = [b"[]\n", lines({**good[2], "prompt": None}), b"{\n", *[b"7\n"] * 4]
    out, done = folders().new(name), None
    for more in ((), ("--on-error", "skip")):
        done = run(name, getattr(folders(), TRAINERS[name][0]), "-o", out, "--steps", 1, *more,
                   stdin=lines(*good[:2]) + b"".join(bad) + lines(good[2]))
        assert done.returncode == (0 if more else 65)
    said = done.stderr.splitlines()
    assert [line.split(": ")[0] for line in said[:-1]] == [f"skipped <stdin>:{number}" for number in range(3, 8)]
    assert "3 records, 7 skipped" in said[-1]
    assert json.loads((out / "run.json").read_text())["options"]["on_error"] == "skip"


@pytest.mark.slow
@every
def test_wrong_folders_and_files_are_2_in_one_line(name, tmp_path):
    kind = TRAINERS[name][0]
    for what, (path, word) in folders().wrong(getattr(folders(), kind)).items():
        done = run(name, path, "-o", folders().new(), stdin=lines(*data(name, 1)))
        assert (done.returncode, done.stdout) == (2, ""), what
        assert path in one_line(done.stderr) and word in done.stderr, what
    (tmp_path / "full").mkdir(), (tmp_path / "full" / "x").touch()
    model = getattr(folders(), kind)
    for args, message in (
        (("-o", tmp_path / "full"), "exists and is not empty"),
        (("-o", tmp_path / "full", "--resume"), "not a run that --resume could go on with"),
        (("-o", tmp_path / "full" / "x"), "is a file"),
        (("-o", tmp_path / "full" / "x" / "deep"), "x is a file, not a folder"),
        (("-o", folders().new(), "--device", "banana"), "--device banana: no such device"),
        ((tmp_path / "none", "-o", folders().new()), f"{tmp_path / 'none'}: no such file"),
        ((tmp_path, "-o", folders().new()), f"{tmp_path}: a folder, not a file"),
        (("-o", folders().new(), "--eval", tmp_path / "none"), "none"),
        (("-o", folders().new(), "--max-length", CONTEXT + 1), f"the model's context is {CONTEXT} tokens"),
        ((), "-o"),
    ):
        done = run(name, model, *args, stdin=lines(*data(name, 1)))
        assert (done.returncode, done.stdout) == (2, "") and message in one_line(done.stderr)


@pytest.mark.slow
@every
@pytest.mark.long
def test_sigterm_saves_and_an_unfinished_run_goes_on_only_as_it_began(name):
    model, out, records = getattr(folders(), TRAINERS[name][0]), folders().new(), data(name, 12)
    args = ("--batch-size", 4, "--epochs", 20, "--lr", "1e-3")
    whole, _ = train(name, records, *args)
    code, before, said = stopped(name, model, "-o", out, *args, stdin=lines(*records))
    last = read(before)[-1]["step"]
    assert code == 143 and one_line(said) == f"{name}: stopped by SIGTERM after step {last}; --resume goes on"
    assert last < 60 and not (out / "config.json").exists()
    for more, given, message in (
        ((), records, "exists and is not empty"),
        (("--resume", "--seed", 1), records, "cannot resume: seed changed"),
        (("--resume", "--eval", __file__), records, "cannot resume: eval changed"),
        (("--resume",), records[1:], "cannot resume: input crc changed"),
    ):
        done = run(name, model, "-o", out, *args, *more, stdin=lines(*given))
        assert done.returncode == 2 and message in one_line(done.stderr)
    _, done = train(name, records, *args, "--resume", "--pack-tokens", 8192, "--save-every", 25, out=out)
    assert [entry["step"] for entry in read(before) + read(done.stdout)] == list(range(1, 61))
    assert weights(out) == weights(whole) and log(out) == log(whole)
    assert {file.name for file in out.iterdir()} == {file.name for file in whole.iterdir()}


@pytest.mark.slow
@one_of_them
def test_training_needs_no_standard_output(name):
    """Its log is in the folder too."""
    out, given = folders().new(), folders().new()
    given.write_bytes(lines(*data(name, 6)))
    argv = shlex.join(command(name, getattr(folders(), TRAINERS[name][0]), given, "-o", out))
    done = subprocess.run(["sh", "-c", f"{argv} >&-"], env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert log(out) == log(train(name, data(name, 6))[0])


@pytest.mark.slow
@one_of_them
def test_training_goes_on_when_nobody_reads_the_log(name):
    out, records = folders().new(), data(name, 6)
    process = subprocess.Popen(command(name, getattr(folders(), TRAINERS[name][0]), "-o", out, "--epochs", 60),
                               env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, pipesize=4096)
    process.stdin.write(lines(*records)), process.stdin.close()
    process.stdout.readline(), process.stdout.close()
    assert process.wait() == 0
    assert (out / "run.json").exists() and len(log(out)) == 60


@every
def test_nan_is_1(name):
    done = run(name, folders().broken(getattr(folders(), TRAINERS[name][0])), "-o", folders().new(),
               stdin=lines(*data(name, 3)))
    assert (done.returncode, done.stdout) == (1, "") and "the loss is nan at step 1" in done.stderr


@pytest.mark.slow
@every
def test_the_split_into_packs_does_not_matter_and_the_seed_does(name):
    args = ("--batch-size", 5, "--lr", "1e-3", "--steps", 4)
    records = data(name, 9)
    _, one = train(name, records, *args)
    _, two = train(name, records, *args, "--pack-tokens", 150)
    _, three = train(name, records, *args, "--seed", 5)
    losses = [[entry["loss"] for entry in read(done.stdout)] for done in (one, two, three)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4) and losses[0] != pytest.approx(losses[2], rel=1e-3)
    norms = [[entry["grad_norm"] for entry in read(done.stdout)] for done in (one, two)]
    assert norms[0] == pytest.approx(norms[1], rel=1e-3)


@pytest.mark.slow
@every
@pytest.mark.parametrize("args", [("--lora", 4), ("--gradient-checkpointing",), ("--optimizer", "rmsprop"),
                                  ("--schedule", "constant", "--warmup", 0, "--clip", 0, "--weight-decay", "0.1"),
                                  ("--schedule", "linear", "--warmup", 2, "--betas", "0.8,0.9"), ("--dtype", "bf16")])
def test_other_ways_to_train_lower_the_loss_too(name, args):
    records = data(name, 8)
    rate = 3e-4 if "rmsprop" in args else 3e-3
    out, done = train(name, records, "--batch-size", 8, "--lr", rate, "--steps", 12, *args)
    losses = [entry["loss"] for entry in read(done.stdout)]
    assert losses[-1] < losses[0] and not [key for key in weights(out) if "lora" in key]
    entry = read(done.stdout)[0]
    assert (entry["lr"] == rate) == ("constant" in args)
    if "--gradient-checkpointing" in args:
        _, plain = train(name, records, "--batch-size", 8, "--lr", rate, "--steps", 12)
        assert losses == pytest.approx([entry["loss"] for entry in read(plain.stdout)], rel=1e-4)


@pytest.mark.slow
@every
def test_checkpoints_are_kept_as_asked(name):
    args = ("--batch-size", 2, "--save-every", 1)
    for keep, steps in ((1, []), (2, [2, 3]), (0, [1, 2, 3])):
        out, _ = train(name, data(name, 6), *args, "--keep", keep)
        assert sorted(int(path.name.split("-")[1]) for path in out.glob("checkpoint-*")) == steps
        assert not list(out.rglob("trainer.pt"))
        for step in steps:
            assert (weights(out / f"checkpoint-{step}") == weights(out)) == (step == 3)


def test_a_reward_model_is_no_policy():
    for name in ("al-sft", "al-train-exo"):
        done = run(name, folders().reward, "-o", folders().new(), stdin=lines(*data(name, 1)))
        assert done.returncode == 2 and "a policy is needed here" in one_line(done.stderr)


@every
@pytest.mark.parametrize("more", [("--zero", 1), ("--launch", 2)])
def test_compiled_layers_are_for_one_device(name, more):
    out = folders().new("compiled")
    done = run(name, getattr(folders(), TRAINERS[name][0]), "-o", out, "--compile", *more, stdin=lines(*data(name, 2)))
    assert done.returncode == 2 and not out.exists()
    assert "--compile is for one device without DeepSpeed" in one_line(done.stderr)
