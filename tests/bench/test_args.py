"""al-args beside plain greedy decoding, and the original's way: one prompt at a time, its cache copied k times.

al-args has its models' weights laid out (fast_linear.py); how much of the difference that makes is told apart.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import mean

import pytest
import torch
from transformers import DynamicCache

from al_args import token_by_token
from al_args.decoder import Decoder
from al_args.fast_linear import lay_out
from al_args.settings import Search
from al_args.token_by_token import GuidedDraw, GuidedModels
from al_train_rm import start
from alignlib.decoding import sampler
from alignlib.decoding.draws import Sampling
from alignlib.models import load, tokenizer_files
from alignlib.toy import world
from helpers.process import ROOT, call

NEW, K = 64, 10  # tokens a completion, none of which ends early; candidates a token
ROUNDS = 2
MARGINS = (None, 4.0, 2.0, 1.5, 1.0, 0.5)
AIMS = {(1, 64): 1.3, (1, 512): 1.8, (8, 64): 3.0, (8, 512): 3.0}  # (batch, prompt): how much faster than the original


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """An untrained Llama of 25M parameters, and a reward model made of it."""
    folder = tmp_path_factory.mktemp("args")
    (folder / "records").write_text(call("al-data", "toy", "--limit", 300).stdout)
    assert call("al-data", "new-model", "--size", "25m", folder / "lm", folder / "records").returncode == 0
    load.save(start.new_reward(str(folder / "lm"), None, "cpu"), folder / "rm")
    tokenizer_files.load_tokenizer(str(folder / "lm")).save_pretrained(folder / "rm")
    return folder


@pytest.fixture(scope="module")
def both_models(folder) -> tuple[GuidedModels, GuidedModels]:
    """The models as they are, and laid out."""
    return load_models(folder, False), load_models(folder, True)


def load_models(folder: Path, laid: bool) -> GuidedModels:
    policy = load.load_policy(str(folder / "lm"), "cpu", "fp32")
    reward = load.load_reward(str(folder / "rm"), "cpu", "fp32")
    for model in (policy, reward):
        model.core.config.max_position_embeddings = 1024
        if laid:
            lay_out(model.core)
    models = GuidedModels(policy, reward, load.encoder_for(policy), load.encoder_for(reward, end="none"), Sampling(NEW),
                          batch_tokens=1 << 20, ends_are_tokens=True)
    models.finished = endless
    return models


def endless(draw: sampler.Draw, token: int) -> bool:
    """Every way does the same work."""
    draw.ids.append(token)
    draw.reason = "length" if len(draw.ids) == NEW else ""
    return bool(draw.reason)


def plain(models: GuidedModels, prompts: list[list[int]]) -> list[list[int]]:
    """(a) The language model alone, all prompts at once."""
    draws = [sampler.Draw(i, 0, prompt, 0.0) for i, prompt in enumerate(prompts)]
    sampler.generate(models.policy, load.encoder_for(models.policy), draws, Sampling(NEW))
    return [draw.ids for draw in draws]


def ours(models: GuidedModels, prompts: list[list[int]], **search) -> list[list[int]]:
    """(b)"""
    draws = [GuidedDraw(i, 0, prompt, 1.0, reward_prompt=prompt) for i, prompt in enumerate(prompts)]
    for _ in token_by_token.decode(models, draws, Search(topk=K, **search)):
        pass
    return [draw.ids for draw in draws]


@torch.inference_mode()
def original(models: GuidedModels, prompts: list[list[int]]) -> list[list[int]]:
    """(c) Every candidate is a row, with a copy of the reward model's cache."""
    made = []
    for prompt in prompts:
        lm, rm = models.policy.core, models.reward.core
        read, asked = DynamicCache(config=lm.config), DynamicCache(config=rm.config)
        rm.base_model(input_ids=torch.tensor([prompt]), past_key_values=asked)
        text, new = list(prompt), prompt
        while len(text) < len(prompt) + NEW:
            best = lm(input_ids=torch.tensor([new]), past_key_values=read, logits_to_keep=1).logits[0, -1].topk(K)
            asked.batch_repeat_interleave(K)
            hidden = rm.base_model(input_ids=best.indices[:, None], past_key_values=asked).last_hidden_state
            pick = (best.values + rm.score(hidden)[:, 0, 0]).argmax(0, keepdim=True)
            asked.batch_select_indices(pick)
            new = [best.indices[pick].item()]
            text += new
        made.append(text[len(prompt):])
    return made


def seconds(*ways: Callable[[], object]) -> list[float]:
    """The quickest round of each, in seconds of processor time; the ways take turns."""
    best = [float("inf")] * len(ways)
    for _ in range(ROUNDS):
        for i, way in enumerate(ways):
            start = time.process_time()
            way()
            best[i] = min(best[i], time.process_time() - start)
    return best


@pytest.mark.parametrize("prompt", [64, 512])
@pytest.mark.parametrize("batch", [1, 8])
def test_against_the_original(both_models, monkeypatch, batch, prompt):
    monkeypatch.setattr(sampler, "stopping_ids", lambda encoder, stop: set())
    rows = torch.randint(10, 300, (batch, prompt), generator=torch.Generator().manual_seed(0)).tolist()
    models, laid = both_models
    assert ours(models, rows[:1]) == original(models, rows[:1])
    alone, guide, old, quick_alone, quick = seconds(
        lambda: plain(models, rows), lambda: ours(models, rows), lambda: original(models, rows),
        lambda: plain(laid, rows), lambda: ours(laid, rows))
    tokens = batch * NEW
    print(f"\nbatch {batch}, prompt {prompt}, tokens/s: plain {tokens / alone:.0f}, laid out "
          f"{tokens / quick_alone:.0f}; al-args {tokens / quick:.0f}, not laid out {tokens / guide:.0f}; "
          f"the original's way {tokens / old:.0f}\n  {old / quick:.2f}x the original's speed ({old / guide:.2f}x); "
          f"{quick / alone:.2f} times plain's time ({guide / alone:.2f}; both laid out {quick / quick_alone:.2f})")
    assert old / quick > AIMS[batch, prompt]


@pytest.mark.parametrize("batch", [1, 8])
def test_margins_in_the_toy_world(batch):
    """What --margin saves, and what it costs in reward: hh-args' models at weight 2, its held-out prompts."""
    run = ROOT / "runs" / "hh-args"
    if not (run / "rm" / "run.json").exists():
        pytest.skip("needs the models of `make hh-args`")
    decoder = Decoder(str(run / "sft"), str(run / "rm"), Sampling(NEW), (), window=1, batch_tokens=0, score_end=None,
                  lm_device="cpu", rm_device="cpu", lm_dtype="fp32", rm_dtype="fp32",
                  max_prompt=None, keep_prompt="end", on_long="fail")
    models, policy = decoder.models, decoder.models.policy
    records = map(json.loads, (run / "test.jsonl").read_text().splitlines())
    prompts = sorted(map(decoder.prepare, records), key=lambda both: len(both[0]))
    models.batch_tokens = batch * (len(prompts[-1][0]) + NEW + K + 1)

    def unguided() -> list[sampler.Draw]:
        draws = [sampler.Draw(i, 0, prompt, 0.0) for i, (prompt, _) in enumerate(prompts)]
        for first in range(0, len(draws), batch):
            sampler.generate(policy, decoder.encoder, draws[first:first + batch], Sampling(NEW))
        return draws

    def at(margin: float | None) -> list[GuidedDraw]:
        draws = [GuidedDraw(i, 0, prompt, 1.0, reward_prompt=asked) for i, (prompt, asked) in enumerate(prompts)]
        list(token_by_token.decode(models, draws, Search(topk=K, weight=2.0, margin=margin)))
        return draws

    def figures(draws: list[sampler.Draw]) -> tuple[int, str]:
        said = [policy.tokenizer.decode(draw.ids, skip_special_tokens=True) for draw in draws]
        asked = [policy.tokenizer.decode(draw.prompt, skip_special_tokens=True) for draw in draws]
        oracle = mean(world.score("overall", *both) for both in zip(asked, said, strict=True))
        learned = f", the model's {mean(draw.reward for draw in draws):.2f}" if isinstance(draws[0], GuidedDraw) else ""
        return sum(len(draw.ids) + (draw.reason == "stop") for draw in draws), f"oracle's reward {oracle:.2f}{learned}"

    times = seconds(unguided, *(lambda margin=margin: at(margin) for margin in MARGINS))
    tokens, worth = figures(unguided())
    print(f"\nbatch {batch}: plain {tokens / times[0]:.0f} tokens/s, {worth}")
    plain_token = times[0] / tokens
    for margin, spent in zip(MARGINS, times[1:], strict=True):
        before = models.reward_calls
        tokens, worth = figures(at(margin))
        print(f"  margin {margin}: {tokens / spent:.0f} tokens/s, {spent / tokens / plain_token:.2f} times plain's "
              f"time a token, {(models.reward_calls - before) / tokens:.2f} calls a token, {worth}")
        assert (models.reward_calls - before <= tokens) and (margin is None or models.reward_calls - before < tokens)
