"""Training on several processes: what one process makes, within float32's rounding; kills, launchers, refusals.

Every run here is the command itself, on CPUs over gloo. TOLERANCE is of single weights, after a dozen steps of AdamW at
a learning rate of 1e-3: sums over ranks round otherwise than sums over a batch, and AdamW divides by their size.
"""

import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from alignlib import ranks
from alignlib.training.run_folder import step_of
from helpers.commands import apart, folders, lines, log, pairs, prompts, read, rewarded, weights
from helpers.disks import file_limit, small_disk
from helpers.process import command, environment

pytestmark = pytest.mark.slow

TOLERANCE = 2e-5
LAUNCHER = Path(sys.executable).parent


@pytest.fixture(scope="module", autouse=True)
def spare_threads():
    """Of several processes on few cores each has one thread."""
    assert os.environ["OMP_NUM_THREADS"] == "1"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder with `pairs.jsonl` and `rewarded.jsonl`: 15 records, in batches of 4 a last one of 3."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "pairs.jsonl").write_bytes(lines(*domains(pairs(15))))
    (folder / "rewarded.jsonl").write_bytes(lines(*rewarded(15)))
    (folder / "held_pairs.jsonl").write_bytes(lines(*domains(pairs(5))))
    (folder / "held.jsonl").write_bytes(lines(*rewarded(5)))
    (folder / "prompts.jsonl").write_bytes(lines(*prompts(15)))
    (folder / "held_prompts.jsonl").write_bytes(lines(*prompts(20)[15:]))
    return folder


def domains(records):
    """The records in two domains of preferences, in turn."""
    return [{**record, "domain": ("helpful", "harmless")[i % 2]} for i, record in enumerate(records)]


RECIPE = ("--batch-size", 4, "--epochs", 3, "--lr", "1e-3", "--dtype", "fp32")


def exo(data, *args):
    """12 steps, several packs each; the reference's log-probabilities, an evaluation each epoch."""
    return ("al-train-exo", folders().policy, data / "rewarded.jsonl", "--eval", data / "held.jsonl", *RECIPE,
            "--pack-tokens", 300, *args)


def finished(name, *args, stdin=b"", code=0, **changes):
    done = subprocess.run(command(name, *args), input=stdin, capture_output=True, env={**environment(), **changes})
    assert done.returncode == code, done.stderr.decode()
    return done.stdout.decode(), done.stderr.decode()


def alike(found, wanted):
    """Two logs' figures agree."""
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        assert one == pytest.approx(other, rel=2e-3, abs=1e-4)


def together(args, *programs):
    """Run a command as so many ranks, each of which runs a program of its own first: exit codes, what they said."""
    name, *args = map(str, args)
    given = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(20000 + os.getpid() % 20000),
             "WORLD_SIZE": str(len(programs))}
    tasks = []
    for rank, program in enumerate(programs):
        start = f"from {name.replace('-', '_')} import main; main(sys.argv[1:], prog_name={name!r})"
        env = {**environment(), **given, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        tasks.append(subprocess.Popen([sys.executable, "-c", f"import sys; {program}; {start}", *args], text=True,
                                      env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE))
    said = [task.communicate()[1] for task in tasks]
    return [(task.returncode, errors) for task, errors in zip(tasks, said, strict=True)]


@pytest.fixture(scope="module")
def alone(data):
    """What one process makes of it."""
    folder = data / "alone"
    finished(*exo(data, "-o", folder))
    return folder


# -- the same as one process -----------------------------------------------------------------------------------


@pytest.mark.parametrize("zero", [0, *(pytest.param(zero, marks=pytest.mark.long) for zero in (1, 2, 3))])
def test_two_ranks_one_killed_and_resumed_make_what_one_makes(zero, data, alone, tmp_path):
    """SIGKILL of the second after a checkpoint: the job ends and says so; resumed, it makes the same model and log."""
    out = tmp_path / "model"
    args = exo(data, "-o", out, "--launch", 2, "--zero", zero, "--save-every", 2)
    process = stuck(args, alone)
    wait_for_step(4, out, process)
    os.kill(rank_of(process.pid, 1), signal.SIGKILL)
    said = process.communicate()[1].decode()
    assert process.returncode == 1
    assert said == ("al-train-exo: rank 1 was killed by SIGKILL; all have ended, --resume goes on from the last "
                    "checkpoint\n")
    assert not (out / "run.json").exists()
    first = read(finished(*args, "--resume")[0])[0]["step"]
    assert first > 4  # the last whole checkpoint, not the start
    assert apart(out, alone) < TOLERANCE
    alike(log(out), log(alone))
    assert sorted(path.name for path in out.iterdir()) == sorted(path.name for path in alone.iterdir())


def stuck(args, alone):
    """Start it with a standard output that takes six lines and a half of the log; then it waits until they are read."""
    entries = (alone / "log.jsonl").read_bytes().splitlines(keepends=True)
    room = sum(map(len, entries[:6])) + len(entries[6]) // 2
    reading, writing = os.pipe()
    os.write(writing, bytes(fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096) - room))
    process = subprocess.Popen(command(*args), env=environment(), stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    process.stdout = open(reading, "rb")
    return process


def wait_for_step(step, out, process):
    """Until there is a checkpoint of this step or a later one."""
    while not any(step_of(path) >= step for path in out.glob("checkpoint-*")):
        assert process.poll() is None
        time.sleep(0.01)


def rank_of(launcher, rank):
    """The process of that rank below a launcher's."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == launcher and f"RANK={rank}".encode() in (process / "environ").read_bytes().split(b"\0"):
                return int(process.name)
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended meanwhile
    raise LookupError(f"no rank {rank} below {launcher}")


@pytest.mark.long
@pytest.mark.parametrize("zero, others", [(2, 3), (3, 1)])
def test_another_number_of_processes_goes_on(zero, others, data, alone, tmp_path):
    out = tmp_path / "model"
    args = exo(data, "-o", out, "--zero", zero, "--save-every", 5)
    process = stuck([*args, "--launch", 2], alone)
    wait_for_step(5, out, process)
    left = [rank_of(process.pid, rank) for rank in (0, 1)]
    process.kill()
    process.communicate()  # ranks without their launcher save and end
    while any(map(alive, left)):
        time.sleep(0.01)
    before = log(out)
    finished(*args, "--resume", *(("--launch", others) if others > 1 else ()))
    assert apart(out, alone) < TOLERANCE
    alike(log(out), log(alone))
    assert 5 <= len(before) < 12 and before == log(out)[:len(before)]
    assert not list(out.glob("checkpoint-*"))


def alive(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.long
@pytest.mark.parametrize("name, args, several", [
    ("al-train-rm", ("--eval-every", 1), ("--zero", 3)),  # keeps the best of its evaluations
    ("al-train-rm", ("--more", "--resample", 6, "--pack-tokens", 100), ("--zero", 3)),
    ("al-sft", ("--lora", 4), ("--zero", 3)),
    ("al-train-exo", ("--ref", "other"), ("--zero", 3)),  # two models dealt out
    ("al-sft", ("--gradient-checkpointing",), ("--offload", "all")),
    ("al-train-alt", ("--mode", "quark", "--quantiles", 4, "--train-layers", 0.5, "--kl-target", 1), ("--zero", 3)),
    ("al-sft", ("--optimizer", "rmsprop", "--clip", 0), ("--zero", 1, "--offload", "optimizer")),
    ("al-train-ppo", ("--reward", "toy:overall", "-n", 2, "--prompts", 5, "-m", 6), ("--zero", 1)),  # with a critic
])
def test_other_trainers_and_settings_on_two_ranks(name, args, several, data, tmp_path):
    files = {"al-train-exo": ("rewarded", "held"), "al-train-alt": ("rewarded", "held"),
             "al-train-ppo": ("prompts", "held_prompts")}.get(name, ("pairs", "held_pairs"))
    file, held = (data / f"{file}.jsonl" for file in files)
    args = [folders().other if arg == "other" else arg for arg in args]
    given = (name, folders().policy, file, "--eval", held, *RECIPE, *args)
    finished(*given, "-o", tmp_path / "one")
    finished(*given, "-o", tmp_path / "two", "--launch", 2, *several)
    assert apart(tmp_path / "one", tmp_path / "two") < TOLERANCE
    alike(log(tmp_path / "two"), log(tmp_path / "one"))


@pytest.mark.long
def test_bf16_on_two_ranks_stays_near_one(data, tmp_path):
    """Also at stage 0, where DeepSpeed's own bf16 strays: there it is autocast, as on one device."""
    given = ("al-sft", folders().policy, data / "pairs.jsonl", "--steps", 6, "--lr", "1e-3", "--dtype", "bf16")
    finished(*given, "-o", tmp_path / "one")
    for zero in (0, 2):
        finished(*given, "-o", tmp_path / str(zero), "--launch", 2, "--zero", zero)
        for found, wanted in zip(log(tmp_path / str(zero)), log(tmp_path / "one"), strict=True):
            assert found["loss"] == pytest.approx(wanted["loss"], rel=2e-3)


@pytest.mark.long
def test_more_ranks_than_records_still_count_each_once(data, tmp_path):
    """Three ranks, a last batch of one record, an evaluation on two: some ranks only keep the others company."""
    (tmp_path / "three.jsonl").write_bytes(lines(*pairs(3)))
    (tmp_path / "two.jsonl").write_bytes(lines(*pairs(2)))
    given = ("al-sft", folders().policy, tmp_path / "three.jsonl", "--eval", tmp_path / "two.jsonl", "--batch-size", 2,
             "--epochs", 2, "--lr", "1e-3", "--dtype", "fp32")
    finished(*given, "-o", tmp_path / "one")
    finished(*given, "-o", tmp_path / "many", "--launch", 3, "--zero", 3)
    assert apart(tmp_path / "one", tmp_path / "many") < TOLERANCE
    alike(log(tmp_path / "many"), log(tmp_path / "one"))


def test_ranks_of_unlike_lengths_ask_a_dealt_out_head_equally_often(data, tuned, tmp_path):
    """Of a large vocabulary the logits are made of few tokens at a time; the ranks' packs have more or fewer."""
    few = "from alignlib.models import logps; logps.CHUNK = 3000"
    args = sft(data, "--eval", data / "held_pairs.jsonl", "--zero", 3, "-o", tmp_path / "model")
    said = together(args, few, few)
    assert [code for code, _ in said] == [0, 0], said
    assert apart(tmp_path / "model", tuned) < TOLERANCE


@pytest.mark.parametrize("zero, dtype", [(2, "bf16"), *(pytest.param(*given, marks=pytest.mark.long) for given in (
    (0, "fp32"), (0, "bf16"), (1, "bf16"), (1, "fp32"), (2, "fp32"), (3, "bf16"), (3, "fp32")))])
def test_gradients_that_are_no_numbers_end_the_run(zero, dtype, data, tmp_path):
    """DeepSpeed takes them for fp16's overflow, whatever the precision, and leaves out the step."""
    broken = ("from alignlib.training.zero import ZeroEngine as Engine; back = Engine.backward; "
              "Engine.backward = lambda engine, loss, last: back(engine, loss * float('inf'), last)")
    (said,) = together(sft(data, "-o", tmp_path / "model", "--zero", zero, "--dtype", dtype), broken)
    assert said == (1, "al-sft: FloatingPointError: the gradient's norm is nan at step 1\n")


# -- how they are started --------------------------------------------------------------------------------------


def sft(data, *args):
    return ("al-sft", folders().policy, data / "pairs.jsonl", *RECIPE, *args)


@pytest.fixture(scope="module")
def tuned(data):
    finished(*sft(data, "-o", data / "tuned"))
    return data / "tuned"


def script(tmp_path, name):
    """The command as an installed script, for launchers that start files."""
    path = tmp_path / name
    path.write_text(f"from {name.replace('-', '_')} import main\nmain()\n")
    return path


@pytest.mark.long
def test_standard_input_is_spooled(data, tuned, tmp_path):
    _, _, *args = sft(data)
    del args[0]
    out, _ = finished("al-sft", folders().policy, "-", *args, "-o", tmp_path / "model", "--launch", 2,
                      stdin=(data / "pairs.jsonl").read_bytes())
    assert read(out) == read((tmp_path / "model" / "log.jsonl").read_text()) and len(read(out)) == 12
    assert apart(tmp_path / "model", tuned) < TOLERANCE


def test_a_spool_without_space_is_said_by_name(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    args = command("al-sft", folders().policy, "-", "-o", tmp_path / "model", "--launch", 2)
    with file_limit(50_000):
        done = subprocess.run(args, input=lines(*pairs(400)), capture_output=True, env=environment())
    assert done.returncode == 1
    assert re.fullmatch(rf"al-sft: file too large: {tmp_path}/align-\w+\n", done.stderr.decode())
    assert not any(path.name == "model" or path.name.startswith("align-") for path in tmp_path.iterdir())


@pytest.mark.long
def test_a_full_disk_leaves_the_checkpoint_that_resume_needs(data, tmp_path):
    """Whichever process meets it, by DeepSpeed's writer or another."""
    finished(*sft(data, "-o", tmp_path / "whole", "--launch", 2))
    size = (tmp_path / "whole" / "model.safetensors").stat().st_size
    with small_disk(tmp_path, 7 * size // 1024 + 150) as small:
        args = sft(data, "-o", small.at / "run", "--launch", 2, "--save-every", 4)
        _, errors = finished(*args, code=1)
        assert re.fullmatch(rf"al-sft: (rank 1: )?no space left on device: {small.at / 'run'}\n", errors)
        names = {path.name for path in (small.at / "run").iterdir()}
        assert names - {".checkpoint"} == {"checkpoint-4", "log.jsonl", "started.json", ".examples"}
        small.grow(100_000)
        finished(*args, "--resume")
        assert weights(small.at / "run") == weights(tmp_path / "whole")
        assert not (small.at / "run" / ".checkpoint").exists()


@pytest.mark.long
def test_torchrun(data, tuned, tmp_path):
    start = [LAUNCHER / "torchrun", "--standalone", "--nproc_per_node", "2", script(tmp_path, "al-sft")]
    args = [*start, *sft(data, "-o", tmp_path / "model")[1:]]
    done = subprocess.run(list(map(str, args)), capture_output=True, env=environment(), text=True)
    assert done.returncode == 0, done.stderr
    assert len(read(done.stdout)) == 12  # of one rank
    assert apart(tmp_path / "model", tuned) < TOLERANCE
    refused = [*start, folders().policy, "-o", tmp_path / "other"]
    done = subprocess.run(list(map(str, refused)), capture_output=True, env=environment(), text=True, input="{}\n")
    assert done.returncode and not (tmp_path / "other").exists()
    assert "al-sft: several processes cannot share standard input: give a file, or use --launch" in done.stderr


@pytest.mark.long
def test_deepspeed_with_a_hostfile(data, tuned, tmp_path):
    """Its ssh, by which it first looks whether the host is there, is a script here."""
    ssh = tmp_path / "ssh"
    ssh.write_text('#!/bin/sh\nwhile [ "$1" != localhost ]; do shift; done\nshift\nexec "$@"\n')
    ssh.chmod(0o755)
    (tmp_path / "hosts").write_text("localhost slots=2\n")
    args = [LAUNCHER / "deepspeed", "--hostfile", tmp_path / "hosts", script(tmp_path, "al-sft"),
            *sft(data, "-o", tmp_path / "model", "--zero", 1)[1:]]
    changes = {"PATH": f"{tmp_path}:{LAUNCHER}:{os.environ['PATH']}", "DS_ACCELERATOR": "cpu"}
    done = subprocess.run(list(map(str, args)), capture_output=True, env={**environment(), **changes}, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert apart(tmp_path / "model", tuned) < TOLERANCE


@pytest.mark.long
def test_srun(data, tuned, tmp_path):
    """Slurm's own variables, as srun gives them to each task."""
    args = command(*sft(data, "-o", tmp_path / "model"))
    given = {"SLURM_JOB_ID": str(os.getpid()), "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2",
             "SLURM_STEP_NODELIST": "localhost"}
    tasks = [subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={
        **environment(), **given, "SLURM_PROCID": str(task), "SLURM_LOCALID": str(task)}) for task in (0, 1)]
    said = [task.communicate() for task in tasks]
    assert [task.returncode for task in tasks] == [0, 0], said
    assert len(read(said[0][0].decode())) == 12 and said[1] == (b"", b"")
    assert apart(tmp_path / "model", tuned) < TOLERANCE


@pytest.mark.parametrize("change, own", [
    ("from alignlib.models.encoding import Encoder; Encoder.encode = None", False),  # it could not read anything
    pytest.param("import socket; socket.gethostname = lambda: 'another'", True, marks=pytest.mark.long),
])
def test_the_first_process_of_a_machine_reads_for_those_there(change, own, data, tuned, tmp_path):
    """The second of two ranks maps what the first has read; on a machine of its own it reads for itself."""
    look = ("import sys; from alignlib.training.store import Store; remove = Store.remove; "
            "Store.remove = lambda store: (print(store.mine, store.folder.name, file=sys.__stderr__), remove(store))")
    said = together(sft(data, "-o", tmp_path / "model"), look, f"{look}; {change}")
    assert [code for code, _ in said] == [0, 0], said
    assert said[0][1].startswith("True .examples\n")
    assert said[1][1] == ("True .examples-1\n" if own else "False .examples\n")
    assert apart(tmp_path / "model", tuned) < TOLERANCE
    assert not list((tmp_path / "model").glob(".*"))


def test_who_reads_for_whom(monkeypatch):
    hosts = ["a", "b", "a", "b"]
    monkeypatch.setattr(ranks, "gather", lambda value: hosts)
    for rank, reader in enumerate((0, 1, 0, 1)):
        monkeypatch.setattr(ranks, "rank", lambda rank=rank: rank)
        assert ranks.reader() == reader


@pytest.mark.parametrize("hosts, first", [("gpu[007-009,12],login", "gpu007"), ("node3", "node3"), ("a-b,c", "a-b"),
                                          ("n[1,3]", "n1")])
def test_the_first_of_slurms_hosts(hosts, first):
    assert ranks.first_host(hosts) == first


def test_a_batch_script_without_srun_is_one_process(monkeypatch):
    for name, value in {"SLURM_JOB_ID": "5", "SLURM_NTASKS": "8", "SLURM_PROCID": "0"}.items():
        monkeypatch.setenv(name, value)
    ranks.slurm()
    assert ranks.size() == 1 and ranks.first()


# -- what they say when it goes wrong --------------------------------------------------------------------------


@pytest.mark.long
def test_errors_are_said_once(data, tmp_path):
    bad = lines(*pairs(3)) + b'{"prompt": 3}\n' + lines(*pairs(2))
    out, said = finished("al-sft", folders().policy, "-o", tmp_path / "model", "--launch", 2, stdin=bad, code=65)
    assert said == "al-sft: <stdin>:4: prompt: expected a string, got a number\n" and out == ""
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    _, said = finished(*sft(data, "-o", tmp_path / "full", "--launch", 2), code=2)
    assert said == f"al-sft: {tmp_path / 'full'}: exists and is not empty\n"


def test_a_rank_says_when_it_failed_not_when_it_had_left(tmp_path, monkeypatch):
    """In between others may fail because it has left them; the launcher tells what came first."""
    monkeypatch.setattr(ranks, "_failed_at", 0.0)
    monkeypatch.setenv(ranks.OURS, "1")
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error"))
    ranks.failed()
    then = time.time()
    ranks.failed()
    ranks.report("al-sft: no", 65)
    found = json.loads((tmp_path / "error").read_text())
    assert found["message"] == "al-sft: no" and found["at"] <= then


@pytest.mark.long
def test_sigterm_saves_and_exits_with_143(data, tmp_path):
    args = sft(data, "-o", tmp_path / "model", "--launch", 2, "--epochs", 500)
    process = subprocess.Popen(command(*args), env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    said = process.communicate()[1].decode()
    (checkpoint,) = (tmp_path / "model").glob("checkpoint-*")
    step = checkpoint.name.removeprefix("checkpoint-")
    assert process.returncode == 143 and said == f"al-sft: stopped by SIGTERM after step {step}; --resume goes on\n"


@pytest.mark.parametrize("args, said", [
    (("--offload", "optimizer", "--zero", 0), "--offload optimizer needs --zero 1 or more"),
    (("--offload", "all", "--zero", 2), "--offload all needs --zero 3 or more"),
    (("--dtype", "fp16", "--zero", 2), "--dtype fp16: DeepSpeed has none on CPUs"),
])
def test_settings_that_do_not_go_together(args, said, data, tmp_path):
    _, found = finished(*sft(data, "-o", tmp_path / "model", *args), code=2)
    assert said in found and found.count("\n") == 1


@pytest.mark.long
def test_another_engines_checkpoint_is_refused_by_number(data, tmp_path):
    """A run of one process cannot go on under DeepSpeed, nor the other way round; nor at another stage."""
    out = tmp_path / "model"
    args = sft(data, "-o", out, "--save-every", 1, "--epochs", 500)
    stopped(args, out, "--launch", 2, "--zero", 1)
    _, said = finished(*args, "--resume", "--zero", 1, "--launch", 2, "--lr", "1e-2", code=2)
    assert "cannot resume: lr changed" in said
    _, said = finished(*args, "--resume", code=2)
    assert "cannot resume: zero changed" in said


def stopped(args, out, *more):
    process = subprocess.Popen(command(*args, *more), env=environment(), stdout=subprocess.PIPE)
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert process.returncode == 143 and list(out.glob("checkpoint-*"))


# -- a configuration of the user's own -------------------------------------------------------------------------


@pytest.mark.long
def test_a_run_with_ones_own_configuration_and_optimizer(data, tuned, tmp_path):
    own = {"zero_optimization": {"stage": 2}, "optimizer": {"type": "AdamW", "params": {
        "lr": "auto", "betas": "auto", "weight_decay": "auto", "torch_adam": True}}}
    (tmp_path / "ds.json").write_text(json.dumps(own))
    finished(*sft(data, "-o", tmp_path / "model", "--deepspeed", tmp_path / "ds.json", "--launch", 2,
                  "--schedule", "constant", "--warmup", 0))
    finished(*sft(data, "-o", tmp_path / "plain", "--schedule", "constant", "--warmup", 0))
    assert apart(tmp_path / "model", tmp_path / "plain") < TOLERANCE


@pytest.mark.parametrize("stage", [0, *(pytest.param(stage, marks=pytest.mark.long) for stage in (1, 2, 3))])
def test_an_optimizer_of_ones_own_follows_the_schedule(stage, data, tuned, tmp_path):
    """Hugging Face's configuration, whose scheduler is "auto": --schedule and --warmup, after a stop too."""
    own = {"zero_optimization": {"stage": stage}, "optimizer": {"type": "SGD", "params": {"lr": "auto"}},
           "scheduler": {"type": "WarmupLR", "params": {"warmup_num_steps": "auto"}}}
    (tmp_path / "ds.json").write_text(json.dumps(own))
    wanted = [entry["lr"] for entry in log(tuned)]
    args = sft(data, "-o", tmp_path / "model", "--deepspeed", tmp_path / "ds.json")
    stopped(args, tmp_path / "model")
    assert len(log(tmp_path / "model")) < 12
    finished(*args, "--resume")
    assert [entry["lr"] for entry in log(tmp_path / "model")] == pytest.approx(wanted) and len(set(wanted)) > 6
