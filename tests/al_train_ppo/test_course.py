"""The course: its steps and updates, what is read before learning, when a policy is its own old one."""

import pytest
import torch

from al_train_ppo import course as courses
from al_train_ppo.course import OnPolicy, Reference
from al_train_ppo.rollout import Prompt, prompt_of, read_tokens
from alignlib.models import load
from alignlib.training.engine import PlainEngine
from alignlib.training.loop import Halted
from helpers import tiny
from helpers.commands import folders, prompts
from helpers.on_policy import settings


def course(count=6, reference=False, ptx=(), **changes) -> OnPolicy:
    """On so many prompts; an answer's reward is its length in characters."""
    recipe = tiny.recipe("x", **{name: changes.pop(name) for name in ("batch_size", "steps", "epochs")
                                 if name in changes})
    policy = load.load_policy(folders().policy, "cpu", "fp32", train=True)
    encoder = load.encoder_for(policy, max_length=150, max_prompt=120, max_completion=11)
    asked = [Prompt(i, *prompt_of(encoder, record)) for i, record in enumerate(prompts(count))]
    how = settings(**{"temperature": 1.0, "kl_coef": 0.1 * reference, **changes})
    return OnPolicy(policy, encoder, how, recipe, asked, (),
                    lambda where, records: [[float(len(text)) for text in record["completions"]]
                                            for record in records],
                    Reference(load.load_policy(folders().other, "cpu", "fp32", train=True)) if reference else None,
                    ptx=ptx)


def test_steps_are_rollouts_and_updates_those_of_the_optimizer():
    """6 prompts, 4 a rollout: 2 an epoch, of 4 and 2 prompts; 2 answers each, 4 an update, two passes: 4 + 2."""
    made = course(prompts=4, batch_size=4, passes=2, epochs=2)
    assert (made.steps, made.an_epoch, made.updates) == (4, 2, 2 * (4 + 2))
    taken = [len(made.minibatches(step, len(made.order.at(step)))) for step in range(4)]
    assert [made.updates_before(step) for step in range(5)] == [sum(taken[:step]) for step in range(5)]
    batches = made.minibatches(0, 4)
    assert [len(batch) for batch in batches] == [2, 2, 2, 2]
    assert sorted(batches[0] + batches[1]) == sorted(batches[2] + batches[3]) == [0, 1, 2, 3]
    assert batches != made.minibatches(1, 4) and batches == made.minibatches(0, 4)


def test_texts_that_are_learnt_beside_are_read_in_turn(monkeypatch):
    """A batch an update, though an epoch's last rollout, of 2 prompts, has one where the first, of 4, has two."""
    made = course(prompts=4, batch_size=4, epochs=2, ptx=[tiny.example(3, 4) for _ in range(9)])
    read = []
    monkeypatch.setattr(made.ptx_order, "at", lambda number: read.append(number) or [0, 1])
    engine = PlainEngine(made.policy, made.recipe, made.updates)
    made.begin(None)
    for step in range(made.steps):
        made.learn(step, engine)
    assert read == [0, 1, 2, 3, 4, 5] == list(range(made.updates))


@pytest.mark.parametrize(("more", "known"), [
    ({"batch_size": 4}, 1), ({"batch_size": 8, "passes": 2}, 1), ({"batch_size": 8}, 0),
    ({"batch_size": 8, "reference": True}, 1), ({"batch_size": 4, "reference": True}, 2),
    ({"batch_size": 8, "reference": True, "method": "rloo"}, 2)])
def test_old_numbers_are_read_where_they_are_wanted(more, known, monkeypatch):
    """With one update the policy is the old one: what the loss sees is known of it, if advantages do not ask before."""
    read = []
    monkeypatch.setattr(courses, "read_tokens", lambda *args, **how: read.append(args) or read_tokens(*args, **how))
    made = course(prompts=4, **more)
    engine = PlainEngine(made.policy, made.recipe, made.updates)
    made.begin(None)
    entry = made.learn(0, engine)
    beside = ["reference"] if "reference" in more else []
    assert len(read) == known and set(made.objective.rollout.tokens) == {"old", *beside}
    assert ("kl" in entry) == bool(beside) and entry["entropy"] > 0
    assert entry["clip_share"] >= 0 and entry["seconds_sampling"] > 0


@pytest.mark.parametrize("more", [{"kl_coef": 0.0}, {"reference": True, "kl_coef": 0.5}])
def test_one_update_is_the_same_with_and_without_old_numbers(more, monkeypatch):
    """The shortcut changes no bit of a weight, nor what is said of the old policy."""
    states, said = [], []
    for always in (False, True):
        made = course(prompts=4, batch_size=8, **more)
        engine = PlainEngine(made.policy, made.recipe, made.updates)
        made.begin(None)
        if always:
            monkeypatch.setattr(made, "read", lambda *args, old, made=made: courses.OnPolicy.read(made, *args))
        entry = made.learn(0, engine)
        states.append(made.policy.core.state_dict())
        said.append((entry["entropy"], entry.get("kl", 0.0), made.objective.rollout.tokens["old"]))
    torch.testing.assert_close(*states, rtol=0, atol=0)
    torch.testing.assert_close(*said, rtol=0, atol=0)


@pytest.mark.parametrize("reward", [1e30, -1e308])
def test_a_reward_too_large_for_the_model_s_arithmetic_is_named(reward):
    made = course(prompts=4, batch_size=8)
    made.prompts[1].record["prompt"] = "This one."
    made.judge = lambda where, records: [[1.0, reward if record["prompt"] == "This one." else 0.0]
                                         for record in records]
    made.prompts = [Prompt(one.number, one.record, one.ids, f"in:{one.number + 1}") for one in made.prompts]
    engine = PlainEngine(made.policy, made.recipe, made.updates)
    with pytest.raises(Halted, match=rf"^in:2: a reward of {reward:g}".replace("+", r"\+")):
        for step in range(made.steps):
            made.learn(step, engine)


def test_equal_rewards_are_counted_and_not_divided_by():
    made = course(prompts=4, batch_size=8)
    made.judge = lambda where, records: [[7.0] * len(record["completions"]) for record in records]
    entry = made.learn(0, PlainEngine(made.policy, made.recipe, made.updates))
    assert entry["equal_groups"] == 4 and entry["loss"] == 0 and entry["grad_norm"] == 0


def test_rloo_takes_the_kl_from_the_rewards():
    """The whole answer's log-ratio, with the coefficient, before the others' mean is taken."""
    made = course(prompts=4, batch_size=8, method="rloo", reference=True, kl_coef=0.25)
    made.begin(None)
    made.learn(0, PlainEngine(made.policy, made.recipe, made.updates))
    rollout = made.objective.rollout
    apart = (rollout.padded("old") - rollout.padded("reference")).sum(1).view(4, 2)
    returns = rollout.scores - 0.25 * apart
    wanted = returns - returns.flip(1)
    found = torch.tensor([example.values["advantages"] for example in rollout.examples], dtype=torch.float64)
    torch.testing.assert_close(found, wanted)
