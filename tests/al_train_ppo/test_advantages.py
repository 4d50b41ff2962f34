"""Advantages: DeepSpeed-Chat's numbers, and by hand."""

import json

import pytest
import torch

from al_train_ppo import advantages
from alignlib.training import losses


def cases(fixtures):
    return [json.loads(line) for line in (fixtures / "deepspeed-chat" / "ppo.jsonl").read_text().splitlines()]


def double(rows):
    return torch.tensor(rows, dtype=torch.float64)


def test_ppo_is_deepspeed_chats(fixtures):
    """Its rewards, advantages, returns, losses and their gradients.

    There the end of the sequence is an entry one past the last that counts: it gets the score, and is not trained. To
    us it is the answer's last token, trained like all: so its lengths are one more here, and the mask is put upon ours.
    """
    compared = 0
    for case in cases(fixtures):
        mask, limit = double(case["mask"]), len(case["mask"][0])
        lengths = torch.tensor([min(count + 1, limit) for count in case["answer_tokens"]])
        there = (torch.arange(limit) < lengths[:, None]).double()
        old, other, values = (double(case[name]) for name in ("old_logps", "ref_logps", "old_values"))
        score = double(case["score"]).clamp(-case["clip_reward_value"], case["clip_reward_value"])
        rewards = advantages.token_rewards(score, old * there, other * there, lengths, case["kl_ctl"])
        torch.testing.assert_close(rewards, double(case["rewards"]) * there, rtol=0, atol=1e-9)
        gains, returns = advantages.generalized(rewards, values * there, case["gamma"], case["lam"])
        torch.testing.assert_close(gains * there, double(case["advantages"]) * there, rtol=0, atol=1e-9)
        torch.testing.assert_close(returns * there, double(case["returns"]) * there, rtol=0, atol=1e-9)
        new, new_values = (double(case[name]).requires_grad_() for name in ("new_logps", "new_values"))
        actor = losses.clipped_ratio((new - old).exp(), gains, case["cliprange"])
        critic = losses.clipped_values(new_values, values, returns, case["cliprange_value"])
        for loss, name, weight in ((actor, "actor_loss", new), (critic, "critic_loss", new_values)):
            mean = (loss * mask).sum() / mask.sum()
            assert mean.item() == pytest.approx(case[name], abs=1e-9)
            (gradient,) = torch.autograd.grad(mean, weight)
            wanted = double(case["grad_new_logps" if name == "actor_loss" else "grad_new_values"])
            torch.testing.assert_close(gradient, wanted, rtol=0, atol=1e-9)
            compared += 1
    assert compared == 48


def test_generalized_advantages_by_hand():
    """Two tokens: delta_1 = 2 - 1 = 1, delta_0 = .5 + .9 * 1 - 3 = -1.6; A_0 = -1.6 + .9 * .5 * 1."""
    gains, returns = advantages.generalized(double([[0.5, 2.0, 0.0]]), double([[3.0, 1.0, 0.0]]), 0.9, 0.5)
    assert gains.tolist() == [[pytest.approx(-1.15), 1.0, 0.0]]
    assert returns.tolist() == [[pytest.approx(1.85), 2.0, 0.0]]


def test_with_lambda_1_an_advantage_is_what_came_less_what_was_expected():
    torch.manual_seed(0)
    rewards, values = torch.randn(3, 7, dtype=torch.float64), torch.randn(3, 7, dtype=torch.float64)
    _, returns = advantages.generalized(rewards, values, 1.0, 1.0)
    torch.testing.assert_close(returns, rewards.flip(1).cumsum(1).flip(1))


def test_a_reward_is_at_an_answers_last_token_and_the_kl_at_each():
    rewards = advantages.token_rewards(double([4.0, -1.0]), double([[-1.0, -2.0], [-3.0, 0.0]]),
                                       double([[-1.5, -2.0], [-2.0, 0.0]]), torch.tensor([2, 1]), 0.1)
    assert rewards.tolist() == [[pytest.approx(-0.05), 4.0], [pytest.approx(-0.9), 0.0]]


def test_leave_one_out_by_hand():
    assert advantages.leave_one_out(double([[1.0, 2.0, 6.0]])).tolist() == [[-3.0, -1.5, 4.5]]


def test_group_relative_by_hand():
    """Mean 3, deviation (n - 1) 2."""
    gains = advantages.group_relative(double([[1.0, 3.0, 5.0]]))
    assert gains.tolist() == [[pytest.approx(-2 / 2.0001), 0.0, pytest.approx(2 / 2.0001)]]
    assert advantages.group_relative(double([[1.0, 3.0, 5.0]]), scaled=False).tolist() == [[-2.0, 0.0, 2.0]]
    assert advantages.group_relative(double([[7.0, 7.0]])).tolist() == [[0.0, 0.0]]


def test_whitened_and_explained_variance():
    white = advantages.whitened(double([1.0, 2.0, 6.0]))
    assert white.mean().item() == pytest.approx(0) and white.var(correction=0).item() == pytest.approx(1)
    returns = double([1.0, 2.0, 6.0])
    assert advantages.explained_variance(returns, returns) == 1
    assert advantages.explained_variance(double([3.0, 3.0, 3.0]), returns) == 0
    assert advantages.explained_variance(-returns, returns) == pytest.approx(-3)
    assert advantages.explained_variance(returns, double([3.0, 3.0, 3.0])) == 0
