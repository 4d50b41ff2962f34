"""Passes over examples: a step and its split, its loss by hand, an evaluation."""

import pytest
import torch

from al_sft import Likelihood
from alignlib.models import load
from alignlib.models.policy import Policy
from alignlib.training import passes
from alignlib.training.engine import AskingEngine
from helpers import tiny
from helpers.training import examples, fit, log, same


@pytest.mark.parametrize("per", ["token", "sequence"])
def test_the_split_of_a_batch_does_not_change_its_step(per, tmp_path):
    """One pass over the batch, or one an example: accumulation is the full batch.

    In float64: AdamW's first steps are the gradient's sign, also where the gradient is a sum's rounding error.
    """
    found = []
    for pack_tokens in (1, 60, 4096):
        model = tiny.causal("gpt2").double()
        load.remove_dropout(model)
        policy, made = fit(tmp_path / str(pack_tokens), model=Policy(model, tiny.tokenizer()), steps=3, lr=1e-3,
                           objective=Likelihood(per), pack_tokens=pack_tokens, batch_size=5)
        found.append((policy.core.state_dict(), [entry["loss"] for entry in log(made.folder)]))
    for state, losses in found[1:]:
        same(state, found[0][0], 1e-6)
        assert losses == pytest.approx(found[0][1], rel=1e-9)


def test_the_loss_is_the_mean_over_the_whole_batch(tmp_path):
    """By hand from the model's own log-probabilities, ragged completions: over tokens, over sequences."""
    data = examples(4)
    policy = Policy(tiny.causal("llama"), tiny.tokenizer())
    with torch.no_grad():
        sums = [policy.logps(policy.pack([example])).item() for example in data]
    tokens = sum(len(example.completions[0]) for example in data)
    for per, wanted in (("token", -sum(sums) / tokens), ("sequence", -sum(sums) / 4)):
        _, made = fit(tmp_path / per, data=data, objective=Likelihood(per), pack_tokens=30)
        (entry,) = log(made.folder)
        assert entry["loss"] == pytest.approx(wanted, rel=1e-5)
        assert entry["tokens"] == sum(example.length for example in data)
    recipe = tiny.recipe("x", pack_tokens=30)
    held = passes.evaluate(policy, data, Likelihood("token"), recipe, AskingEngine(policy))
    assert held["loss"] == pytest.approx(-sum(sums) / tokens, rel=1e-5)


def test_nothing_to_learn_from_is_no_division_by_zero(tmp_path):
    """A cut, empty completion has no token to train on."""
    _, made = fit(tmp_path / "run", data=[tiny.example(4, 0)], steps=1)
    assert log(made.folder)[0]["loss"] == 0.0
