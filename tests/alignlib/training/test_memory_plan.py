"""Memory on paper against memory measured: states, activations, DeepSpeed's ranks, and what --plan prints."""

import copy
import json
import os
import pty
import subprocess
import sys
from functools import partial

import pytest
import torch
import transformers
from transformers import LlamaConfig, LlamaForCausalLM

from alignlib.models import adapters, load
from alignlib.models.policy import Policy
from alignlib.training import memory_plan
from alignlib.training.adapters import plan_adapters
from alignlib.training.engine import PlainEngine
from alignlib.training.memory_states import Along, Setting, Weights, states
from helpers import adapted, forks, memory_ranks, tiny
from helpers.memory_ranks import allocated, living
from helpers.process import call, command, environment

pytestmark = pytest.mark.slow

LLAMA_7B = LlamaConfig(vocab_size=32000, hidden_size=4096, intermediate_size=11008, num_hidden_layers=32,
                       num_attention_heads=32, max_position_embeddings=4096, architectures=["LlamaForCausalLM"])


def recipe(**changes):
    return tiny.recipe("x", **changes)


# -- worked by hand ---------------------------------------------------------------------------------------------


def test_a_base_in_4_bits_takes_half_a_byte_a_weight_and_its_scales():
    weights = Weights(total=1000, trained=10, largest=100, in_4_bits=800)
    found = states(weights, Setting(1, None, "none", narrow=False))
    assert found["weights"] == found["loading"] == pytest.approx(4 * 200 + 0.5 * 800 + 800 / 64 + 4 * 800 / 64 / 256)
    assert found["gradients"] == 40
    counted, _ = memory_plan.activations(tiny.config("llama"), recipe(lora=2, load_4bit=True), 40, False)
    layers = tiny.causal("llama").model.layers
    assert counted.in_4_bits == sum(weight.numel() for weight in layers.parameters() if weight.ndim == 2)


@pytest.mark.long
def test_an_adapter_is_planned_as_it_trains(tmp_path):
    """As --lora of its rank and layers would be, the base frozen."""
    path = adapted.adapter(tmp_path, adapted.base(tmp_path), r=3)
    plans = []
    for args in ((path,), (tmp_path / "base", "--lora", 3)):
        done = call("al-sft", *args, "--plan", "--pack-tokens", 64)
        assert done.returncode == 0, done.stderr
        plans.append({name: value for name, value in json.loads(done.stdout).items() if name not in ("model", "lora")})
    assert plans[0] == plans[1] and plans[0]["trained"] < plans[0]["total"] / 5


@pytest.mark.parametrize("load_4bit", [False, True])
def test_a_critic_beside_an_adapter_is_planned_whole(load_4bit, tmp_path):
    """AdamW in float32 takes 16 bytes of each of its weights, none of them in 4 bits, whatever the policy trains."""
    path = adapted.adapter(tmp_path, adapted.base(tmp_path))
    how = recipe(load_4bit=load_4bit, save_adapter=True, pack_tokens=64)
    count = sum(weight.numel() for weight in tiny.causal("llama").parameters())
    for name in (path, str(tmp_path / "base")):
        planned = memory_plan.plan(path, how, 1, along=[Along(name, trained=True)],
                                   adapt=partial(plan_adapters, recipe=how, adapter=adapters.find(path)))
        models = planned["asked"]["models"]
        assert models[f"critic, begun from {name}"] == pytest.approx(16 * count / 1e9)
        assert models["policy"] < 9 * count / 1e9


def test_checkpointed_activations_of_a_7b_by_hand():
    """A layer keeps its input: between two packs lie 32 of them, and what one layer makes anew, 16-bit numbers."""
    config = recipe(dtype="bf16", gradient_checkpointing=True)
    (weights, short), (_, long) = (memory_plan.activations(LLAMA_7B, config, tokens, True) for tokens in (8192, 16384))
    assert weights == Weights(6_738_415_616, 6_738_415_616, 32000 * 4096, linear=32 * (4 * 4096**2 + 3 * 4096 * 11008))
    kept = 32 * 4096 * 2 * 8192
    # One layer: about 16 of width 4096 and 5 of 11008, in 16 bits; backward, the gradients of a few of them.
    layer = (16 * 4096 + 5 * 11008) * 2 * 8192
    assert kept + 0.8 * layer < long - short < kept + 1.2 * layer


# -- DeepSpeed's own estimate -----------------------------------------------------------------------------------


def test_deepspeeds_own_estimates_are_close():
    """They count neither buffers nor a step's temporaries, and take the host's memory half as much again."""
    from deepspeed.runtime.zero.stage3 import estimate_zero3_model_states_mem_needs as three
    from deepspeed.runtime.zero.stage_1_and_2 import estimate_zero2_model_states_mem_needs as two

    weights = Weights(7_000_000_000, 7_000_000_000, 131_000_000)

    def ours(devices, zero, offload):
        found = states(weights, Setting(devices, zero, offload, narrow=True))
        return found["host"] * devices, found["weights"] + found["optimizer"] + max(found["gradients"], found["step"])

    for devices in (1, 4, 8):
        _, device = two(weights.total, devices, cpu_offload=False)
        assert ours(devices, 2, "none")[1] == pytest.approx(device, rel=0.12)
        host, device = two(weights.total, devices, cpu_offload=True)
        assert ours(devices, 2, "optimizer")[1] == pytest.approx(device)
        if devices == 1:  # with more they take loading for all there is
            assert ours(devices, 2, "optimizer")[0] == pytest.approx(host, rel=0.2)
        _, device, layer = three(weights.total, weights.largest, devices, cpu_offload=False)
        assert ours(devices, 3, "none")[1] == pytest.approx(device - layer, rel=0.25)


# -- measured on one device -------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["adamw", "rmsprop"])
@pytest.mark.parametrize("lora", [None, 4])
def test_weights_gradients_and_optimizer_are_what_a_run_keeps(optimizer, lora):
    """To the byte, but for the optimizer's count of steps, a number a tensor."""
    from alignlib.training import adapters

    config = recipe(optimizer=optimizer, lora=lora)
    before = living()
    policy = Policy(tiny.causal("llama"), tiny.tokenizer())
    buffers = sum(buffer.nbytes for buffer in policy.core.buffers())
    adapters.add_adapters(policy, config)
    engine = PlainEngine(policy, config, 4)
    batch = policy.pack([tiny.example(2, 6)])
    for _ in range(2):
        loss = -policy.token_logps(batch).sum()
        engine.backward(loss, True)
        engine.step()
    del loss
    engine.backward(-policy.token_logps(batch).sum(), True)
    inputs = sum(tensor.nbytes for tensor in vars(batch).values() if isinstance(tensor, torch.Tensor))
    found = living() - before - inputs
    items = states(Weights.count(policy.model, policy.core.base_model), Setting.from_recipe(config, 1))
    steps = 4 * len(engine.trained)
    assert found - buffers - steps == items["weights"] + items["gradients"] + items["optimizer"]


@pytest.mark.parametrize("family", tiny.FAMILIES)
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("tokens", [100, 240])
def test_a_pass_makes_what_the_allocator_says(family, checkpointing, tokens):
    """The real pass, forward and backward, by the profiler's record of every allocation: within 3 %."""
    config = recipe(gradient_checkpointing=checkpointing)
    _, planned = memory_plan.activations(tiny.config(family), config, tokens, False)
    policy = real(family, checkpointing)
    batch = policy.pack([tiny.example(1, tokens - 1)])
    assert allocated(lambda: policy.token_logps(batch).sum().backward()) == pytest.approx(planned, rel=0.03)


@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe", "gpt_oss"])
def test_mixtures_of_experts_are_planned_too(family):
    """Torch has the shape of their products on paper in bfloat16 alone; within 5 % of a real pass in float32."""
    tokens, policy = 100, real(family, False)
    planned = {}
    for dtype in ("fp32", "bf16"):
        counted, planned[dtype] = memory_plan.activations(tiny.config(family), recipe(dtype=dtype), tokens, False)
        assert counted.total == sum(weight.numel() for weight in policy.core.parameters())
    assert 0.5 < planned["bf16"] / planned["fp32"] < 1.1
    if family != "gpt_oss":  # whose sinks make [L, L] where there is no GPU
        batch = policy.pack([tiny.example(1, tokens - 1)])
        made = allocated(lambda: policy.token_logps(batch).sum().backward())
        assert made == pytest.approx(planned["fp32"], rel=0.05)


def test_packs_with_masks_make_little_more():
    """Off the GPU a pack of K completions brings [L, L] masks along: 256 tokens in rows of 64, within 15 %."""
    policy = real("llama", False)
    batch = policy.pack([tiny.example(31, 17, 16, seed=i) for i in range(4)])
    assert batch.mask is not None and batch.tokens == 256
    _, planned = memory_plan.activations(tiny.config("llama"), recipe(), 256, False)
    assert allocated(lambda: policy.logps(batch).sum().backward()) == pytest.approx(planned, rel=0.15)


def test_bf16_on_one_device_copies_the_weights():
    """Autocast keeps 16-bit copies of the matrices: planned too, within 3 %."""
    policy = real("llama", True, torch.bfloat16)
    batch = policy.pack([tiny.example(1, 99)])
    asked = recipe(dtype="bf16", gradient_checkpointing=True)
    _, planned = memory_plan.activations(tiny.config("llama"), asked, 100, False)
    assert allocated(lambda: policy.token_logps(batch).sum().backward()) == pytest.approx(planned, rel=0.03)


def real(family, checkpointing, autocast=None):
    """A policy to train, whose gradients of weights go as they come, as the plan counts them elsewhere."""
    model = tiny.causal(family)
    load.remove_dropout(model)
    policy = Policy(model, tiny.tokenizer(), autocast=autocast, train=True)
    if checkpointing:
        policy.checkpoint_activations()
    policy.core.train()
    for weight in policy.core.parameters():
        weight.register_post_accumulate_grad_hook(memory_plan.forget)
    return policy


def test_activations_grow_with_the_pack_and_not_with_its_square():
    made = [memory_plan.activations(LLAMA_7B, recipe(dtype="bf16"), tokens, True)[1] for tokens in (4096, 8192, 16384)]
    assert made[2] - made[1] == pytest.approx(2 * (made[1] - made[0]), rel=0.01)


def test_long_logits_come_in_chunks():
    """32 thousand tokens of vocabulary over 16384 places would be 2 GB in float32 alone."""
    thin = LlamaConfig(vocab_size=32000, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
                       num_attention_heads=2, max_position_embeddings=4096)
    _, made = memory_plan.activations(thin, recipe(), 16384, False)
    assert made < 0.3e9


# -- measured on two ranks --------------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize("zero, offload, dtype", [
    (2, "none", "fp32"), (2, "optimizer", "bf16"), (3, "none", "bf16"), (3, "all", "bf16")])
def test_what_deepspeed_keeps_on_each_of_two_ranks(zero, offload, dtype, tmp_path):
    """On CPUs, so device and host together: after a pass, and at most in the step, within 3 %."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"]
    paths = {**environment(), "PYTHONPATH": forks.python_path("lib", "tools", "tests")}
    done = subprocess.run([*launcher, memory_ranks.__file__, str(zero), offload, dtype, str(tmp_path)],
                          capture_output=True, text=True, env=paths)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    whole = LlamaForCausalLM(memory_ranks.CONFIG)
    weights = Weights.count(whole, whole.base_model)
    items = states(weights, Setting(2, zero, offload, narrow=dtype == "bf16"))
    temporary = 4 * weights.total / 2  # a float32 number for each weight that a rank steps
    kept = items["weights"] + items["optimizer"] + items["gradients"]
    in_step = items["step"] + temporary  # on a CPU the optimizer takes two, as it does when offloaded
    if offload != "none":
        in_step = 2 * temporary
        kept += items["host"] - in_step
    if zero == 3:  # all weights are few enough to be kept whole from pass to pass, but not in the step
        kept += items["buffers"]
        in_step -= 2 * weights.total
    elif offload != "none":  # one more of the largest weight, on the host
        kept += 2 * 2 * weights.largest
    assert found["kept"] == pytest.approx(kept, rel=0.03)
    assert found["step"] == pytest.approx(kept + in_step, rel=0.03)


# -- --plan -----------------------------------------------------------------------------------------------------


@pytest.fixture
def bare(tmp_path):
    """The configuration of a 7B cut to four layers, without weights or tokenizer."""
    config = copy.deepcopy(LLAMA_7B)
    config.num_hidden_layers, config.dtype = 4, "bfloat16"
    config.save_pretrained(tmp_path / "bare")
    return tmp_path / "bare"


@pytest.mark.long
def test_plan_needs_a_configuration_only(bare):
    done = call("al-train-exo", bare, "--plan", "--launch", 8, "--zero", 2, "--gradient-checkpointing", stdin="")
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    count = 2 * 32000 * 4096 + 4 * (4 * 4096**2 + 3 * 4096 * 11008 + 2 * 4096) + 4096
    assert (found["total"], found["trained"], found["dtype"], found["pack_tokens"]) == (count, count, "bf16", 8192)
    asked = found["asked"]
    assert (asked["devices"], asked["zero"], asked["offload"]) == (8, 2, "none")
    assert asked["weights"] == pytest.approx(2 * count / 1e9) and asked["loading"] == pytest.approx(4 * count / 1e9)
    assert asked["optimizer"] == pytest.approx(12 * count / 8 / 1e9)
    parts = sum(asked[name] for name in ("weights", "optimizer", "gradients", "buffers", "activations"))
    assert asked["device"] == pytest.approx(parts) and asked["card"] == 24
    settings = {(row["zero"], row["offload"], row["devices"]): row for row in found["alternatives"]}
    assert asked in found["alternatives"] and len(settings) == len(found["alternatives"]) == 1 + 7 * 7
    assert settings[3, "none", 64]["device"] < settings[3, "none", 8]["device"] < asked["device"]
    assert settings[2, "optimizer", 1]["host"] == pytest.approx(28 * count / 1e9)
    assert settings[None, "none", 1]["device"] > 16 * count / 1e9 > settings[3, "all", 1]["device"]
    assert all(next(card for card in (24, 48, 80, 141) if row["device"] <= 0.9 * card) == row["card"]
               for row in found["alternatives"])
    assert [row["pack_tokens"] for row in found["activations"]] == [4096, 8192, 16384]
    assert found["activations"][1]["checkpointed"] == pytest.approx(asked["activations"])
    assert all(row["checkpointed"] < row["kept"] / 2 for row in found["activations"])


@pytest.mark.long
def test_plan_knows_of_the_reference_beside_and_of_the_layers_that_train(bare):
    def found(*given):
        done = call("al-train-alt", bare, "--plan", "--gradient-checkpointing", *given, stdin="")
        assert (done.returncode, done.stderr) == (0, "")
        return json.loads(done.stdout)

    alone, both = found("--kl-coef", 0), found()
    count = alone["total"]
    more = {row["zero"]: row["weights"] for row in both["alternatives"] if row["devices"] == 8}
    less = {row["zero"]: row["weights"] for row in alone["alternatives"] if row["devices"] == 8}
    layers, kept = 4 * (4 * 4096**2 + 3 * 4096 * 11008), both["asked"]["weights"] - alone["asked"]["weights"]
    assert kept == pytest.approx((4 * (count - layers) + 2 * layers) / 1e9)  # the rest is computed in float32
    away = [row["host"] for plan in (alone, both) for row in plan["alternatives"]
            if (row["offload"], row["devices"]) == ("all", 8)]
    assert more[2] - less[2] == pytest.approx(2 * count / 1e9) and more[3] == less[3] == 0
    assert away[1] - away[0] == pytest.approx(2 * count / 8 / 1e9)
    quarter = found("--train-layers", 0.25)
    layer = 4 * 4096**2 + 3 * 4096 * 11008 + 2 * 4096
    assert quarter["trained"] == layer + 4096 + 32000 * 4096  # the top one, the last norm and the head
    assert quarter["activations"][1]["kept"] < 0.5 * both["activations"][1]["kept"]


def test_plan_on_a_terminal_is_tables(tmp_path):
    small = LlamaConfig(vocab_size=300, hidden_size=64, intermediate_size=64, num_hidden_layers=1,
                        num_attention_heads=2, architectures=["LlamaForCausalLM"])
    small.save_pretrained(tmp_path)
    ours, theirs = pty.openpty()
    done = subprocess.run(command("al-sft", tmp_path, "--plan", "--zero", 3), stdout=theirs, stderr=subprocess.PIPE,
                          env=environment())
    os.close(theirs)
    text = b""
    while b"checkpointing" not in text or not text.endswith(b"\n"):
        text += os.read(ours, 65536)
    assert (done.returncode, done.stderr) == (0, b"")
    lines = text.decode().splitlines()
    assert lines[0] == f"{tmp_path}: 67,264 weights, 67,264 of them trained, bf16, packs of 8,192 tokens"
    assert lines[2] == "--zero 3, devices: 1; fits a card of 24 GB"
    heads = [line.split()[0] for line in lines if line]
    assert heads.count("--zero") == 2 * 7 + 1 and heads.count("without") == 2


@pytest.mark.parametrize("options, says", [
    (["--zero", "2", "--offload", "all"], "--offload all needs --zero 3"),
    (["--launch", "0"], "--launch"),
])
def test_settings_that_cannot_be_are_refused(bare, options, says):
    done = call("al-sft", bare, "--plan", *options)
    assert done.returncode == 2 and says in done.stderr and done.stderr.count("\n") == 1 and not done.stdout


def test_without_plan_an_output_is_required(bare):
    done = call("al-sft", bare)
    assert (done.returncode, done.stderr) == (2, "al-sft: Missing option '-o' / '--output'. (see al-sft --help)\n")


def test_a_folder_that_is_no_model_is_named(tmp_path):
    done = call("al-sft", tmp_path, "--plan")
    assert done.returncode == 2 and "config.json" in done.stderr


def test_a_model_without_sdpa_is_planned_with_its_own_attention():
    """It keeps [L, L] weights of attention: twice the pack in one row is more than twice the memory."""
    made = [memory_plan.activations(tiny.config("bloom"), recipe(), tokens, False)[1] for tokens in (512, 1024)]
    assert made[1] > 2.5 * made[0]


def test_a_cap_keeps_no_more():
    """On paper as by flex_attention."""
    made = [memory_plan.activations(tiny.config("gemma2"), recipe(), tokens, False)[1] for tokens in (512, 1024)]
    assert made[1] < 2.2 * made[0]


def test_of_a_multimodal_model_the_text_part_is_planned():
    text = tiny.config("gemma3")
    both = transformers.Gemma3Config(text_config=text, architectures=["Gemma3ForConditionalGeneration"])
    assert memory_plan.activations(both, recipe(), 64, False) == memory_plan.activations(text, recipe(), 64, False)


def test_a_classifier_is_planned_as_one():
    config = tiny.config("llama", num_labels=1)
    config.architectures = ["LlamaForSequenceClassification"]
    weights, made = memory_plan.activations(config, recipe(), 128, False)
    assert weights.total == sum(weight.numel() for weight in tiny.classifier("llama").parameters())
    assert 0 < made < memory_plan.activations(tiny.config("llama"), recipe(), 128, False)[1]


def test_the_users_deepspeed_configuration_is_planned(tmp_path):
    file = tmp_path / "ds.json"
    file.write_text(json.dumps({"zero_optimization": {"stage": 3, "reduce_bucket_size": 1000,
                                                      "offload_optimizer": {"device": "cpu"}}}))
    setting = Setting.from_recipe(recipe(dtype="bf16", deepspeed=str(file)), 4)
    assert setting == Setting(4, 3, "optimizer", True, 8, 1000)
    assert Setting.from_recipe(recipe(dtype="bf16"), 2) == Setting(2, 2, "none", True)
    assert Setting.from_recipe(recipe(dtype="bf16", optimizer="rmsprop"), 1) == Setting(1, None, "none", False, 4)
