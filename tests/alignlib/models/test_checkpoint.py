"""A folder's code is never run; its checkpoint has the weights of its configuration, all and no others."""

import json

import click
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from alignlib.models import checkpoint, load
from helpers import bomb, tiny
from helpers.commands import folders, lines, one_line, pairs, run

# -- code in a folder ---------------------------------------------------------------------------------------------

RAN = "CODE_RAN"
CODE = f"""open("{RAN}", "w").write("yes")
import transformers

class Config(transformers.LlamaConfig):
    model_type = "mycustom"

class Model(transformers.LlamaForCausalLM):
    config_class = Config

class Words(transformers.PreTrainedTokenizerFast):
    pass
"""
AUTO = {name: "code.Model" for name in ("AutoModel", "AutoModelForCausalLM", "AutoModelForSequenceClassification")}


def with_code(path, **changes):
    """A copy of a model folder that brings classes of its own for all that is loaded from it."""
    copy = folders().without(path)
    (copy / "code.py").write_text(CODE)
    for name, auto in (("config.json", AUTO | {"AutoConfig": "code.Config"}),
                       ("tokenizer_config.json", {"AutoTokenizer": [None, "code.Words"]})):
        settings = json.loads((copy / name).read_text()) | {"auto_map": auto}
        (copy / name).write_text(json.dumps(settings | (changes if name == "config.json" else {})))
    return copy


ANSWERED = {"prompt": "Hi", "completions": ["Yes"]}


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("name", "kind", "before", "after"), [
    ("al-sample", "policy", (), ("-m", 2)),
    ("al-score", "policy", (), ("--logps",)),
    ("al-score", "reward", (), ()),
    ("al-eval", "policy", ("text", "--coherence"), ()),
    ("al-sft", "policy", (), ("-o", "out")),
    ("al-sft", "policy", (), ("--plan",)),
    ("al-train-rm", "policy", (), ("-o", "out")),
    ("al-train-exo", "policy", (), ("-o", "out")),
    ("al-train-ppo", "policy", (), ("-o", "out", "--reward", "length")),
    ("al-train-ppo", "reward", ("POLICY", "-o", "out", "--reward"), ()),
    ("al-args", "policy", (), ("REWARD", "-m", 2)),
    ("al-args", "reward", ("POLICY",), ("-m", 2)),
    ("al-label-ai", "policy", ("--judge",), ()),
    ("al-label-ai", "reward", ("--judge-rm",), ()),
])
def test_a_type_that_transformers_lacks_is_refused_unasked(here, name, kind, before, after):
    """Standard input says yes to everything, as long as anybody asks."""
    folder = with_code(getattr(folders(), kind), model_type="mycustom")
    others = {"POLICY": folders().policy, "REWARD": folders().reward}
    args = [others.get(arg, arg) for arg in (*before, folder, *after)]
    done = run(name, *args, stdin="y\n" * 1000)
    assert done.returncode == 2 and done.stdout == ""
    assert f"{folder}: model type mycustom" in one_line(done.stderr)
    assert not list(here.rglob(RAN)) and not list(folder.glob("**/" + RAN))


@pytest.mark.parametrize("kind", ["policy", "reward"])
def test_code_beside_a_type_that_transformers_has_is_passed_over(here, kind):
    plain = getattr(folders(), kind)
    how = () if kind == "reward" else ("--logps",)
    done, wanted = (run("al-score", folder, *how, stdin=lines(ANSWERED)) for folder in (with_code(plain), plain))
    assert (done.returncode, done.stdout) == (0, wanted.stdout)
    loader = load.load_reward if kind == "reward" else load.load_policy
    model = loader(str(with_code(plain)), "cpu")
    classes = {type(thing).__module__.split(".")[0] for thing in (model.core, model.core.config, model.tokenizer)}
    assert classes == {"transformers"} and not (here / RAN).exists()


def test_an_attention_that_a_folder_names_is_not_fetched(tmp_path):
    """A name with a slash is a repository of the Hub, whose code transformers would fetch and run."""
    folder = tiny.save(tiny.causal("llama"), tmp_path / "policy")
    file = tmp_path / "policy" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"attn_implementation": "somebody/attention"}))
    assert load.load_config(folder)._attn_implementation is None
    assert load.load_policy(folder, "cpu").core.config._attn_implementation != "somebody/attention"


# -- weights ------------------------------------------------------------------------------------------------------


def with_weights(folder, change):
    """The folder, its weights changed by `change` in their dict."""
    weights = load_file(f"{folder}/model.safetensors")
    change(weights)
    save_file(weights, f"{folder}/model.safetensors", metadata={"format": "pt"})
    return str(folder)


def read(folder, auto=AutoModelForCausalLM, **settings):
    return checkpoint.read(auto, folder, torch.float32, **settings)


def test_weights_without_a_place_are_named(tmp_path):
    layers = tiny.save(tiny.causal("llama", num_hidden_layers=3), tmp_path / "layers")
    config = json.loads((tmp_path / "layers" / "config.json").read_text())
    (tmp_path / "layers" / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 2}))
    with pytest.raises(click.UsageError, match=r"layers: the checkpoint has 9 weights that a LlamaForCausalLM has no "
                                               r"place for, model.layers.2.input_layernorm.weight the first"):
        read(layers)
    value = with_weights(tiny.save(tiny.causal("opt"), tmp_path / "value"),
                         lambda weights: weights.update({"critic.weight": torch.ones(1, 32)}))
    with pytest.raises(click.UsageError, match="has 1 weights that a OPTForCausalLM .* critic.weight"):
        load.load_policy(value)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["al-sft", "al-train-rm"])
def test_zero_3_drops_no_weights_either(tmp_path, name):
    """DeepSpeed's own way of loading does not compare names."""
    folder = with_weights(folders().without(folders().policy),
                          lambda weights: weights.update({"v_head.weight": torch.ones(1, 32)}))
    done = run(name, folder, "-o", tmp_path / "out", "--zero", 3, "--steps", 1, stdin=lines(*pairs(2)))
    assert done.returncode == 2
    assert "has 1 weights that a Llama" in one_line(done.stderr) and "v_head.weight the first" in done.stderr


def test_weights_that_are_missing_are_named_and_may_be(tmp_path):
    folder = tiny.save(tiny.causal("llama"), tmp_path)
    with pytest.raises(click.UsageError, match="the checkpoint lacks 1 weights, score.weight the first"):
        read(folder, AutoModelForSequenceClassification, spare=lambda model, names: names)
    _, lacking = read(folder, AutoModelForSequenceClassification, fresh=("score",), spare=lambda model, names: names,
                      num_labels=1)
    assert lacking == {"score.weight"}
    assert read(folder)[1] == set()


@pytest.mark.parametrize(("family", "name", "weight"), [
    ("llama", "lm_head.weight", None),  # tied to the embeddings, and saved with them
    ("llama", "model.rotary_emb.inv_freq", torch.ones(4)),
    ("llama", "model.layers.0.self_attn.rotary_emb.inv_freq", torch.ones(4)),
    ("gpt2", "transformer.h.0.attn.bias", torch.ones(1, 1, 8, 8)),
    ("gpt2", "transformer.h.0.attn.masked_bias", torch.tensor(-1e4)),
    ("gpt_neox", "gpt_neox.layers.0.attention.bias", torch.ones(1, 1, 8, 8)),
    ("gpt_neox", "gpt_neox.layers.0.attention.rotary_emb.inv_freq", torch.ones(4)),
    ("opt", "model.decoder.version", torch.ones(1)),
])
def test_tied_heads_and_constants_are_no_strangers(tmp_path, family, name, weight):
    model = tiny.causal(family, tie_word_embeddings=True)
    more = model.get_input_embeddings().weight.detach().clone() if weight is None else weight
    folder = with_weights(tiny.save(model, tmp_path), lambda weights: weights.update({name: more}))
    loaded, lacking = read(folder)
    assert lacking == set()
    torch.testing.assert_close(loaded.state_dict(), model.state_dict(), rtol=0, atol=0)


def test_what_a_class_ignores_is_ignored(tmp_path):
    config = transformers.Qwen3NextConfig(
        vocab_size=32, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, head_dim=8,
        num_key_value_heads=1, layer_types=["full_attention"], mlp_only_layers=[0])
    folder = tiny.save(AutoModelForCausalLM.from_config(config), tmp_path)
    read(with_weights(folder, lambda weights: weights.update({"mtp.layers.0.weight": torch.ones(2)})))


# -- a score under a policy's name --------------------------------------------------------------------------------


def as_policy(folder):
    """A reward model's folder, whose configuration names the language model of its family."""
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"architectures": ["LlamaForCausalLM"]}))
    return str(folder)


@pytest.mark.parametrize("tied", [True, False])
def test_a_score_under_a_policy_s_name_is_not_dropped(tmp_path, tied):
    model = tiny.classifier("llama", tie_word_embeddings=tied)
    tiny.save(model, tmp_path)
    path = as_policy(tmp_path)
    with pytest.raises(click.UsageError, match=r"a reward model \(its head is score\); a policy is needed"):
        load.load_policy(path, "cpu")
    loaded = load.load_reward(path, "cpu", "fp32").core
    torch.testing.assert_close(loaded.state_dict(), model.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "policy.pt"])
def test_a_pickle_that_runs_code_is_refused_unrun(tmp_path, name):
    proof = bomb.plant(tmp_path / name)
    with pytest.raises(click.UsageError, match=f"{name}: not a checkpoint that can be read safely .UnpicklingError"):
        checkpoint.tensors(tmp_path / name)
    assert not proof.exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x80\x02}q", b"x" * 50, b"\x80\x02c"])
def test_what_is_no_pickle_is_refused(tmp_path, content):
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(click.UsageError, match="a.pt: no state that can be read safely .*; begin anew"):
        checkpoint.unpickled(tmp_path / "a.pt", "no state", "begin anew")
