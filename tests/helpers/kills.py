"""Commands that are killed and resumed: whatever a kill hits, the run that comes after it ends with the bytes of one
that was never killed.

`survive` kills processes as users start them, when is left to chance: what tests/test_kill.py does five times, the
bench fifty. `series` kills at moments of their writing (helpers.moments), spread over the whole run.
"""

import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from helpers.commands import folders, lines, log, pairs, prompts, rewarded, run, weights
from helpers.process import command, environment

STARTUP = 3.0  # seconds of imports, about


@dataclass
class Job:
    """A command that can be resumed, or begun again: then it has no `begun`."""

    name: str
    args: tuple[object, ...]
    stdin: Path | None
    paths: list[Path]  # what it writes
    begun: Path | None  # is there once the work has begun
    result: Callable[[], object]

    @property
    def argv(self) -> list[str]:
        return command(self.name, *self.args)

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


def series(job: Job, kills: int, seed: int) -> int:
    """Kill as many runs, each at its moment, and let another one finish what it left: how many moments a run has.

    The moments are drawn, one out of each of so many equal parts of the run. Every second time the run that goes on is
    killed too, once, at any of the whole run's moments: where it has fewer it ends.
    """
    chance = random.Random(seed)
    folder = job.paths[0].parent
    journal, again = folder.with_name(f"{folder.name}.journal"), ["--resume"] * (job.begun is not None)

    def start(*more: str, last: int | None = None) -> int:
        done = run(job.name, *job.args, *more, stdin=job.stdin.read_bytes() if job.stdin else b"",
                   moments={"folder": str(folder), "journal": str(journal), "last": last})
        assert done.returncode in (0, *[-signal.SIGKILL] * (last is not None)), done.stderr
        return done.returncode

    start()
    expected, moments = job.result(), journal.read_text().splitlines()
    job.clear()
    for number in range(kills):
        last = int((number + chance.random()) * len(moments) / kills)
        assert start(last=last) == -signal.SIGKILL
        told = f"killed at {last}: {moments[last]}"
        if not again:  # what stands under an output's name is whole
            assert all(left in (None, whole) for left, whole in zip(job.result(), expected, strict=True)), told
        if number % 2:
            start(*again, last=chance.randrange(len(moments)))
        start(*again)
        assert job.result() == expected, told
        job.clear()
    return len(moments)


# -- the jobs ------------------------------------------------------------------------------------------------


def filter_job(folder: Path, name: str, data: bytes, *args: object, skip: bool = False, stdin: bool = False) -> Job:
    """A filter with -o; skip: with --on-error skip --rejects too."""
    given, out, rejects = folder / "in.jsonl", folder / "out.jsonl", folder / "rejects.jsonl"
    given.write_bytes(data)
    more = ["--on-error", "skip", "--rejects", rejects] if skip else []
    words = (*args, *([] if stdin else [given]), "-o", out, *more)
    outputs = [out, rejects] if skip else [out]
    state = Path(f"{out}.state")
    return Job(name, words, given if stdin else None, [*outputs, state], state,
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


def args_job(folder: Path, count: int, **how) -> Job:
    """Al-args, 4 candidates a token, windows of 5."""
    bad = count if how.get("skip") else 0
    records = [record if i % 7 != 3 or i >= bad else {"prompt": i} for i, record in enumerate(prompts(count))]
    return filter_job(folder, "al-args", lines(*records), folders().policy, folders().reward, "-n", 2, "-m", 6, "-k", 4,
                      "--window", 5, "--batch-tokens", 150, "--ids", **how)


def training_job(folder: Path, name: str, *args: object, stdin: bool = False) -> Job:
    """60 steps, a checkpoint after every second."""
    out, given = folder / "model", folder / "in.jsonl"
    given.write_bytes(lines(*(rewarded(12) if name in ("al-train-exo", "al-train-alt") else pairs(12))))
    words = (folders().policy, *([] if stdin else [given]), "-o", out, "--save-every", 2, "--batch-size", 4,
             "--epochs", 20, "--lr", "1e-3", *args)
    return Job(name, words, given if stdin else None, [out], out / "started.json",
               lambda: (weights(out), log(out), sorted(path.name for path in out.iterdir())))


def on_policy_job(folder: Path, *args: object) -> Job:
    """Rollouts of 8 answers, two updates each; a critic, which trains along, and a KL coefficient that follows."""
    out, given, samples = folder / "model", folder / "in.jsonl", folder / "samples.jsonl"
    given.write_bytes(lines(*prompts(12)))
    words = (folders().policy, given, "-o", out, "--save-every", 2, "--batch-size", 4, "--epochs", 20, "--lr", "1e-3",
             "--reward", "toy:helpful", "-n", 2, "--prompts", 4, "-m", 6, "--kl-target", 1, "--log-samples", samples,
             *args)
    return Job("al-train-ppo", words, None, [out, samples], out / "started.json",
               lambda: (weights(out), weights(out / "critic"), log(out), samples.read_bytes(),
                        sorted(path.name for path in out.iterdir())))


def file_job(folder: Path, name: str, *args: object, data: bytes = b"", plot: bool = False) -> Job:
    """A command that writes a file, with `plot` a picture too, as a whole; it begins again after a kill."""
    given, out, picture = folder / "in.jsonl", folder / "out.jsonl", folder / "plot.png"
    given.write_bytes(data)
    paths = [out, picture] if plot else [out]
    words = (*args, *([given] if data else []), "-o", out, *(["--plot", picture] if plot else []))
    return Job(name, words, None, paths, None, lambda: [path.read_bytes() if path.exists() else None for path in paths])


def new_model_job(folder: Path) -> Job:
    """A folder that is written as a whole."""
    given, out = folder / "in.jsonl", folder / "model"
    given.write_bytes(lines(*pairs(40)))
    return Job("al-data", ("new-model", out, given, "--size", "1m", "--vocab-size", 300), None, [out], None,
               lambda: [{path.name: path.read_bytes() for path in out.iterdir()} if out.exists() else None])


def judged(count: int) -> bytes:
    return lines(*({**record, "winner": number % 2} for number, record in enumerate(rewarded(count, 2))))


TAGS = ("--quantiles", 2, "--tags", "Good.", "--tags", "Bad.")
# What `series` is for: in a folder, of so many epochs, and four times as many records to decode.
SERIES: dict[str, Callable[[Path, int], Job]] = {
    "al-sample": lambda folder, size: sample_job(folder, 4 * size, skip=True),
    "al-score": lambda folder, size: score_job(folder, 60, skip=True, stdin=True),
    "al-args": lambda folder, size: args_job(folder, 4 * size, skip=True),
    "al-train-rm": lambda folder, size: training_job(folder, "al-train-rm", "--epochs", size),
    "al-train-alt": lambda folder, size: training_job(folder, "al-train-alt", *TAGS, "--epochs", size),
    "al-train-exo": lambda folder, size: training_job(folder, "al-train-exo", "--epochs", size),
    "al-train-ppo": lambda folder, size: on_policy_job(folder, "--epochs", size),
    "al-data toy": lambda folder, size: file_job(folder, "al-data", "toy", "--limit", 60),
    "al-data new-model": lambda folder, size: new_model_job(folder),
    "al-eval reward": lambda folder, size: file_job(folder, "al-eval", "reward", data=lines(*rewarded(9))),
    "al-eval winrate": lambda folder, size: file_job(folder, "al-eval", "winrate", data=judged(9), plot=True),
}
