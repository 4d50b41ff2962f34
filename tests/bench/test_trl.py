"""DPO beside TRL's DPOTrainer, in an environment of its own: tokens of the data a second of processor time, one thread.

Both read the same pairs and model, compute the reference's log-probabilities, train on the same batches and write a
model; imports are not counted. A token of the data is one of a pair's 2 * (prompt + completion), which is what TRL
computes; a pack holds prompt + 2 * completion of them: 1.67 times fewer.
"""

import math
import statistics

import pytest

from alignlib.training.batches import Batches, Shuffled
from helpers import tiny, trl

PROMPT, COMPLETION = 256, 64
PAIRS, BATCH, RATE, ROUNDS = 16, 4, 1e-4, 3
DATA = PAIRS * 2 * (PROMPT + COMPLETION)  # tokens
AIM, SLACK = 1.8, 0.85  # other work on the machine must not fail the bench


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> dict[str, str]:
    """A model, and pairs of exact lengths; TRL is given them in the order in which al-train-exo takes them."""
    folder = tmp_path_factory.mktemp("trl")
    trl.word_model(folder / "model")
    pairs = [[trl.text(PROMPT), *(" " + trl.text(COMPLETION - 1) for _ in range(2))] for _ in range(PAIRS)]  # and <eos>
    recipe = tiny.recipe(folder, batch_size=BATCH)
    batches = Batches(Shuffled(PAIRS), recipe)
    order = [i for step in range(PAIRS // BATCH) for i in batches.at(step)]
    trl.write(folder / "ours", ({"prompt": x, "completions": [y, z], "rewards": [1, 0]} for x, y, z in pairs))
    trl.write(folder / "theirs", ({"prompt": x, "chosen": y, "rejected": z} for x, y, z in (pairs[i] for i in order)))
    return {name: str(folder / name) for name in ("model", "ours", "theirs")}


@pytest.mark.parametrize(("dtype", "rounding"), [("fp32", 1e-4), ("bf16", 1e-2)])
def test_against_trl(world, tmp_path, dtype, rounding):
    ways = {"al-train-exo": ("ours", False), "TRL": ("theirs", False), "TRL, gradient checkpointing": ("theirs", True)}
    workers = {side: trl.Worker("dpo_worker.py", side) for side in ("ours", "theirs")}
    rates, losses = {name: [] for name in ways}, {}
    for turn in range(ROUNDS + 1):
        for name, (side, checkpointing) in ways.items():
            done = workers[side].ask(model=world["model"], data=world[side], dtype=dtype, batch=BATCH, lr=RATE,
                                     output=str(tmp_path / f"{turn} {name}"), checkpointing=checkpointing)
            losses[name] = done["losses"]
            if turn:  # the first round warms up
                rates[name].append(DATA / done["seconds"])
    for worker in workers.values():
        worker.communicate()
    assert losses["TRL"][0] == pytest.approx(math.log(2), abs=1e-6)
    assert losses["al-train-exo"] == pytest.approx(losses["TRL"], abs=rounding)  # the same work
    gains = {name: [mine / their for mine, their in zip(rates["al-train-exo"], rates[name], strict=True)]
             for name in rates}
    print()
    for name, gain in gains.items():
        print(f"{dtype} {name:27}: {min(rates[name]):4.0f}-{max(rates[name]):4.0f} tokens/s; al-train-exo's are "
              f"{min(gain):.2f}-{max(gain):.2f}x, median {statistics.median(gain):.2f}x (aim {AIM})")
    assert statistics.median(gains["TRL"]) > SLACK * AIM
