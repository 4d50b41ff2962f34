"""A frozen base is kept in the 16 bits that it is multiplied in, where nothing is lost by it."""

import pytest
import torch

from alignlib.models import load
from alignlib.models.policy import Policy, RewardModel
from alignlib.training import adapters, memory_plan
from alignlib.training.adapters import add_adapters
from alignlib.training.memory_states import DRAWN, cache_bytes
from helpers import tiny
from helpers.commands import folders
from helpers.memory_ranks import allocated
from helpers.plain import gradients

RECIPE = tiny.recipe("x", lora=2, dtype="bf16")


@pytest.fixture(scope="module")
def saved():
    """A policy whose weights are kept in bf16, as chat models' are."""
    folder = folders().new("bf16")
    load.save(load.load_policy(folders().policy, "cpu", "fp32"), folder, dtype=torch.bfloat16)
    return str(folder)


def under_adapters(path, recipe=RECIPE):
    policy = load.load_policy(path, "cpu", "bf16", train=True)
    add_adapters(policy, recipe)
    for name, weight in policy.model.named_parameters():
        if "lora_B" in name:  # an adapter that does something
            torch.nn.init.normal_(weight, std=0.1, generator=torch.Generator().manual_seed(weight.numel()))
    return policy


def frozen(policy):
    """The types of the linear layers under the adapters, of the embeddings and of the adapters themselves."""
    def kinds(part):
        return {weight.dtype for name, weight in policy.core.named_parameters() if part in name}

    return kinds("base_layer"), kinds("embed"), kinds("lora_")


def test_what_comes_of_it_is_the_same_bit_for_bit(saved, monkeypatch):
    policy = under_adapters(saved)
    monkeypatch.setattr(adapters, "keep_narrow", lambda *given: None)
    wide = under_adapters(saved)
    assert frozen(policy) == ({torch.bfloat16}, {torch.float32}, {torch.float32})
    assert frozen(wide) == ({torch.float32}, {torch.float32}, {torch.float32})
    found, wanted = ((model.logps(model.pack([tiny.example(9, 4, 7)])), model) for model in (policy, wide))
    assert torch.equal(found[0], wanted[0])
    a, b = (gradients(model.model, logps.sum()) for logps, model in (found, wanted))
    assert a.keys() == b.keys() and a and all(torch.equal(a[name], b[name]) for name in a)
    a, b = map(load.merged_weights, (policy, wide))
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
    assert {weight.dtype for weight in a.values()} == {torch.float32}


@pytest.mark.parametrize("family", [*tiny.ARCHITECTURES, "bert", "deberta-v2"])
def test_in_every_family(family, monkeypatch):
    """A pass and its gradients; an encoder is a reward model."""
    encodes = family not in tiny.ARCHITECTURES

    def passed():
        core = tiny.classifier(family) if encodes else tiny.causal(family)
        for weight in core.parameters():
            weight.data = weight.data.bfloat16().float()
        model = (RewardModel if encodes else Policy)(core, tiny.tokenizer(), autocast=torch.bfloat16, train=True)
        add_adapters(model, RECIPE)
        batch = model.pack([tiny.example(9, 4, 7)])
        out = model.scores(batch) if encodes else model.logps(batch)
        return out, gradients(model.model, out.sum())

    out, found = passed()
    monkeypatch.setattr(adapters, "keep_narrow", lambda *given: None)
    wanted_out, wanted = passed()
    assert torch.equal(out, wanted_out) and found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_what_would_lose_by_it_stays_as_it_is(saved):
    assert frozen(under_adapters(folders().policy))[0] == {torch.float32}  # random numbers in float32
    assert frozen(under_adapters(saved, tiny.recipe("x", lora=2, dtype="bf16", zero=0)))[0] == {torch.float32}
    policy = load.load_policy(saved, "cpu", "fp32", train=True)
    add_adapters(policy, tiny.recipe("x", lora=2))
    assert frozen(policy)[0] == {torch.float32}


@pytest.mark.parametrize("checkpointing", [False, True])
def test_it_is_planned(saved, checkpointing):
    """The weights to the byte; what a pass makes, in which nothing of the base is cast, as the allocator says."""
    policy = under_adapters(saved)
    how = tiny.recipe("x", lora=2, dtype="bf16", gradient_checkpointing=checkpointing)
    weights, planned = memory_plan.activations(load.load_config(saved), how, 200, False)
    assert weights.in_16_bits == sum(weight.numel() for name, weight in policy.core.named_parameters()
                                     if "base_layer" in name)
    assert weights.kept(4) == sum(weight.nbytes for weight in policy.model.parameters())
    assert weights.loaded() == 4 * weights.total
    if checkpointing:
        policy.checkpoint_activations()
    policy.model.train()
    batch = policy.pack([tiny.example(1, 199)])
    assert allocated(lambda: policy.token_logps(batch).sum().backward()) == pytest.approx(planned, rel=0.05)
    wide, more = memory_plan.activations(load.load_config(folders().policy), how, 200, False)
    assert wide.in_16_bits == 0 and (more > planned or checkpointing)


def test_what_is_narrow_already_is_not_cast_to_draw(saved):
    weights, _ = memory_plan.activations(load.load_config(saved), RECIPE, 64, False)
    caches = memory_plan.plan(saved, RECIPE, 1, samples=True)["asked"]["caches"] * memory_plan.GB
    kept = cache_bytes(load.load_config(saved), DRAWN * RECIPE.pack_tokens, 2)
    assert caches - kept == pytest.approx(2 * (weights.total - weights.in_16_bits)) and weights.in_16_bits
