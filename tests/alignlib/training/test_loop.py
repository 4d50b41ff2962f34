"""The training loop: a step and its split, the same weights by other ways."""

import math

import pytest
import torch

from al_sft import Likelihood
from alignlib.models import load
from alignlib.models.policy import Policy
from alignlib.training import loop
from alignlib.training.objective import Objective
from alignlib.training.run_folder import Run
from helpers import tiny
from helpers.training import examples, fit, log, same, start, weights


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


@pytest.mark.parametrize(("name", "words"), [("value_loss", "value loss"),
                                             ("critic_grad_norm", "critic gradient's norm")])
def test_a_critics_numbers_stop_the_run_too(name, words):
    """Else what it says would be nan only at the next step, after a checkpoint with it; None is fp16's overflow."""
    entry = {"step": 3, "loss": 0.5, "grad_norm": None, "reward": math.inf}
    loop.must_be_finite(entry | {name: 0.1})
    with pytest.raises(FloatingPointError, match=f"the {words} is nan at step 3"):
        loop.must_be_finite(entry | {name: math.nan})


@pytest.mark.parametrize(("every", "steps"), [(None, 0), (0.07, 7), (0.071, 8), (0.001, 1), (1, 1), (2.5, 3), (7, 7)])
def test_checkpoints_are_steps_apart_or_a_share_of_all(every, steps):
    assert loop.steps_between_checkpoints(tiny.recipe("x", save_every=every), 100) == steps


# -- the same weights by other ways -----------------------------------------------------------------------------


@pytest.mark.parametrize("step", [0, 2])
def test_a_course_that_is_halted_keeps_the_steps_before(step, tmp_path):
    """A checkpoint that nobody asked for, and the run goes on from there; before the first step there is none."""
    class Halting(loop.Supervised):
        def learn(self, number, engine):
            if number == step:
                raise loop.Halted("no reward")
            return super().learn(number, engine)

    def begin():
        recipe, policy = tiny.recipe(tmp_path / "run", steps=4), load.Policy(tiny.causal("llama"), tiny.tokenizer())
        run = Run(recipe, {"command": "test"})
        run.reads(1)
        loop.follow(Halting(policy, examples(8), Likelihood("token"), recipe), policy, recipe, run)

    words = "^no reward; stopped after step 2, --resume goes on$" if step else "^no reward$"
    with pytest.raises(loop.Halted, match=words):
        begin()
    assert [path.name for path in (tmp_path / "run").glob("checkpoint-*")] == [f"checkpoint-{step}"] * bool(step)
    if step:
        fit(tmp_path / "run", resume=True, steps=4), fit(tmp_path / "whole", steps=4)
        same(weights(tmp_path / "run"), weights(tmp_path / "whole"))


@pytest.mark.parametrize("saves", [{}, {"save_every": 1}])
def test_a_course_that_is_halted_in_an_evaluation_keeps_its_step(saves, tmp_path):
    """Twice after step 2, and at the end: each time the run goes on by evaluating; log, best and weights are the same.
    """
    held = examples(3)
    how = {"steps": 4, "lr": 1e-2, "eval_every": 2, **saves}
    fit(tmp_path / "whole", held_out=held, best="loss", **how)

    class Halting(loop.Supervised):
        def evaluate(self, engine, bar):
            if ill:
                raise loop.Halted("no reward")
            ill.append("the next")
            return super().evaluate(engine, bar)

    def go_on(resume):
        recipe = tiny.recipe(tmp_path / "run", resume=resume, **how)
        run = Run(recipe, {"command": "test"})
        run.reads(1)
        policy = load.Policy(start(run, "llama"), tiny.tokenizer())
        loop.follow(Halting(policy, examples(8), Likelihood("token"), recipe, held), policy, recipe, run, "loss")

    ill = ["at once"]
    for resume, done in ((False, 2), (True, 2), (True, 4)):
        with pytest.raises(loop.Halted, match=f"^no reward; stopped after step {done}, --resume goes on$"):
            go_on(resume)
        assert [entry["step"] for entry in log(tmp_path / "run")] == list(range(1, done))
        if resume:
            ill.clear()
    go_on(resume=True)
    found, wanted = ([{**entry, "tokens_per_second": 0} for entry in log(tmp_path / name)] for name in ("run", "whole"))
    assert found == wanted
    same(weights(tmp_path / "run"), weights(tmp_path / "whole"))


def test_gradient_checkpointing_changes_no_weight(tmp_path):
    for family in ("llama", "gpt2"):
        plain, _ = fit(tmp_path / f"{family}-plain", family=family, data=examples(4, 5, 3, rewards=[1.0, 0.0]),
                       objective=Pairs())
        less, _ = fit(tmp_path / f"{family}-less", family=family, data=examples(4, 5, 3, rewards=[1.0, 0.0]),
                      objective=Pairs(), gradient_checkpointing=True)
        assert less.core.is_gradient_checkpointing
        same(less.core.state_dict(), plain.core.state_dict(), 1e-6)


@pytest.mark.long  # a compiler runs
@pytest.mark.parametrize("adapters", [None, 4])
def test_compiled_layers_change_no_weight(tmp_path, adapters):
    data = examples(6, 5, 3, rewards=[1.0, 0.0])
    plain, _ = fit(tmp_path / "plain", family="llama", data=data, objective=Pairs(), lora=adapters)
    quick, _ = fit(tmp_path / "quick", family="llama", data=data, objective=Pairs(), lora=adapters, compile=True)
    assert [layer._compiled_call_impl is not None for layer in quick.core.model.layers] == [True, True]
    same(quick.core.state_dict(), plain.core.state_dict(), 1e-4)  # steps are of 1e-2
    same(weights(tmp_path / "quick"), weights(tmp_path / "plain"), 1e-4)
    losses = [[entry["loss"] for entry in log(tmp_path / name)] for name in ("quick", "plain")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


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
