"""What a reward model begins with: a policy's body under a new head."""

import json

import click
import pytest
import torch
from safetensors.torch import load_file, save_file

from al_train_rm import start
from helpers import tiny


def test_a_new_head_is_small_and_a_function_of_the_seed(tmp_path):
    folder = tiny.save(tiny.causal("llama"), tmp_path / "policy")
    one, same, other = (start.new_reward(folder, None, "cpu", "fp32", seed).core.score.weight for seed in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert one.shape == (1, 32) and 0.5 < one.std().item() * 33 ** 0.5 < 1.5
    classes = start.new_reward(folder, ["bad", "good"], "cpu", "fp32").core
    assert classes.score.weight.shape == (2, 32) and classes.config.id2label == {0: "bad", 1: "good"}


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_the_policy_s_output_head_alone_is_left_out(tmp_path, family, tied):
    model = tiny.causal(family, tie_word_embeddings=tied)
    folder = tiny.save(model, tmp_path / "policy")
    reward = start.new_reward(folder, None, "cpu", "fp32").core
    wanted = {name: weight for name, weight in model.base_model.state_dict().items()}
    torch.testing.assert_close(reward.base_model.state_dict(), wanted, rtol=0, atol=0)
    file = tmp_path / "policy" / "model.safetensors"
    save_file(load_file(file) | {"v_head.weight": torch.ones(1, 32)}, file, metadata={"format": "pt"})
    with pytest.raises(click.UsageError, match="1 weights that a .* has no place for, v_head.weight the first"):
        start.new_reward(folder, None, "cpu", "fp32")


def test_a_score_under_a_policy_s_name_stays_as_it_is(tmp_path):
    model = tiny.classifier("llama")
    folder = tiny.save(model, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"architectures": ["LlamaForCausalLM"]}))
    assert torch.equal(start.new_reward(folder, None, "cpu", "fp32").core.score.weight, model.score.weight)
    with pytest.raises(click.UsageError, match=r"score.weight is \[1, 32\], the configuration wants \[2, 32\]"):
        start.new_reward(folder, ["bad", "good"], "cpu", "fp32")
