"""What a reward model begins with: a policy's body under a new head."""

import json

import click
import pytest
import torch
from safetensors.torch import load_file, save_file

from al_train_rm import start
from alignlib.models.example import Example
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
    save_file(load_file(file) | {"q_head.weight": torch.ones(1, 32)}, file, metadata={"format": "pt"})
    with pytest.raises(click.UsageError, match="1 weights that a .* has no place for, q_head.weight the first"):
        start.new_reward(folder, None, "cpu", "fp32")


def test_a_score_under_a_policy_s_name_stays_as_it_is(tmp_path):
    model = tiny.classifier("llama")
    folder = tiny.save(model, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"architectures": ["LlamaForCausalLM"]}))
    assert torch.equal(start.new_reward(folder, None, "cpu", "fp32").core.score.weight, model.score.weight)
    with pytest.raises(click.UsageError, match=r"score.weight is \[1, 32\], the configuration wants \[2, 32\]"):
        start.new_reward(folder, ["bad", "good"], "cpu", "fp32")


# -- padding -----------------------------------------------------------------------------------------------------


def words(*special: str, pad: str | None = None, unknown: str | None = None):
    """A tokenizer with these special tokens after the others, of which it has BOS, EOS and PAD; PAD is not its own."""
    tokenizer = tiny.tokenizer(pad=pad or tiny.EOS)
    tokenizer.add_special_tokens({"additional_special_tokens": list(special)})
    tokenizer.pad_token, tokenizer.unk_token = pad, unknown
    return tokenizer


@pytest.mark.slow
def test_a_padding_token_is_the_tokenizer_s_own_if_no_text_ends_with_it():
    bos, eos, pad = range(tiny.VOCABULARY - 3, tiny.VOCABULARY)

    def padding(tokenizer, ends, seen=(bos,), rows=tiny.VOCABULARY + 2):
        return start.padding_token(tokenizer, rows, {5, *ends}, {5, *ends, *seen})

    assert padding(words(pad=tiny.EOS), ()) == tiny.EOS
    assert padding(words(pad=tiny.EOS), (eos,)) == tiny.PAD  # by its name
    assert padding(words("<|new|>", pad="<|new|>"), ()) == "<|new|>"
    assert padding(words("<|new|>", pad="<|new|>"), (), rows=tiny.VOCABULARY) == tiny.PAD  # it has no row
    assert padding(words("<|new|>"), (eos, pad)) == "<|new|>"  # no text has it
    assert padding(words("<|new|>", unknown="<|new|>"), (eos, pad)) == tiny.BOS  # what is unknown may end a text
    assert padding(words("<|new|>", unknown="<|new|>"), (bos, eos, pad)) == "<|new|>"
    assert padding(words(), (bos, eos, pad)) is None


def test_without_a_padding_token_transformers_is_left_to_read_texts_alone(tmp_path, capsys):
    """GPT-2's tokenizer has one special token, and a reward model may read it at every end."""
    reward = start.new_reward(tiny.save(tiny.causal("gpt2"), tmp_path), None, "cpu", "fp32")
    reward.core.config.reads_eos = True
    ends = [tiny.VOCABULARY - 3, tiny.VOCABULARY - 2, tiny.VOCABULARY - 1]
    start.set_padding(reward, [Example([1], [[2, end] for end in ends])])
    assert reward.tokenizer.pad_token is reward.core.config.pad_token_id is None
    assert "no token is left to pad with" in capsys.readouterr().err
    start.set_padding(reward, [Example([1], [[2, 3]]), Example([1, 4], [[], [9]])])
    assert reward.tokenizer.pad_token_id == reward.core.config.pad_token_id == ends[2]
    assert capsys.readouterr().err == ""
