"""Commands that are killed at random moments and resumed: what tests/test_kill.py does five times, the bench fifty.

When a kill falls is left to chance, and no assertion depends on it: whatever it hits, the resumed run ends with the
bytes of one that was never killed.
"""

import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from helpers.commands import folders, lines, log, pairs, prompts, rewarded, weights
from helpers.process import command, environment

STARTUP = 3.0  # seconds of imports, about


@dataclass
class Job:
    """A command that can be resumed."""

    argv: list[str]
    stdin: Path | None
    paths: list[Path]  # what it writes
    begun: Path  # is there once the work has begun
    result: Callable[[], object]

    def start(self, *more: str) -> subprocess.Popen:
        with open(self.stdin or "/dev/null", "rb") as source:
            return subprocess.Popen([*self.argv, *more], env=environment(), stdin=source, stdout=subprocess.DEVNULL,
                                    stderr=subprocess.PIPE)

    def start_stuck(self) -> subprocess.Popen:
        """Start it so that it cannot end: of an input that it reads from a pipe half comes, and nobody reads its log,
        which is more than the pipe holds."""
        process = subprocess.Popen(self.argv, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, pipesize=4096)
        if self.stdin:
            data = self.stdin.read_bytes()
            process.stdin.write(data[:len(data) // 2])
            process.stdin.flush()
        return process

    def clear(self) -> None:
        for path in self.paths:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

    def wait_until_begun(self, process: subprocess.Popen) -> None:
        while process.poll() is None and not self.begun.exists():
            time.sleep(0.002)

    def finish(self, *more: str) -> object:
        """Run to the end; what it made."""
        process = self.start(*more)
        errors = process.communicate()[1].decode()
        assert process.returncode == 0, errors
        return self.result()


def survive(job: Job, kills: int, seed: int, sign: signal.Signals = signal.SIGKILL, codes: tuple = (-9,)) -> int:
    """Kill `job` that many times, resuming it each time, over as many whole runs as that takes: their number."""
    chance = random.Random(seed)
    process = job.start()
    job.wait_until_begun(process)
    started = time.monotonic()
    assert process.wait() == 0, process.stderr.read().decode()
    work, expected = time.monotonic() - started, job.result()
    job.clear()
    runs = 1
    while kills:
        process = job.start("--resume")
        if chance.random() < 0.15:
            time.sleep(chance.uniform(0, STARTUP))
        else:
            job.wait_until_begun(process)
            time.sleep(chance.uniform(0, work / 2))
        process.send_signal(sign)
        errors = process.communicate()[1].decode()
        if process.returncode == 0:  # it was done before the kill: once more
            assert job.result() == expected
            job.clear()
            runs += 1
        else:
            assert process.returncode in codes, errors
            kills -= 1
    assert job.finish("--resume") == expected
    job.clear()
    return runs


# -- the jobs ------------------------------------------------------------------------------------------------


def filter_job(folder: Path, name: str, data: bytes, *args: object, skip: bool = False, stdin: bool = False) -> Job:
    """A filter with -o; skip: with --on-error skip --rejects too."""
    given, out, rejects = folder / "in.jsonl", folder / "out.jsonl", folder / "rejects.jsonl"
    given.write_bytes(data)
    more = ["--on-error", "skip", "--rejects", rejects] if skip else []
    argv = command(name, *args, *([] if stdin else [given]), "-o", out, *more)
    outputs = [out, rejects] if skip else [out]
    state = Path(f"{out}.state")
    return Job(argv, given if stdin else None, [*outputs, state], state,
               lambda: ([path.read_bytes() for path in outputs], state.exists()))


def sample_job(folder: Path, count: int = 36, *args: object, **how) -> Job:
    """Windows of 5, a batch of one draw or two: some hundred moments that differ."""
    records = [record if i % 7 != 3 else {"prompt": i} for i, record in enumerate(prompts(count))]
    data = lines(*(records if how.get("skip") else prompts(count)))
    return filter_job(folder, "al-sample", data, folders().policy, "-n", 3, "-m", 16, "--ids", "--logps", "--window", 5,
                      "--batch-tokens", 100, *args, **how)


def score_job(folder: Path, count: int = 600, **how) -> Job:
    records = [record if i % 7 != 3 else {**record, "completions": []} for i, record in enumerate(rewarded(count))]
    data = lines(*(records if how.get("skip") else rewarded(count)))
    return filter_job(folder, "al-score", data, folders().reward, "--pack-tokens", 100, **how)


def training_job(folder: Path, name: str, *args: object, stdin: bool = False) -> Job:
    """60 steps, a checkpoint after every second."""
    out, given = folder / "model", folder / "in.jsonl"
    given.write_bytes(lines(*(rewarded(12) if name == "al-train-exo" else pairs(12))))
    argv = command(name, folders().policy, *([] if stdin else [given]), "-o", out, "--save-every", 2, "--batch-size", 4,
                   "--epochs", 20, "--lr", "1e-3", *args)
    return Job(argv, given if stdin else None, [out], out / "started.json",
               lambda: (weights(out), log(out), sorted(path.name for path in out.iterdir())))
