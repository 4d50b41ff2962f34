"""One step of the optimizer on one device: clipping, decay, schedules, overflows; checkpoints of another engine."""

import math
from types import SimpleNamespace

import click
import pytest
import torch

from alignlib.models.policy import Policy
from alignlib.training.engine import TRAINER, AskingEngine, PlainEngine
from helpers import bomb, tiny
from helpers.training import fit, log, same


def bare(layer):
    """A layer as an engine sees a model."""
    return SimpleNamespace(model=layer, core=layer, device=torch.device("cpu"), autocast=None)


def test_one_step_of_the_optimizer_by_hand():
    """RMSprop and AdamW on one weight with gradient 2, clipped or not; the rate reported is the one used."""

    def stepped(**changes):
        layer = torch.nn.Linear(1, 1, bias=False)
        torch.nn.init.constant_(layer.weight, 3.0)
        engine = PlainEngine(bare(layer), tiny.recipe("x", lr=0.1, **changes), total=10)
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
    engine = PlainEngine(model, tiny.recipe("x", lr=0.1, optimizer="rmsprop", clip=0.0), total=10)
    engine.backward(layer.weight.sum() * 1e36, last=True)
    assert engine.step() == {"grad_norm": None, "lr": 0.1} and layer.weight.item() == 3.0
    assert engine.scaler.get_scale() == 2.0**15
    engine.backward(2 * layer.weight.sum(), last=True)
    assert engine.step() == {"grad_norm": 2.0, "lr": 0.1}
    assert layer.weight.item() == pytest.approx(3 - 0.1 * 2 / math.sqrt(0.01 * 4))


def test_clipping_scales_the_gradient():
    layer = torch.nn.Linear(2, 1, bias=False)
    engine = PlainEngine(bare(layer), tiny.recipe("x", clip=1.0), total=1)
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


def test_a_checkpoint_gives_back_the_optimizer_the_schedule_and_what_was_added(tmp_path):
    """Two steps, saved after the first: the second is the same again, to the bit."""

    def engine(layer):
        return PlainEngine(bare(layer), tiny.recipe("x", lr=0.1, schedule="linear"), total=4)

    def step(engine):
        engine.backward((engine.model.core.weight ** 2).sum(), last=True)
        return engine.step()

    layer = torch.nn.Linear(2, 1, bias=False)
    first = engine(layer)
    step(first)
    first.save(tmp_path, step=1)
    weight = layer.weight.detach().clone()
    wanted = step(first), layer.weight.detach().clone()
    other = torch.nn.Linear(2, 1, bias=False)
    other.weight.data.copy_(weight)
    second = engine(other)
    assert second.load(tmp_path) == {"step": 1}
    assert step(second) == wanted[0] and other.weight.equal(wanted[1])


def test_a_checkpoint_of_deepspeed_is_refused(tmp_path):
    torch.save({"ranks": 2, "stage": 1, "step": 1}, tmp_path / "trainer.pt")
    engine = PlainEngine(bare(torch.nn.Linear(1, 1)), tiny.recipe("x"), total=1)
    with pytest.raises(click.UsageError, match="made under DeepSpeed by 2 processes: give --launch or --zero"):
        engine.load(tmp_path)


def test_only_what_trains_is_stepped():
    layer = torch.nn.Linear(2, 1)
    layer.bias.requires_grad_(False)
    engine = PlainEngine(bare(layer), tiny.recipe("x"), total=1)
    assert [weight is layer.weight for weight in engine.trained] == [True]


def test_a_model_that_is_asked_answers():
    assert AskingEngine(bare(torch.nn.Linear(1, 1))).ask(lambda: 7) == 7


def test_a_checkpoint_s_state_is_data_alone(tmp_path):
    """A pickle bomb is not run; what is cut, or another's, is said to be, with what to do."""
    policy = Policy(tiny.causal("llama"), tiny.tokenizer())
    engine = PlainEngine(policy, tiny.recipe(tmp_path), 3)
    engine.save(tmp_path, step=1)
    file = tmp_path / TRAINER
    whole = file.read_bytes()
    assert engine.load(tmp_path)["step"] == 1
    proof = bomb.plant(file)
    with pytest.raises(click.UsageError, match=f"{TRAINER}: no state of a training that can be read safely"):
        engine.load(tmp_path)
    assert not proof.exists()
    file.write_bytes(whole[:len(whole) // 2])
    with pytest.raises(click.UsageError, match=f"{TRAINER}: no state.*; remove {tmp_path}, and --resume begins anew"):
        engine.load(tmp_path)
    critic = tmp_path / "checkpoint-2" / "critic"
    critic.mkdir(parents=True)
    (critic / TRAINER).write_bytes(b"")
    with pytest.raises(click.UsageError, match=f"critic/{TRAINER}: .*; remove {critic.parent}, and --resume"):
        engine.load(critic)
    for other, words in (([1], "not the state of a training"), ({"step": 1}, "not the state of a training"),
                         ({"step": 1, "ranks": 0, "optimizer": {}}, "not what this run left there")):
        torch.save(other, file)
        with pytest.raises(click.UsageError, match=f"{TRAINER}: {words}"):
            engine.load(tmp_path)
