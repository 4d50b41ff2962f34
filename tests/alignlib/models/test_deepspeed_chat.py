"""Reward models as DeepSpeed-Chat saves them give the scores of the model that was put into them."""

import click
import pytest
import torch

from alignlib.models import deepspeed_chat, load
from alignlib.models.policy import RewardModel
from helpers import tiny
from helpers.commands import lines, read, run

EXAMPLES = [tiny.example(9, 4, 0, 7), tiny.example(3, 2, 12, 5)]


def checkpoint(folder, family, body, change=lambda state: None):
    """A tiny reward model in DeepSpeed-Chat's form, and the model itself."""
    inner = tiny.classifier(family)
    prefix = f"{inner.base_model_prefix}."
    state = {name.replace(prefix, body, 1): weight for name, weight in inner.state_dict().items()}
    state["v_head.weight"] = state.pop("score.weight")
    change(state)
    tiny.save(tiny.causal(family), folder)  # config.json names a language model, as theirs does
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")
    return str(folder), inner


@pytest.mark.parametrize("family", ["llama", "opt", "gpt_neox", "gpt2"])
@pytest.mark.parametrize("body", ["rwtransformer.", "rwtranrsformer."])
def test_both_spellings_of_every_family(family, body, tmp_path):
    folder, inner = checkpoint(tmp_path / "rm", family, body)
    assert load.is_classifier(folder)
    loaded, wanted = load.load_reward(folder, "cpu", "fp32"), RewardModel(inner, tiny.tokenizer())
    with torch.no_grad():
        scores = loaded.scores(loaded.pack(EXAMPLES))
        torch.testing.assert_close(scores, wanted.scores(wanted.pack(EXAMPLES)), rtol=1e-6, atol=1e-6)
    assert scores.std() > 0.1
    with pytest.raises(click.UsageError, match="a reward model .* a policy is needed"):
        load.load_policy(folder)


@pytest.mark.parametrize("family", ["opt", "gpt_neox"])
def test_it_guides_as_the_model_itself_does(family, tmp_path):
    """al-args: the same texts and rewards."""
    folder, inner = checkpoint(tmp_path / "rm", family, "rwtransformer.")
    policy, plain = tiny.save(tiny.causal(family, 5), tmp_path / "lm"), tiny.save(inner, tmp_path / "plain")
    prompts = lines({"prompt": "in the"}, {"prompt": "an answer"})
    converted, wanted = (read(run("al-args", policy, rm, "-m", 8, "--weight", 3, stdin=prompts).stdout)
                    for rm in (folder, plain))
    for one, other in zip(converted, wanted, strict=True):
        assert one["completions"] == other["completions"] and len(one["completions"][0]) > 2
        assert one["rewards"] == pytest.approx(other["rewards"], abs=1e-5)


def test_masks_and_frequencies_of_older_models_are_no_weights(tmp_path):
    def old(state):
        for layer in range(2):
            name = f"rwtransformer.layers.{layer}.attention."
            state |= {name + "bias": torch.ones(1, 1, 8, 8), name + "masked_bias": torch.tensor(-1e9),
                      name + "rotary_emb.inv_freq": torch.ones(4)}

    folder, inner = checkpoint(tmp_path / "rm", "gpt_neox", "rwtransformer.", old)
    loaded = load.load_reward(folder, "cpu", "fp32")
    torch.testing.assert_close(loaded.core.state_dict(), inner.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("change, named", [
    (lambda state: state.pop("rwtransformer.layers.1.mlp.up_proj.weight"), "model.layers.1.mlp.up_proj.weight"),
    (lambda state: state.update({"rwtransformer.extra.weight": torch.ones(1)}), "model.extra.weight"),
])
def test_what_does_not_fit_is_named(change, named, tmp_path):
    folder, _ = checkpoint(tmp_path / "rm", "llama", "rwtransformer.", change)
    with pytest.raises(click.UsageError, match=f"not a DeepSpeed-Chat reward model: {named}"):
        load.load_reward(folder, "cpu", "fp32")


def test_a_file_that_is_no_checkpoint_is_named(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"garbage")
    with pytest.raises(click.UsageError, match="pytorch_model.bin: not a checkpoint"):
        deepspeed_chat.read_weights(str(tmp_path))
