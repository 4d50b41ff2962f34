"""Adapters that are more than B A beside a layer's weight: read as peft reads them, or refused in a line."""

import json
from pathlib import Path

import click
import peft
import pytest
import torch
from transformers import AutoModelForCausalLM

from alignlib.models import adapters, load
from helpers import adapted, tiny
from helpers.commands import folders, lines, one_line, run
from helpers.plain import plain_logps

EXAMPLE = tiny.example(9, 4, 7)
TOKENS = sorted({*EXAMPLE.prompt[:2], *EXAMPLE.completions[0][:2]})


def same_as_peft(path):
    policy = load.load_policy(path, "cpu", "fp32")
    with torch.no_grad():
        ours, base = policy.logps(policy.pack([EXAMPLE]))[0], load.load_policy(load.adapter_base(path), "cpu", "fp32")
        torch.testing.assert_close(ours, plain_logps(adapted.as_policy(path), EXAMPLE), rtol=1e-5, atol=1e-5)
        assert (ours - plain_logps(base.core, EXAMPLE)).abs().min() > 1e-2
    assert load.load_config(path).vocab_size == tiny.VOCABULARY


def by_method(folder, base, config):
    """A folder of another method than LoRA."""
    model = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    torch.manual_seed(1)
    for weight in model.parameters():
        if weight.requires_grad:
            torch.nn.init.normal_(weight, std=0.2)
    model.save_pretrained(folder / "other")
    return str(folder / "other")


@pytest.mark.slow
@pytest.mark.parametrize("tied", [False, True])
def test_tokens_of_their_own_are_no_vocabulary(tmp_path, tied):
    base = adapted.base(tmp_path, tie_word_embeddings=tied)
    same_as_peft(adapted.adapter(tmp_path, base, target_modules=["q_proj"], trainable_token_indices=TOKENS))
    same_as_peft(by_method(tmp_path, base, peft.TrainableTokensConfig(
        task_type="CAUSAL_LM", token_indices=TOKENS, target_modules=["embed_tokens"])))


def test_tying_is_of_no_account_where_the_base_is_not_tied(tmp_path):
    same_as_peft(adapted.adapter(tmp_path, adapted.base(tmp_path), target_modules=["q_proj", "embed_tokens"],
                                 ensure_weight_tying=True))


@pytest.mark.parametrize(("settings", "message"), [
    ({"target_modules": ["embed_tokens"], "ensure_weight_tying": True}, "with ensure_weight_tying and LoRA on the emb"),
    ({"target_modules": ["q_proj"], "layer_replication": [[0, 2], [1, 2]]}, "with layer_replication, which peft does"),
    ({"target_modules": ["q_proj"], "alora_invocation_tokens": [65]}, "with alora_invocation_tokens, which peft does"),
    ({"target_modules": ["q_proj"], "lora_bias": True}, "with lora_bias, which peft does not merge"),
])
@pytest.mark.parametrize("go_on", [False, True])
def test_lora_that_does_not_merge_is_refused(tmp_path, settings, message, go_on):
    path = adapted.adapter(tmp_path, adapted.base(tmp_path, tie_word_embeddings=True), **settings)
    with pytest.raises(click.UsageError, match=f"adapter: an adapter {message}") as failure:
        load.load_policy(path, "cpu", go_on=go_on)
    assert "\n" not in failure.value.message


@pytest.mark.parametrize(("config", "message"), [
    (peft.AdaptionPromptConfig(task_type="CAUSAL_LM", adapter_len=2, adapter_layers=1),
     "an adapter by ADAPTION_PROMPT, which is no change of weights"),
    (peft.PolyConfig(task_type="CAUSAL_LM", r=2, n_tasks=2, n_skills=2, n_splits=1, target_modules=["q_proj"]),
     "an adapter by POLY, which peft does not merge into a base's weights"),
])
def test_methods_that_do_not_merge_are_refused(tmp_path, config, message):
    with pytest.raises(click.UsageError, match=f"other: {message}"):
        load.load_policy(by_method(tmp_path, adapted.base(tmp_path), config), "cpu")


@pytest.mark.slow
def test_a_rank_in_quotes_is_a_user_s_mistake(tmp_path):
    path = adapted.adapter(tmp_path, folders().policy)
    file = Path(path) / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"r": "4"}))
    done = run("al-score", path, "--logps", stdin=lines({"prompt": "a", "completions": ["b"]}))
    assert done.returncode == 2
    assert f'{file}: r: "4", of which peft {peft.__version__} makes nothing' in one_line(done.stderr)


def test_names_and_weights_under_nested_wrappers():
    model = tiny.causal("mixtral")
    plain = set(model.state_dict())
    peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules="all-linear", modules_to_save=["lm_head"]))
    names = {adapters.plain_name(name) for name in model.state_dict()
             if ".lora_" not in name and ".original_module." not in name}
    assert names == plain
    changed = [name for name, _ in adapters.changed_weights(model)]
    assert len(changed) == len(set(changed)) == 2 * 7 and set(changed) < plain
    assert "model.layers.0.mlp.experts.gate_up_proj" in changed and "model.layers.1.mlp.gate.weight" in changed
