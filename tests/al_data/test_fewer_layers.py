"""al-data new-model --from: the kept layers are the model's own, and all else of it comes along."""

import json

import click
import pytest
import torch
import transformers

from al_data import fewer_layers
from alignlib.models import load
from helpers import tiny
from helpers.commands import lines, one_line, pairs, run

IDS = torch.arange(48)[None] * 5


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(IDS, use_cache=False).logits


@pytest.mark.parametrize(("there", "count", "kept"), [
    (30, 15, [0, 2, 4, 6, 8, 10, 12, 14, 17, 19, 21, 23, 25, 27, 29]), (6, 6, [0, 1, 2, 3, 4, 5]), (6, 3, [0, 2, 5]),
    (6, 2, [0, 5]), (6, 1, [0]), (1, 1, [0]),
])
def test_layers_are_spread_evenly_from_the_first_to_the_last(there, count, kept):
    assert fewer_layers.spread(there, count) == kept


def test_a_llama_s_are_those_of_a_forward_by_hand(tmp_path):
    model = tiny.causal("llama", num_hidden_layers=6)
    source = tiny.save(model, tmp_path / "whole", tiny.chat_tokenizer())
    said = json.loads((tmp_path / "whole" / "generation_config.json").read_text())
    (tmp_path / "whole" / "generation_config.json").write_text(json.dumps({**said, "eos_token_id": [3, 265]}))
    parameters, kept = fewer_layers.create(source, tmp_path / "small", 3)
    policy = load.load_policy(str(tmp_path / "small"), "cpu", "fp32")
    with torch.no_grad():
        states, places = model.model.embed_tokens(IDS), torch.arange(IDS.shape[1])[None]
        mask = torch.full((48, 48), float("-inf")).triu(1)[None, None]
        for number in (0, 2, 5):
            out = model.model.layers[number](states, attention_mask=mask, position_ids=places,
                                             position_embeddings=model.model.rotary_emb(states, places))
            states = out[0] if isinstance(out, tuple) else out
        by_hand = model.lm_head(model.model.norm(states))
    torch.testing.assert_close(logits(policy.core), by_hand, rtol=1e-5, atol=1e-5)
    assert kept == [0, 2, 5] and parameters == policy.core.num_parameters() < model.num_parameters()
    assert policy.tokenizer.chat_template == tiny.CHATML
    assert policy.core.generation_config.eos_token_id == [3, 265]


def test_it_keeps_the_type_of_the_weights(tmp_path):
    source = tiny.save(tiny.causal("gpt2").bfloat16(), tmp_path / "whole")
    fewer_layers.create(source, tmp_path / "small", 1)
    assert load.load_config(str(tmp_path / "small")).dtype == torch.bfloat16
    assert load.load_config(str(tmp_path / "small")).n_layer == 1


SHAPE = dict(vocab_size=tiny.VOCABULARY, hidden_size=32, intermediate_size=48, num_attention_heads=4,
             num_key_value_heads=2, head_dim=8, num_hidden_layers=6, initializer_range=0.3, max_position_embeddings=256,
             bos_token_id=1, eos_token_id=2, pad_token_id=0)
KINDS = {
    "gemma3_text": dict(SHAPE, sliding_window=8, query_pre_attn_scalar=8,
                        layer_types=["sliding_attention", "sliding_attention", "full_attention"] * 2),
    "smollm3": dict(SHAPE, no_rope_layers=[1, 1, 0, 1, 0, 0]),
    "qwen3_moe": dict(SHAPE, mlp_only_layers=[2], num_experts=4, num_experts_per_tok=2, moe_intermediate_size=24),
    "gpt_neo": dict(vocab_size=tiny.VOCABULARY, hidden_size=32, num_layers=6, num_heads=4, window_size=8,
                    attention_types=[[["global", "local"], 3]], max_position_embeddings=256, initializer_range=0.3),
    "gpt_neox": {**{name: value for name, value in SHAPE.items() if "key_value" not in name and name != "head_dim"}},
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_configuration_says_of_each_layer_goes_with_it(tmp_path, kind):
    """Windows, positions, experts: what the layers 0, 2 and 5 compute in the model itself, the others passed over."""
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(kind, **KINDS[kind])).eval()
    fewer_layers.create(tiny.save(model, tmp_path / "whole"), tmp_path / "small", 3)
    small = load.load_policy(str(tmp_path / "small"), "cpu", "fp32").core
    _, layers = fewer_layers.find_layers(model, "")
    for number in (1, 3, 4):
        layers[number].forward = lambda states, *_, number=number, **__: (states,) if kind == "gpt_neo" else states
    torch.testing.assert_close(logits(small), logits(model), rtol=1e-4, atol=1e-4)


def test_a_layer_that_would_be_another_is_refused(tmp_path):
    """GPT-2's may be scaled by their own number."""
    model = tiny.causal("gpt2", n_layer=3, scale_attn_by_inverse_layer_idx=True)
    with pytest.raises(click.UsageError, match="layers of a GPT2LMHeadModel are others at another place"):
        fewer_layers.create(tiny.save(model, tmp_path / "whole"), tmp_path / "small", 2)
    assert not (tmp_path / "small").exists()


@pytest.mark.slow
def test_a_reward_model_of_half_the_size(tmp_path):
    source = tiny.save(tiny.causal("llama", num_hidden_layers=4), tmp_path / "whole")
    done = run("al-data", "new-model", tmp_path / "half", "--from", source, "--layers", 2)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("layers kept, from 0: 0, 3\nal-data new-model: ")
    done = run("al-train-rm", tmp_path / "half", "-o", tmp_path / "rm", "--steps", 1, stdin=lines(*pairs(4)))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("arguments", "message"), [
    (["--from", "SOURCE"], "--from MODEL and --layers N go together"),
    (["--layers", 1], "--from MODEL and --layers N go together"),
    (["--from", "SOURCE", "--layers", 1, "--size", "1m"], "goes with no size"),
    (["--from", "SOURCE", "--layers", 3], "--layers 3: SOURCE has 2"),
    (["--from", "missing", "--layers", 1], "missing: no model folder"),
])
@pytest.mark.slow
def test_options_that_do_not_fit(tmp_path, arguments, message):
    source = tiny.save(tiny.causal("llama"), tmp_path / "whole")
    done = run("al-data", "new-model", tmp_path / "small",
               *(source if word == "SOURCE" else word for word in arguments))
    assert done.returncode == 2 and message.replace("SOURCE", source) in one_line(done.stderr)
