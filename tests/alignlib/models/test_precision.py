"""--dtype: what `auto` is where, and that what holds in fp32 holds in bf16: step 0 is exact, kills leave no trace."""

import math

import pytest
import torch

from al_train_rm import start
from alignlib.models import load, precision
from helpers import tiny
from helpers.commands import folders, lines, log, prompts, rewarded, run
from helpers.kills import survive, training_job

BF16 = [{"avx512_bf16": True}, {"avx512_bf16": False, "amx_bf16": True}]
FP32 = [{"avx512_f": True, "avx512_bf16": False, "amx_bf16": False}, {"neon": True, "bf16": True}]  # ARM's: not tried


@pytest.fixture
def cpu(monkeypatch):
    """A function that gives torch another CPU."""
    return lambda units: monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: units)


@pytest.mark.parametrize("units", BF16 + FP32)
def test_auto(cpu, monkeypatch, units):
    cpu(units)
    narrow, wide = (tiny.config("llama", hidden_size=size) for size in (precision.WIDE - 8, precision.WIDE))
    here, gpu = torch.device("cpu"), torch.device("cuda", 0)
    assert precision.dtype_for("auto", here, wide) == (torch.bfloat16 if units in BF16 else torch.float32)
    assert precision.dtype_for("auto", here, narrow) == precision.dtype_for("auto", here) == torch.float32
    assert {precision.dtype_for("auto", gpu, config) for config in (narrow, wide, None)} == {torch.bfloat16}
    for name, dtype in precision.DTYPES.items():
        assert precision.dtype_for(name, here, wide) == precision.dtype_for(name, gpu, narrow) == dtype
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert precision.dtype_for("auto", here, wide) == torch.float32


def test_models_are_loaded_so(cpu, tmp_path):
    """Scoring has its weights in bf16, training keeps them in float32 and computes in bf16."""
    policy = tiny.save(tiny.causal("gpt2", n_embd=precision.WIDE), tmp_path / "policy")  # by another name
    reward = tiny.save(tiny.classifier("llama", hidden_size=precision.WIDE), tmp_path / "reward")
    for units, dtype in ((BF16[0], torch.bfloat16), (FP32[0], torch.float32)):
        cpu(units)
        for model in (load.load_policy(policy, "cpu"), load.load_reward(reward, "cpu")):
            assert model.shared and {weight.dtype for weight in model.core.parameters()} == {dtype}
        for model in (load.load_policy(policy, "cpu", train=True), start.new_reward(policy, None, "cpu")):
            assert {weight.dtype for weight in model.core.parameters()} == {torch.float32}
            assert model.autocast == (dtype if dtype == torch.bfloat16 else None)


@pytest.mark.parametrize("ref", ["self", "the model by its name"])
@pytest.mark.slow
def test_dpo_begins_at_log_2_in_bf16(tmp_path, ref):
    """The reference is computed as the policy is, in the same packs, so that rounding is the same too."""
    model = folders().policy
    done = run("al-train-exo", model, "-o", tmp_path / "new", "--loss", "dpo-pref", "--beta-pi", 1, "--dtype", "bf16",
               "--batch-size", 5, "--pack-tokens", 300, "--ref", "self" if ref == "self" else model,
               stdin=lines(*rewarded(12, 2)))
    assert done.returncode == 0, done.stderr
    first, *others = log(tmp_path / "new")
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-7) and others
    assert first["margin"] == first["kl"] == 0 and first["accuracy"] == 0.5


@pytest.mark.parametrize("method", ["rloo", "grpo"])
@pytest.mark.slow
def test_on_policy_training_begins_at_a_ratio_of_1_in_bf16(tmp_path, method):
    """A rollout's first update is of the policy that drew: nothing of it is clipped, by however little."""
    done = run("al-train-ppo", folders().policy, "-o", tmp_path / "new", "--method", method, "--reward", "length",
               "-n", 2, "--batch-size", 6, "-m", 8, "--dtype", "bf16", "--clip-ratio", 1e-12, "--steps", 2,
               "--prompts", 6, "--pack-tokens", 200, "--lr", 0, stdin=lines(*prompts(12)))
    assert done.returncode == 0, done.stderr
    assert [(entry["clip_share"], entry["kl"]) for entry in log(tmp_path / "new")] == [(0, 0), (0, 0)]


@pytest.mark.long
@pytest.mark.slow
def test_a_killed_training_in_bf16(tmp_path):
    survive(training_job(tmp_path, "al-sft", "--dtype", "bf16"), 2, seed=6)
