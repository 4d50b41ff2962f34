"""Linear layers that do not train are kept in the 16 bits that they are multiplied in, where nothing is lost by it."""

import json
from types import SimpleNamespace

import peft
import pytest
import torch

from al_train_ppo import start as ppo
from al_train_rm import start
from alignlib.models import load
from alignlib.models.policy import Policy, RewardModel
from alignlib.models.precision import keep_narrow
from alignlib.models.token_rewards import VocabularyReward
from alignlib.training import memory_plan
from alignlib.training.adapters import add_adapters
from alignlib.training.memory_states import DRAWN, cache_bytes
from alignlib.training.recipe import linear_bits
from alignlib.training.session import Session
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


def under_adapters(path, recipe=RECIPE, bits=None, **settings):
    bits = bits or linear_bits(recipe, frozen=True)
    policy = load.load_policy(path, "cpu", recipe.dtype, train=True, bits=bits, **settings)
    add_adapters(policy, recipe)
    fill(policy)
    return policy


def fill(policy):
    """Adapters that do something, the same over a base in any bits: peft draws them in the base's."""
    for number, (name, weight) in enumerate(policy.model.named_parameters()):
        if ".lora_" in name:
            torch.nn.init.normal_(weight, std=0.1, generator=torch.Generator().manual_seed(number))


def frozen(policy):
    """The types of the linear layers under the adapters, of the embeddings and of the adapters themselves."""
    def kinds(part):
        return {weight.dtype for name, weight in policy.core.named_parameters() if part in name}

    return kinds("base_layer"), kinds("embed"), kinds("lora_")


def test_what_comes_of_it_is_the_same_bit_for_bit(saved):
    policy, wide = under_adapters(saved), under_adapters(saved, bits=32)
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
def test_in_every_family(family):
    """A pass and its gradients; an encoder is a reward model."""
    encodes = family not in tiny.ARCHITECTURES

    def passed(narrow):
        core = tiny.classifier(family) if encodes else tiny.causal(family)
        for weight in core.parameters():
            weight.data = weight.data.bfloat16().float()
        model = (RewardModel if encodes else Policy)(core, tiny.tokenizer(), autocast=torch.bfloat16, train=True)
        if narrow:
            keep_narrow(core, torch.bfloat16)
        add_adapters(model, RECIPE)
        fill(model)
        batch = model.pack([tiny.example(9, 4, 7)])
        out = model.scores(batch) if encodes else model.logps(batch)
        return out, gradients(model.model, out.sum())

    (out, found), (wanted_out, wanted) = passed(True), passed(False)
    assert torch.equal(out, wanted_out) and found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_what_would_lose_by_it_stays_as_it_is(saved):
    assert frozen(under_adapters(folders().policy))[0] == {torch.float32}  # random numbers in float32
    assert frozen(under_adapters(saved, tiny.recipe("x", lora=2, dtype="bf16", zero=0)))[0] == {torch.float32}
    assert frozen(under_adapters(saved, tiny.recipe("x", lora=2)))[0] == {torch.float32}


def test_an_adapter_to_go_on_in_keeps_its_numbers(saved, tmp_path):
    """Over a narrow base; a layer that it trains whole stays wide, and one to be merged needs a wide base."""
    policy = load.load_policy(saved, "cpu", "bf16", train=True)
    config = peft.LoraConfig(r=2, target_modules=["q_proj", "up_proj"], modules_to_save=["down_proj"])
    policy.model = peft.get_peft_model(policy.core, config)
    fill(policy)
    for name, weight in policy.model.named_parameters():
        if "modules_to_save" in name:
            weight.data.normal_()
    policy.model.save_pretrained(tmp_path / "adapter")
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(
        json.loads((tmp_path / "adapter" / "adapter_config.json").read_text()) | {"base_model_name_or_path": saved}))
    found = load.load_policy(str(tmp_path / "adapter"), "cpu", "bf16", train=True, go_on=True, bits=16)
    kinds = {name: weight for name, weight in found.core.named_parameters()}
    assert {w.dtype for name, w in kinds.items() if "q_proj.base_layer" in name or "o_proj" in name} == {torch.bfloat16}
    assert {w.dtype for name, w in kinds.items() if "down_proj" in name or ".lora_" in name} == {torch.float32}
    trained = dict(policy.core.named_parameters())
    kept = [name for name in kinds if "modules_to_save" in name or ".lora_" in name]
    assert kept and all(torch.equal(kinds[name], trained[name]) for name in kept)
    merged = load.load_policy(str(tmp_path / "adapter"), "cpu", "bf16", train=True, bits=16)
    assert {weight.dtype for weight in merged.core.parameters()} == {torch.float32}
    batch = merged.pack([tiny.example(9, 4)])
    wide = load.load_policy(str(tmp_path / "adapter"), "cpu", "bf16", train=True)
    assert torch.equal(merged.logps(batch), wide.logps(batch))


@pytest.mark.parametrize("kind", [None, VocabularyReward, "critic"])
def test_what_a_reward_model_begins_from(kind, saved, tmp_path):
    """Narrow in its transformer, wide in its head."""
    recipe = tiny.recipe("x", lora=2, dtype="bf16")
    if kind == "critic":
        session = SimpleNamespace(recipe=recipe, run=SimpleNamespace(checkpoint=None))
        model = ppo.load_critic(session, saved)
    elif kind:
        model = start.new_token_reward(kind, saved, recipe, bits=linear_bits(recipe, frozen=True))
    else:
        model = start.new_reward(saved, None, "cpu", "bf16", bits=16)
    types = {name: weight.dtype for name, weight in model.core.named_parameters()}
    head = "lm_head.weight" if kind is VocabularyReward else "score.weight"
    assert types[head] == types["model.embed_tokens.weight"] == torch.float32
    assert types["model.layers.0.self_attn.q_proj.weight"] == torch.bfloat16


def test_a_reference_is_kept_so_and_asked_as_the_policy_is(saved):
    policy = load.load_policy(saved, "cpu", "bf16", train=True)
    session = Session.__new__(Session)
    session.recipe = tiny.recipe("x", dtype="bf16")
    reference = session.load_reference(saved)
    batch = policy.pack([tiny.example(9, 4, 7)])
    with torch.no_grad():
        assert torch.equal(policy.logps(batch), reference.logps(batch))
    planned = memory_plan.plan(saved, session.recipe, 1, reference=True)["asked"]["models"]["reference"]
    assert planned * memory_plan.GB == pytest.approx(sum(weight.nbytes for weight in reference.core.parameters()))
    policy = folders().policy  # in float32
    planned = memory_plan.plan(policy, session.recipe, 1, reference=True)["asked"]["models"]["reference"]
    kept = session.load_reference(policy).core
    assert planned * memory_plan.GB == pytest.approx(sum(weight.nbytes for weight in kept.parameters()))
    assert {weight.dtype for weight in kept.parameters()} == {torch.float32}


@pytest.mark.parametrize("checkpointing", [False, True])
def test_it_is_planned(saved, checkpointing):
    """The weights to the byte; what a pass makes, in which nothing of the base is cast, as the allocator says."""
    policy = under_adapters(saved)
    how = tiny.recipe("x", lora=2, dtype="bf16", gradient_checkpointing=checkpointing)
    weights, planned = memory_plan.activations(load.load_config(saved), how, 200, False)
    assert weights.in_16_bits == sum(weight.numel() for name, weight in policy.core.named_parameters()
                                     if "base_layer" in name)
    assert weights.kept(4) == sum(weight.nbytes for weight in policy.model.parameters())
    assert weights.read() == 4 * weights.total
    assert weights.linear == weights.in_16_bits
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
