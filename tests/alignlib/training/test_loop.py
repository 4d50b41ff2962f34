"""The training loop: a step and its split, the same weights by other ways."""

import math
from types import SimpleNamespace

import pytest
import torch

from al_sft import Likelihood
from alignlib.models import load
from alignlib.models.policy import Policy
from alignlib.training import loop
from alignlib.training.engine import Asking, Single
from alignlib.training.objective import Objective
from helpers import tiny
from helpers.training import examples, fit, log, same

# -- a step -----------------------------------------------------------------------------------------------------


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
    held = loop.evaluate(policy, data, Likelihood("token"), recipe, Asking(policy))
    assert held["loss"] == pytest.approx(-sum(sums) / tokens, rel=1e-5)


def bare(layer):
    """A layer as an engine sees a model."""
    return SimpleNamespace(model=layer, core=layer, device=torch.device("cpu"), autocast=None)


def test_one_step_of_the_optimizer_by_hand():
    """RMSprop and AdamW on one weight with gradient 2, clipped or not; the rate reported is the one used."""

    def stepped(**changes):
        layer = torch.nn.Linear(1, 1, bias=False)
        torch.nn.init.constant_(layer.weight, 3.0)
        engine = Single(bare(layer), tiny.recipe("x", lr=0.1, **changes), total=10)
        engine.backward(2 * layer.weight.sum(), last=True)
        entry = engine.step()
        return layer.weight.item(), entry

    weight, entry = stepped(optimizer="rmsprop", clip=0.0)
    assert weight == pytest.approx(3 - 0.1 * 2 / math.sqrt(0.01 * 4)) and entry["grad_norm"] == 2.0
    weight, entry = stepped(optimizer="rmsprop", clip=0.5)  # RMSprop does not see a scale: all the same
    assert weight == pytest.approx(3 - 0.1 / math.sqrt(0.01)) and entry == {"grad_norm": 2.0, "lr": 0.1}
    weight, _ = stepped(weight_decay=0.5, clip=0.0)
    assert weight == pytest.approx(3 * (1 - 0.05) - 0.1)  # AdamW: decoupled decay; the first step is lr


def test_an_overflow_in_fp16_skips_the_step():
    """Gradients that fp16's scale made infinite: no step, half the scale, and the next one is taken."""
    layer = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(layer.weight, 3.0)
    model = bare(layer)
    model.autocast = torch.float16
    engine = Single(model, tiny.recipe("x", lr=0.1, optimizer="rmsprop", clip=0.0), total=10)
    engine.backward(layer.weight.sum() * 1e36, last=True)
    assert engine.step() == {"grad_norm": None, "lr": 0.1} and layer.weight.item() == 3.0
    assert engine.scaler.get_scale() == 2.0**15
    engine.backward(2 * layer.weight.sum(), last=True)
    assert engine.step() == {"grad_norm": 2.0, "lr": 0.1}
    assert layer.weight.item() == pytest.approx(3 - 0.1 * 2 / math.sqrt(0.01 * 4))


def test_clipping_scales_the_gradient():
    layer = torch.nn.Linear(2, 1, bias=False)
    engine = Single(bare(layer), tiny.recipe("x", clip=1.0), total=1)
    engine.backward((layer.weight * torch.tensor([[3.0, 4.0]])).sum(), last=True)
    engine.optimizer.step = lambda: seen.append(layer.weight.grad.clone())
    seen = []
    assert engine.step()["grad_norm"] == pytest.approx(5.0)
    same(seen[0], torch.tensor([[0.6, 0.8]]), 1e-5)
    assert layer.weight.grad is None


@pytest.mark.parametrize("schedule, warmup, wanted", [
    ("constant", 0, [1, 1, 1, 1]),
    ("constant", 2, [0, 0.5, 1, 1]),
    ("linear", 0.5, [0, 0.5, 1, 0.5]),  # below 1: a share of the steps
    ("linear", 0, [1, 0.75, 0.5, 0.25]),
    ("cosine", 0, [1, (1 + math.cos(math.pi / 4)) / 2, 0.5, (1 + math.cos(3 * math.pi / 4)) / 2]),
])
def test_schedules(schedule, warmup, wanted, tmp_path):
    _, made = fit(tmp_path / "run", schedule=schedule, warmup=warmup, steps=4, lr=1e-3)
    assert [entry["lr"] for entry in log(made.folder)] == pytest.approx([1e-3 * share for share in wanted], abs=1e-12)


def test_nothing_to_learn_from_is_no_division_by_zero(tmp_path):
    """A cut, empty completion has no token to train on."""
    _, made = fit(tmp_path / "run", data=[tiny.example(4, 0)], steps=1)
    assert log(made.folder)[0]["loss"] == 0.0


def test_numbers_that_are_none_stop_the_run(tmp_path):
    """Whether the loss is not finite, or only its gradient (then of an otherwise fine looking step)."""
    policy = Policy(tiny.causal("llama"), tiny.tokenizer())
    policy.core.model.norm.weight.data[0] = math.nan
    with pytest.raises(FloatingPointError, match="the loss is nan at step 1"):
        fit(tmp_path / "loss", model=policy)

    class Edge(Likelihood):
        def __call__(self, model, batch):
            weight = model.core.lm_head.weight[0, 0]
            return super().__call__(model, batch)[0] + (weight - weight.detach()).abs().sqrt(), {}

    with pytest.raises(FloatingPointError, match="the gradient's norm is nan at step 1"):
        fit(tmp_path / "gradient", objective=Edge("token"))
    assert not (tmp_path / "loss" / "run.json").exists() and not (tmp_path / "gradient" / "run.json").exists()


# -- the same weights by other ways -----------------------------------------------------------------------------


def test_gradient_checkpointing_changes_no_weight(tmp_path):
    for family in ("llama", "gpt2"):
        plain, _ = fit(tmp_path / f"{family}-plain", family=family, data=examples(4, 5, 3, rewards=[1.0, 0.0]),
                       objective=Pairs())
        less, _ = fit(tmp_path / f"{family}-less", family=family, data=examples(4, 5, 3, rewards=[1.0, 0.0]),
                      objective=Pairs(), gradient_checkpointing=True)
        assert less.core.is_gradient_checkpointing
        same(less.core.state_dict(), plain.core.state_dict(), 1e-6)


class Pairs(Objective):
    """Pull the first completion up and the second down: a loss on packs with a mask."""

    def size(self, example):
        return 1

    def __call__(self, model, batch):
        logps = model.logps(batch)
        return torch.nn.functional.softplus(logps[:, 1] - logps[:, 0]).sum(), {}


def test_bf16_runs_and_learns_nearly_the_same(tmp_path):
    given = tiny.save(tiny.causal("llama"), tmp_path / "given")
    losses = {}
    for dtype in ("fp32", "bf16"):
        policy = load.load_policy(given, "cpu", dtype, train=True)
        fit(tmp_path / dtype, model=policy, lr=1e-3, steps=6, dtype=dtype)
        assert {weight.dtype for weight in policy.core.parameters()} == {torch.float32}
        losses[dtype] = [entry["loss"] for entry in log(tmp_path / dtype)]
    assert losses["bf16"] != losses["fp32"] and losses["bf16"] == pytest.approx(losses["fp32"], rel=0.02)
