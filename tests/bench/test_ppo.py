"""GRPO beside TRL's GRPOTrainer, tokens of answers a second; and a rollout's sampling beside al-sample's.

Both trainers get the same prompts, in the same steps, and the same function for rewards; no answer ends before its
limit. From the files to the model's folder, drawing and judging included, imports not; processor time, one thread.
"""

import statistics
import time
from collections.abc import Callable

import pytest

from al_sample.backend_hf import Sampler
from al_train_ppo.rollout import Prompt, draw, how_to_draw, prompt_of
from alignlib.decoding.draws import Draw, encoder_limits
from alignlib.models import load
from alignlib.records.jsonl import Line
from helpers import tiny, trl
from helpers.on_policy import settings

PROMPT, ANSWER, ANSWERS = 256, 64, 8  # tokens; answers a prompt
PROMPTS, STEPS, ROUNDS = 4, 1, 3
TOKENS = PROMPTS * STEPS * ANSWERS * ANSWER  # drawn and learnt from in a training
AIM, AIM_SAMPLING, SLACK = 2.0, 0.9, 0.9  # other work on the machine must not fail the bench
REWARD = """
def score(record, completions):
    return [sum(word[-1:] in "13579" for word in text.split()) / 64 for text in completions]
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> dict[str, str]:
    """A model that ends no text, prompts, a reward."""
    folder = tmp_path_factory.mktemp("ppo")
    trl.word_model(folder / "model", endless=True)
    trl.write(folder / "prompts", ({"prompt": trl.text(PROMPT)} for _ in range(PROMPTS * STEPS)))
    (folder / "judge.py").write_text(REWARD)
    return {"model": str(folder / "model"), "data": str(folder / "prompts"), "reward": str(folder / "judge.py")}


@pytest.mark.parametrize("kl", [0.0, 0.04])
def test_grpo_against_trl(world, tmp_path, kl):
    """Without a reference, and with one: then al-train-ppo reads the old policy too, for the KL that it logs."""
    workers = {side: trl.Worker("grpo_worker.py", side) for side in ("ours", "theirs")}
    rates: dict[str, list[float]] = {side: [] for side in workers}
    logs = {}
    for turn in range(ROUNDS + 1):
        for side, worker in workers.items():
            done = worker.ask(**world, output=str(tmp_path / f"{turn} {side}"), prompts=PROMPTS, answers=ANSWERS,
                              tokens=ANSWER, steps=STEPS, kl=kl)
            logs[side] = done["log"]
            if turn:  # the first round warms up
                rates[side].append(TOKENS / done["seconds"])
    for worker in workers.values():
        worker.communicate()
    for log in logs.values():  # the same work
        assert [entry["length"] for entry in log] == [ANSWER] * STEPS
        assert log[0]["loss"] == pytest.approx(0, abs=1e-5) and all(entry["grad_norm"] > 0.01 for entry in log)
    means = {side: [statistics.fmean(entry[name] for entry in log) for name in ("reward", "grad_norm")]
             for side, log in logs.items()}
    assert means["ours"] == pytest.approx(means["theirs"], rel=0.2)
    gains = [mine / their for mine, their in zip(rates["ours"], rates["theirs"], strict=True)]
    print(f"\nKL {kl}: al-train-ppo {min(rates['ours']):.0f}-{max(rates['ours']):.0f} tokens/s, TRL "
          f"{min(rates['theirs']):.0f}-{max(rates['theirs']):.0f}: {min(gains):.2f}-{max(gains):.2f}x, median "
          f"{statistics.median(gains):.2f}x (aim {AIM})")
    assert statistics.median(gains) > SLACK * AIM


def test_a_rollouts_sampling_against_al_samples(world):
    """For 16 prompts, the default, as before a step and as al-sample draws for a file of them."""
    recipe, how = tiny.recipe("x", pack_tokens=8192), settings(number=ANSWERS, max_new_tokens=ANSWER, temperature=1.0)
    asked = how_to_draw(how, ANSWERS, 0)
    theirs = Sampler(world["model"], asked, condition=None, logps=False, window=64, batch_tokens=16384, device="cpu",
                     dtype="fp32", max_prompt=None, keep_prompt="end", on_long="truncate")
    policy = load.load_policy(world["model"], "cpu", "fp32", train=True)
    encoder = load.encoder_for(policy, **encoder_limits(policy.context, asked, None, "end", "truncate"))
    prompts = [Prompt(i, *prompt_of(encoder, {"prompt": trl.text(PROMPT)})) for i in range(16)]

    def rollout() -> list[list[int]]:
        return [ids for record in draw(policy, encoder, prompts, asked, recipe).records
                for ids in record["completion_ids"]]

    def window() -> list[list[int]]:
        rows = {one.number: [Draw(one.number, i, one.ids, 1.0) for i in range(ANSWERS)] for one in prompts}
        list(theirs.draw_window([Line(one.number, "", 0, b"", 0) for one in prompts], rows))
        return [draw.ids for row in rows.values() for draw in row]

    ratios = [len(prompts) * ANSWERS * ANSWER / took for took in quickest(rollout, window)]
    print(f"\na rollout's sampling: {ratios[0]:.0f} tokens/s, al-sample's {ratios[1]:.0f}: "
          f"{ratios[0] / ratios[1]:.2f}x (aim {AIM_SAMPLING})")
    assert ratios[0] / ratios[1] > AIM_SAMPLING


def quickest(*ways: Callable[[], list[list[int]]]) -> list[float]:
    """Seconds of processor time of each way's quickest round; they take turns and draw the same."""
    best, drawn = [float("inf")] * len(ways), {}
    for _ in range(ROUNDS):
        for i, way in enumerate(ways):
            start = time.process_time()
            drawn[i] = way()
            best[i] = min(best[i], time.process_time() - start)
        assert all(map(len, drawn[0])) and drawn[0] == drawn[1]
    return best
