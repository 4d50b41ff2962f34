"""--lora on mixtures of experts, and what a saved folder holds of weights that share their memory."""

import copy

import click
import pytest
import torch
from transformers import AutoModelForCausalLM

from alignlib.models import load
from alignlib.models.policy import Policy
from alignlib.training.adapters import adapter_to_train, add_adapters
from helpers import adapted, tiny
from helpers.adapted import EXAMPLE, logps, to_train
from helpers.plain import plain_logps
from helpers.training import fit, same


def drawn(family, **changes):
    """A model under adapters whose weights are wide enough to show."""
    policy = Policy(tiny.causal(family), tiny.tokenizer())
    add_adapters(policy, tiny.recipe("x", lora=2, **changes))
    torch.manual_seed(1)
    for weight in policy.model.parameters():
        if weight.requires_grad:
            torch.nn.init.normal_(weight, std=0.2)
    return policy


@pytest.mark.parametrize(("family", "on_experts"), [("mixtral", True), ("qwen3_moe", True), ("gpt_oss", False)])
def test_merged_experts_are_peft_s_and_load(family, on_experts, tmp_path):
    policy = drawn(family)
    before = logps(policy)
    wanted = copy.deepcopy(policy.model).merge_and_unload().state_dict()
    merged = load.merged_weights(policy)
    assert set(merged) == set(wanted)
    for name, weight in wanted.items():
        torch.testing.assert_close(merged[name], weight, rtol=1e-6, atol=1e-6)
    bare = tiny.causal(family).state_dict()
    for part, changed in {".q_proj.weight": True, ".experts.gate_up_proj": on_experts,
                          ".experts.down_proj": on_experts}.items():
        moved = [(merged[name] - bare[name]).abs().max() > 1e-2 for name in wanted if name.endswith(part)]
        assert moved == [changed] * 2
    load.save(policy, tmp_path / "whole")
    same(logps(to_train(str(tmp_path / "whole"))), before, 1e-4)
    same(logps(policy), before)


@pytest.mark.slow
@pytest.mark.parametrize("save_adapter", [False, True])
def test_training_goes_on_in_an_adapter_on_experts(tmp_path, save_adapter):
    base = adapted.base(tmp_path, "mixtral")
    policy, made = fit(tmp_path / "first", model=to_train(base), lora=2, steps=2, save_adapter=True)
    first = str(made.folder)
    with torch.no_grad():
        same(plain_logps(adapted.as_policy(first), EXAMPLE), logps(policy), 1e-5)
    assert adapter_to_train(first, tiny.recipe("x", lora=2), reward=False).path == first
    again = to_train(first, go_on=True)
    same(logps(again), logps(policy), 1e-5)
    _, made = fit(tmp_path / "second", model=again, steps=2, save_adapter=save_adapter)
    assert (logps(again) - logps(policy)).abs().min() > 1e-4
    same(logps(to_train(str(made.folder))), logps(again), 1e-5)


def test_dropout_is_refused_for_experts_alone():
    with pytest.raises(click.UsageError, match="--lora-dropout: adapters on the experts of a MixtralForCausalLM leave"):
        drawn("mixtral", lora_dropout=0.1)
    layer = drawn("mixtral", lora_dropout=0.1, lora_targets="q_proj,v_proj").core.model.layers[0]
    assert layer.self_attn.q_proj.lora_dropout["default"].p == 0.1 and not hasattr(layer.mlp.experts, "lora_A")


@pytest.mark.slow
def test_a_layer_that_cannot_be_merged_is_refused_before_training(tmp_path):
    def other(**changes):
        policy = Policy(tiny.causal("llama"), tiny.tokenizer())
        policy.core.model.mixer = torch.nn.MultiheadAttention(8, 1)  # peft's adapter is on its in_proj_weight
        given = adapted.adapter(tmp_path, adapted.base(tmp_path))
        adapter = adapter_to_train(given, tiny.recipe("x"), reward=False)
        adapter.config.target_modules = {"mixer"}
        add_adapters(policy, tiny.recipe("x", **changes), adapter)
        return policy

    with pytest.raises(click.UsageError, match=r"^model\.mixer: its adapter cannot be merged into a LlamaForCausalLM; "
                                               "give --save-adapter"):
        other()
    assert other(save_adapter=True).model is not None


def test_no_target_is_no_layer():
    with pytest.raises(click.UsageError, match="--lora-targets: '' is no linear layer of a LlamaForCausalLM"):
        drawn("llama", lora_targets="")


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{"resized": True, "modules_to_save": ["embed_tokens", "lm_head"]},
                                      {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True}])
def test_weights_that_share_their_memory_are_saved(tmp_path, settings):
    words, base = tiny.chat_tokenizer(), adapted.base(tmp_path, tie_word_embeddings="resized" not in settings)
    model = AutoModelForCausalLM.from_pretrained(base)
    if settings.pop("resized", False):
        model.resize_token_embeddings(len(words), mean_resizing=False)
    path = adapted.adapter(tmp_path, base, model=model, words=words if len(words) == model.vocab_size else None,
                           **settings)
    policy = to_train(path, go_on=True)
    before = logps(policy)
    _, made = fit(tmp_path / "run", model=policy, steps=2, save_every=1, keep=0, save_adapter=True)
    assert (logps(policy) - before).abs().min() > 1e-4
    for folder in (made.folder, made.folder / "checkpoint-2"):
        same(logps(to_train(str(folder))), logps(policy), 1e-5)
    same(logps(to_train(path)), before, 1e-5)
