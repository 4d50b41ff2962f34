"""Rollouts: what is drawn, what is kept of it, its numbers token by token."""

import pytest
import torch

from al_train_ppo.rollout import Prompt, draw, how_to_draw, logged, prompt_of, read_tokens, seed_of, with_rewards
from alignlib.decoding import sampler
from alignlib.decoding.draws import Draw, Sampling
from alignlib.models import load
from alignlib.training.adapters import add_adapters
from alignlib.training.engine import AskingEngine
from helpers import tiny
from helpers.commands import folders, prompts
from helpers.on_policy import settings

RECIPE = tiny.recipe("x")


@pytest.fixture(scope="module")
def policy():
    return load.load_policy(folders().policy, "cpu", "fp32", train=True)


@pytest.fixture(scope="module")
def encoder(policy):
    return load.encoder_for(policy, max_length=150, max_prompt=120, max_completion=13)


@pytest.fixture(scope="module")
def asked(encoder):
    return [Prompt(i, *prompt_of(encoder, record)) for i, record in enumerate(prompts(5))]


HOW = settings(number=3, max_new_tokens=12, temperature=1.0)


def test_answers_are_those_of_the_sampler_in_any_company(policy, encoder, asked):
    """The same names, the same draws: alone, in another order, and by the sampler itself."""
    how = how_to_draw(HOW, 3, seed_of(0, 4))
    rollout = draw(policy, encoder, asked, how, RECIPE)
    alone = draw(policy, encoder, asked[3:4], how, RECIPE)
    assert alone.records[0] == rollout.records[3]
    other = draw(policy, encoder, asked, how_to_draw(HOW, 3, seed_of(0, 5)), RECIPE)
    assert other.records != rollout.records
    draws = [Draw(3, i, asked[3].ids, 1.0) for i in range(3)]
    sampler.generate(policy, encoder, draws, how)
    assert rollout.records[3]["completions"] == [one.text for one in draws]
    assert rollout.records[3]["completion_ids"] == [one.ids for one in draws]


@pytest.mark.parametrize("lora", [0, 2])
def test_in_bf16_each_weight_is_cast_once_a_rollout(asked, lora):
    """However many tokens are drawn; afterwards what does not train does not."""
    policy = load.load_policy(folders().policy, "cpu", "bf16", train=True)
    add_adapters(policy, tiny.recipe("x", lora=lora or None))
    frozen = [weight for weight in policy.model.parameters() if not weight.requires_grad]
    shapes = {weight.shape for weight in policy.model.parameters() if weight.ndim == 2}
    encoder = load.encoder_for(policy, max_length=150, max_prompt=120, max_completion=13)

    def casts(number):
        how = Sampling(number, temperatures=(1.0,), seed=1)
        with torch.profiler.profile(record_shapes=True) as profile:
            rollout = draw(policy, encoder, asked[:1], how, RECIPE)
        assert len(rollout.examples[0].completions[0]) == number
        return sum(event.count for event in profile.key_averages(group_by_input_shape=True)
                   if event.key == "aten::_to_copy" and torch.Size(event.input_shapes[0]) in shapes)

    assert casts(2) == casts(6) > 0
    assert bool(frozen) == bool(lora) and not any(weight.requires_grad for weight in frozen)


def test_what_is_learnt_is_what_was_drawn(policy, encoder, asked):
    """Its ids, with the end where one was drawn; the share cut is that of the others."""
    rollout = draw(policy, encoder, asked, how_to_draw(HOW, 3, 1), RECIPE)
    reasons = []
    for example, record in zip(rollout.examples, rollout.records, strict=True):
        for answer, ids, end, reason in zip(example.completions, record["completion_ids"], record["end_ids"],
                                            record["finish_reasons"], strict=True):
            assert answer == (ids if end is None else [*ids, end]) and (end is None) == (reason == "length")
            reasons.append(reason)
    assert {"stop", "length"} == set(reasons)
    assert rollout.share_cut() == reasons.count("length") / 15
    assert rollout.lengths.tolist() == [[len(answer) for answer in one.completions] for one in rollout.examples]


def test_numbers_of_tokens_go_into_a_table_and_back(policy, encoder, asked):
    rollout = draw(policy, encoder, asked, how_to_draw(HOW, 3, 1), RECIPE)
    numbers = read_tokens(policy, AskingEngine(policy), rollout.examples, [[4, 0], [2, 1, 3]], RECIPE,
                          policy.token_logps)
    rollout.tokens["old"] = numbers
    sums = policy.logps(policy.pack(rollout.examples))
    table = rollout.padded("old")
    torch.testing.assert_close(table.sum(1).view(5, 3), sums, rtol=1e-5, atol=1e-4)
    rollout.put("again", table)
    assert all(torch.equal(a, b) for a, b in zip(rollout.tokens["again"], numbers, strict=True))
    batch = policy.pack([rollout.examples[i] for i in (3, 1)], [3, 1])
    assert torch.equal(rollout.tokens_of("old", batch), torch.cat([numbers[3], numbers[1]]))
    kept = logged(rollout, 7, 0.5, 2) if len(rollout.rewards) else logged(
        with_rewards(rollout, torch.ones(5, 3), HOW), 7, 0.5, 2)
    assert [record["step"] for record in kept] == [7, 7] and kept[0]["logps_temperature"] == 0.5
    assert kept[1]["logps"] == pytest.approx(sums[1].tolist(), abs=1e-4)


def test_a_cut_answer_pays_and_rewards_are_cut(policy, encoder, asked):
    rollout = draw(policy, encoder, asked, how_to_draw(HOW, 3, 1), RECIPE)
    rewards = torch.full((5, 3), 2.0, dtype=torch.float64)
    paid = with_rewards(rollout, rewards, settings(missing_end=5.0, clip_reward=1.5))
    for row, record in zip(paid.scores.tolist(), rollout.records, strict=True):
        assert row == [-1.5 if reason == "length" else 1.5 for reason in record["finish_reasons"]]
    assert torch.equal(paid.rewards, rewards)
