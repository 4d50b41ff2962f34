"""Guidance that asks once a step beside plain greedy decoding, and beside the original ARGS's way.

plain       al-sample's greedy decoding, all prompts at once
next-token  one reward model's log-probabilities beside the language model's
vocabulary  of ten candidates a token the one with the best logit + value
ARGS        al-args by a reward model of texts, ten candidates a token
original    one prompt at a time, ten candidates on a copied cache; its reward model as large as the language model

All with the same laid-out weights (al_args/fast_linear.py) but for the original, in one run, in turns.
"""

import time
from collections.abc import Callable, Sequence
from math import isfinite
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import DynamicCache

from al_args import token_by_token
from al_args.fast_linear import lay_out
from al_args.next_tokens import Candidates, Guide, NextDraw, Products
from al_args.settings import Search
from al_args.token_by_token import GuidedDraw, GuidedModels
from al_train_rm import start
from alignlib.decoding import sampler
from alignlib.decoding.draws import Draw, Sampling
from alignlib.models import load
from alignlib.models.encoding import Encoder
from alignlib.models.policy import Policy, RewardModel
from alignlib.models.scoring import PackScorer
from alignlib.models.token_rewards import NextTokenReward, TokenReward, VocabularyReward
from helpers import tiny
from helpers.process import call

NEW, K = 64, 10  # tokens a completion, none of which ends early; candidates a token
ROUNDS, LONG = 2, 10_000  # rounds; tokens of prompts beyond which one is enough
# By the reward model's size: at most so many times plain's time; at least so many times the original's speed, whose
# reward model is as large as the language model.
SIZES = {"as large": ("25m", 2.1, 5.5), "a fifth": ("5m", 1.5, 8.0)}


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """Untrained Llamas of one tokenizer."""
    folder = tmp_path_factory.mktemp("guidance")
    (folder / "records").write_text(call("al-data", "toy", "--limit", 300).stdout)
    made = {}
    for size in ("25m", "5m"):
        made[size] = folder / size
        assert call("al-data", "new-model", "--size", size, made[size], folder / "records").returncode == 0
    return made


def longer(model: Policy | RewardModel) -> None:
    """A context for the longest of the texts, and weights laid out."""
    model.core.config.max_position_embeddings = 1024
    lay_out(model.core)


def guide(kind: type[TokenReward], folder: Path) -> Guide:
    model = start.new_token_reward(kind, str(folder), tiny.recipe("x"))
    model.train = False
    longer(model)
    encoder = load.encoder_for(model)
    return Guide(str(folder), model, encoder, encoder,
                 PackScorer(model, lambda batch: {"rewards": model.scores(batch)}, 1024))


@pytest.fixture(scope="module", params=SIZES)
def models(request, folders) -> SimpleNamespace:
    """The language model, and reward models of each kind."""
    size, slower, faster = SIZES[request.param]
    policy = load.load_policy(str(folders["25m"]), "cpu", "fp32")
    reward = start.new_reward(str(folders[size]), None, "cpu", "fp32")
    original = RewardModel(start.new_reward(str(folders["25m"]), None, "cpu", "fp32").core, policy.tokenizer)
    unlaid = load.load_policy(str(folders["25m"]), "cpu", "fp32")
    for model in (policy, reward):
        longer(model)
    for model in (original, unlaid):
        model.core.config.max_position_embeddings = 1024
    encoder = load.encoder_for(policy)
    both = GuidedModels(policy, reward, encoder, load.encoder_for(reward, end="none"), Sampling(NEW),
                        batch_tokens=1 << 20, ends_are_tokens=True)
    both.finished = endless
    # A policy that al-args asks about branches attends by them: plain decoding has one of its own.
    plain = load.load_policy(str(folders["25m"]), "cpu", "fp32")
    longer(plain)
    return SimpleNamespace(name=request.param, slower=slower, faster=faster, policy=plain, encoder=encoder, args=both,
                           next_token=guide(NextTokenReward, folders[size]), unlaid=unlaid, original=original,
                           vocabulary=guide(VocabularyReward, folders[size]))


def endless(draw: Draw, token: int) -> bool:
    """Every way does the same work."""
    draw.ids.append(token)
    draw.reason = "length" if len(draw.ids) == NEW else ""
    return bool(draw.reason)


@pytest.fixture(autouse=True)
def no_ends(monkeypatch):
    monkeypatch.setattr(sampler, "finisher", lambda encoder, how: endless)


def draws(encoder: Encoder, prompts: Sequence[list[int]]) -> list[NextDraw]:
    return [NextDraw(i, 0, prompt, 0.0, about={"prompt": encoder.tokens.decode(prompt)}, prompts=[prompt], said=[0.0])
            for i, prompt in enumerate(prompts)]


def plain(models: SimpleNamespace, prompts: Sequence[list[int]]) -> None:
    batch = [Draw(i, 0, prompt, 0.0) for i, prompt in enumerate(prompts)]
    sampler.generate(models.policy, models.encoder, batch, Sampling(NEW))


def by_tokens(models: SimpleNamespace, prompts: Sequence[list[int]], kind: str) -> None:
    batch, vocabulary = draws(models.encoder, prompts), models.policy.core.config.vocab_size
    guidance = (Products([models.next_token], [1.0], batch, vocabulary) if kind == "next_token" else
                Candidates(models.vocabulary, Search(topk=K), batch, vocabulary))
    sampler.generate(models.policy, models.encoder, batch, Sampling(NEW), guidance)
    assert all(isfinite(draw.said[0]) and len(draw.ids) == NEW for draw in batch)  # rewards, which cost nothing more


def args(models: SimpleNamespace, prompts: Sequence[list[int]]) -> None:
    batch = [GuidedDraw(i, 0, prompt, 1.0, reward_prompt=prompt) for i, prompt in enumerate(prompts)]
    for _ in token_by_token.decode(models.args, batch, Search(topk=K)):
        pass


@torch.inference_mode()
def original(models: SimpleNamespace, prompts: Sequence[list[int]]) -> None:
    """Every candidate is a row, with a copy of the reward model's cache."""
    lm, rm = models.unlaid.core, models.original.core
    for prompt in prompts:
        read, asked = DynamicCache(config=lm.config), DynamicCache(config=rm.config)
        rm.base_model(input_ids=torch.tensor([prompt]), past_key_values=asked)
        new = prompt
        for _ in range(NEW):
            best = lm(input_ids=torch.tensor([new]), past_key_values=read, logits_to_keep=1).logits[0, -1].topk(K)
            asked.batch_repeat_interleave(K)
            hidden = rm.base_model(input_ids=best.indices[:, None], past_key_values=asked).last_hidden_state
            pick = (best.values + rm.score(hidden)[:, 0, 0]).argmax(0, keepdim=True)
            asked.batch_select_indices(pick)
            new = [best.indices[pick].item()]


def seconds(ways: dict[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    """Of each the rounds' processor time; the ways take turns, the slow original one."""
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds):
        for name, way in ways.items():
            if number and name == "original":
                continue
            began = time.process_time()
            way()
            spent[name].append(time.process_time() - began)
    return spent


@pytest.mark.parametrize("prompt", [64, 512])
@pytest.mark.parametrize("batch", [1, 8, 32])
def test_one_question_a_step(models, batch, prompt):
    rows = torch.randint(10, 300, (batch, prompt), generator=torch.Generator().manual_seed(0)).tolist()
    ways = {"plain": lambda: plain(models, rows), "next-token": lambda: by_tokens(models, rows, "next_token"),
            "vocabulary": lambda: by_tokens(models, rows, "vocabulary")}
    if batch == 8:
        ways |= {"ARGS": lambda: args(models, rows), "original": lambda: original(models, rows)}
    rounds = 1 if batch * prompt > LONG else ROUNDS
    spent = {name: min(times) for name, times in seconds(ways, rounds).items()}
    tokens, of_plain = batch * NEW, {name: time / spent["plain"] for name, time in spent.items()}
    told = ", ".join(f"{name} {tokens / time:.0f} tokens/s ({of_plain[name]:.2f})" for name, time in spent.items())
    print(f"\nreward model {models.name}, batch {batch}, prompt {prompt}: {told}")
    for name in ("next-token", "vocabulary"):
        assert of_plain[name] <= models.slower, name
        if "original" in spent:
            print(f"  {name}: {spent['original'] / spent[name]:.2f} times the original's speed")
            assert spent["original"] / spent[name] >= models.faster, name

