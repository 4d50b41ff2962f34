"""Fifty kills of each command: no byte differs. The numbers printed are kills and the whole runs they fell into."""

import pytest

from helpers.kills import on_policy_job, sample_job, score_job, survive, training_job

KILLS = 50
JOBS = {
    "al-sample": lambda folder: sample_job(folder),
    "al-sample, bad lines put aside": lambda folder: sample_job(folder, skip=True),
    "al-sample of a pipe": lambda folder: sample_job(folder, stdin=True),
    "al-score": lambda folder: score_job(folder),
    "al-score, bad lines put aside": lambda folder: score_job(folder, skip=True),
    "al-score of a pipe": lambda folder: score_job(folder, stdin=True),
    "al-sft": lambda folder: training_job(folder, "al-sft"),
    "al-sft in bf16": lambda folder: training_job(folder, "al-sft", "--dtype", "bf16"),
    "al-sft, adapters": lambda folder: training_job(folder, "al-sft", "--lora", 4),
    "al-train-exo": lambda folder: training_job(folder, "al-train-exo"),
    "al-train-exo, all checkpoints kept": lambda folder: training_job(folder, "al-train-exo", "--keep", 0),
    "al-train-ppo": lambda folder: on_policy_job(folder),
    "al-train-ppo, adapters": lambda folder: on_policy_job(folder, "--lora", 4),
}


@pytest.mark.parametrize("name", JOBS)
def test_fifty_kills(name, tmp_path):
    runs = survive(JOBS[name](tmp_path), KILLS, seed=sum(map(ord, name)))
    print(f"\n{name}: {KILLS} kills in {runs} runs, no byte differs")
