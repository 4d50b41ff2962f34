"""al-sample | al-score: two torch processes at once, beside one after the other through a file.

Each command takes all the cores it finds; what OpenMP's threads do while they wait decides (GOMP_SPINCOUNT).
"""

import json
import os
import subprocess
import time

import pytest

from al_train_rm import start
from alignlib.models import load
from helpers.process import call, command, environment

PROMPTS, EACH, TOKENS = 192, 4, 64
ROUNDS = 2
LIMIT = 1.2  # times what the two take one after the other
PATIENCE = 5  # times the same, after which spinning threads have shown enough
# What libgomp does when the variable is not set and there are no more threads than cores (its manual: GOMP_SPINCOUNT).
SPIN = "300000"


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> dict[str, str]:
    """A policy and a reward model of 2M parameters, untrained, and prompts."""
    folder = tmp_path_factory.mktemp("pipe")
    files = {name: str(folder / name) for name in ("policy", "reward", "prompts", "samples")}
    records = call("al-data", "toy", "--limit", PROMPTS, "--only", "prompts").stdout
    (folder / "prompts").write_text(records)
    corpus = folder / "corpus"
    corpus.write_text(call("al-data", "toy", "--limit", 500).stdout)
    assert call("al-data", "new-model", "--size", "2m", files["policy"], corpus).returncode == 0
    load.save(start.new_reward(files["policy"], None, "cpu"), folder / "reward")
    return files


def both(world: dict[str, str]) -> tuple[list[str], list[str]]:
    sample = command("al-sample", world["policy"], "-n", EACH, "-m", TOKENS, world["prompts"])
    return sample, command("al-score", world["reward"])


def one_by_one(world: dict[str, str], env: dict[str, str]) -> float:
    sample, score = both(world)
    start = time.perf_counter()
    with open(world["samples"], "wb") as out:
        subprocess.run(sample, env=env, stdout=out, stderr=subprocess.DEVNULL, check=True)
    done = subprocess.run([*score, world["samples"]], env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                          check=True)
    took = time.perf_counter() - start
    check(done.stdout)
    return took


def piped(world: dict[str, str], env: dict[str, str], patience: float) -> float | None:
    """Seconds; None where it takes longer than `patience`."""
    sample, score = both(world)
    quiet = {"env": env, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    start = time.perf_counter()
    with subprocess.Popen(sample, **quiet) as first, subprocess.Popen(score, stdin=first.stdout, **quiet) as last:
        first.stdout.close()
        try:
            output = last.communicate(timeout=patience)[0]
        except subprocess.TimeoutExpired:
            first.kill()
            last.kill()
            return None
    took = time.perf_counter() - start
    check(output)
    return took


def check(output: bytes) -> None:
    records = [json.loads(line) for line in output.splitlines()]
    assert len(records) == PROMPTS and all(len(record["rewards"]) == EACH for record in records)


def test_the_pipe_costs_little(world):
    env = environment()
    del env["OMP_NUM_THREADS"], env["GOMP_SPINCOUNT"]  # what the tests set; a user has neither, and the commands decide
    apart = together = float("inf")
    for _ in range(ROUNDS):
        apart = min(apart, one_by_one(world, env))
        together = min(together, piped(world, env, 600) or float("inf"))
    spinning = piped(world, {**env, "GOMP_SPINCOUNT": SPIN}, PATIENCE * apart)
    slow = f"{spinning:.1f} s, {spinning / apart:.2f}x" if spinning else f"not done after {PATIENCE}x, stopped"
    print(f"\nal-sample | al-score, {os.cpu_count()} cores: one after the other {apart:.1f} s, "
          f"piped {together:.1f} s: {together / apart:.2f}x (at most {LIMIT})"
          f"\n  with OpenMP's default spinning: {slow}")
    assert together < LIMIT * apart
