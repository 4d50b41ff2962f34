"""Models that are no folder: .gguf files equal what they were written of; weights are loaded beside their base."""

import json
import shutil

import click
import pytest
import torch
import transformers
from safetensors.torch import save_file

from alignlib.models import load, sources
from helpers import gguf_files, tiny
from helpers.commands import lines, one_line, read, run

pytestmark = pytest.mark.slow

IDS = torch.arange(60)[None] * 4
ROWS = tiny.VOCABULARY + 2


def llama(**changes) -> transformers.LlamaForCausalLM:
    return tiny.causal("llama", **{"vocab_size": ROWS, **changes})


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(IDS).logits


# -- .gguf -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tied", [False, True])
def test_a_file_is_the_model_it_was_written_of(tmp_path, tied):
    model, words = llama(tie_word_embeddings=tied), tiny.chat_tokenizer()
    policy = load.load_policy(gguf_files.write(tmp_path / "x.gguf", model), "cpu", "fp32")
    torch.testing.assert_close(logits(policy.core), logits(model), rtol=1e-6, atol=1e-6)
    for text in ("the in an\n\n a", " two 日本 <|im_end|>", ""):
        assert policy.tokenizer(text).input_ids == words(text).input_ids
    assert policy.tokenizer.chat_template == words.chat_template
    assert set(policy.tokenizer.added_tokens_decoder) == set(words.added_tokens_decoder)
    assert policy.tokenizer.get_vocab() == words.get_vocab()
    assert policy.tokenizer.name_or_path == policy.core.config.name_or_path == str(tmp_path / "x.gguf")
    assert load.encoder_for(policy).ends == load.encoder_for(type(policy)(model, words)).ends


@pytest.mark.slow
def test_sampling_equals_that_of_the_folder_it_is_made_into(tmp_path):
    """Quantized: the same texts, ids and log-probabilities, of conversations too."""
    file = gguf_files.write(tmp_path / "x.gguf", llama(hidden_size=64, intermediate_size=96), quantized=True)
    folder = tmp_path / "folder"
    done = run("al-data", "model", file, folder)
    assert done.returncode == 0, done.stderr
    records = lines({"prompt": "the in"}, {"messages": [{"role": "user", "content": "an er"}]})
    texts = [read(run("al-sample", model, "-n", 3, "-m", 12, "--logps", stdin=records).stdout)
             for model in (file, folder)]
    assert texts[0] == texts[1] and len(texts[0]) == 2
    assert len({tuple(ids) for record in texts[0] for ids in record["completion_ids"]}) == 6


@pytest.mark.slow
def test_it_is_trained_and_saved_as_any_other(tmp_path):
    file = gguf_files.write(tmp_path / "x.gguf", llama(hidden_size=64, intermediate_size=96), quantized=True)
    done = run("al-sft", file, "-o", tmp_path / "sft", "--steps", 2, "--lora", 2, "--lr", 1e-2,
               stdin=lines({"prompt": "the", "chosen": " an"}) * 4)
    assert done.returncode == 0, done.stderr
    assert "quantization_config" not in (tmp_path / "sft" / "config.json").read_text()
    before, after = (load.load_policy(str(path), "cpu", "fp32").core for path in (file, tmp_path / "sft"))
    assert 1e-4 < (logits(before) - logits(after)).abs().max() < 10
    run_file = json.loads((tmp_path / "sft" / "run.json").read_text())
    assert file in json.dumps(run_file)


def test_the_file_that_is_named_is_read(tmp_path, monkeypatch):
    """Not one of the same name where the command runs."""
    (tmp_path / "other").mkdir()
    model = llama(seed=1)
    gguf_files.write(tmp_path / "other" / "x.gguf", model)
    gguf_files.write(tmp_path / "x.gguf", llama(seed=2))
    monkeypatch.chdir(tmp_path)
    policy = load.load_policy("other/x.gguf", "cpu", "fp32")
    torch.testing.assert_close(logits(policy.core), logits(model), rtol=1e-6, atol=1e-6)


def test_llama_3_s_positions_are_those_of_its_file(tmp_path):
    """Its frequencies stand in a tensor that transformers passes over."""
    stretch = {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0,
               "high_freq_factor": 4.0, "original_max_position_embeddings": 32}
    model = llama(rope_parameters=stretch, hidden_size=64)
    plain = 10000.0 ** -(torch.arange(0, 16, 2) / 16)
    factors = plain / model.model.rotary_emb.inv_freq
    assert factors.max() == pytest.approx(8) and factors.min() == 1
    file = gguf_files.write(tmp_path / "x.gguf", model, **{"rope_freqs.weight": factors})
    policy = load.load_policy(file, "cpu", "fp32")
    torch.testing.assert_close(logits(policy.core), logits(model), rtol=1e-5, atol=1e-5)
    assert (logits(policy.core) - logits(llama(hidden_size=64))).abs().max() > 0.1
    load.save(policy, tmp_path / "folder")
    again = load.load_policy(str(tmp_path / "folder"), "cpu", "fp32")
    torch.testing.assert_close(logits(again.core), logits(policy.core), rtol=0, atol=0)


@pytest.mark.parametrize("quantized", [False, True])
def test_biases_are_read(tmp_path, quantized):
    """No key of the file says that there are any."""
    model = llama(attention_bias=True, mlp_bias=True, hidden_size=64, intermediate_size=96)
    for name, weight in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(weight)
    policy = load.load_policy(gguf_files.write(tmp_path / "x.gguf", model, quantized=quantized), "cpu", "fp32")
    assert policy.core.config.attention_bias and policy.core.config.mlp_bias
    close = {"rtol": 0.1, "atol": 1.5} if quantized else {"rtol": 1e-5, "atol": 1e-5}
    torch.testing.assert_close(logits(policy.core), logits(model), **close)
    for name, weight in model.named_parameters():
        if name.endswith("bias"):
            torch.testing.assert_close(policy.core.get_parameter(name), weight, rtol=0, atol=0)


def test_a_gemma_2_is_the_model_it_was_written_of(tmp_path):
    """Whose class has no sdpa, and whose queries are divided by the root of their size."""
    model = tiny.causal("gemma2", vocab_size=ROWS, query_pre_attn_scalar=8, sliding_window=16, pad_token_id=0)
    keys = {"gemma2.attention.key_length": 8, "gemma2.attention.value_length": 8,
            "gemma2.attention.sliding_window": 16, "gemma2.attn_logit_softcapping": 50.0,
            "gemma2.final_logit_softcapping": 30.0}
    file = gguf_files.write(tmp_path / "x.gguf", model, architecture="gemma2", **keys)
    policy = load.load_policy(file, "cpu", "fp32")
    torch.testing.assert_close(logits(policy.core), logits(model), rtol=1e-5, atol=1e-5)


def test_a_large_gemma_2_s_queries_are_divided_by_the_width_of_its_heads():
    """By 4608 / 32, though they are of 128, in the model of 46 layers: its own configuration says 144."""
    config = transformers.Gemma2Config(hidden_size=4608, num_attention_heads=32, head_dim=128, num_hidden_layers=46)
    sources.add_what_no_key_says(config, "gemma2", ())
    assert config.query_pre_attn_scalar == 144


def test_a_reward_model_begins_without_the_output_head(tmp_path):
    from al_train_rm.start import new_reward

    model = llama()
    reward = new_reward(gguf_files.write(tmp_path / "x.gguf", model), None, "cpu", "fp32")
    torch.testing.assert_close(reward.core.model(IDS)[0], model.model(IDS)[0], rtol=1e-6, atol=1e-6)


def cut(path, share):
    whole = path.read_bytes()
    path.write_bytes(whole[:int(len(whole) * share)])


@pytest.mark.parametrize(("spoil", "message"), [
    (lambda path: path.write_text("It is none.\n" * 99), "x.gguf: not a .gguf file, whatever its name"),
    (lambda path: path.write_bytes(b""), "x.gguf: not a .gguf file, whatever its name"),
    (lambda path: cut(path, 0.02), "x.gguf: a .gguf file that is cut or damaged"),
    (lambda path: cut(path, 0.5), "x.gguf: a .gguf file that is cut or damaged"),
    (lambda path: cut(path, 0.999), "x.gguf: a .gguf file that is cut or damaged"),
    (lambda path: path.unlink(), "x.gguf: no such file"),
    (lambda path: gguf_files.write(path, llama(), architecture="whisper"),
     "x.gguf: GGUF model with architecture whisper is not supported yet by transformers"),
    (lambda path: gguf_files.write(path, llama(), **{"llama.rope.scaling.type": "yarn"}),
     r"x.gguf: its positions are stretched \(llama.rope.scaling.type\), which transformers does not read"),
    (lambda path: gguf_files.write(path, llama(), **{"rope_factors_long.weight": torch.ones(4)}),
     r"x.gguf: its positions are stretched \(rope_factors_long.weight\)"),
    (lambda path: gguf_files.write(path, llama(), **{"blk.0.strange.weight": torch.ones(4)}),
     "the checkpoint has 1 weights that a LlamaForCausalLM has no place for, blk.0.strange.weight the first"),
    (lambda path: gguf_files.write(path, llama(), **{"blk.0.attn_q.bias": torch.ones(32)}),
     "the checkpoint lacks 7 weights, model.layers.0.self_attn.k_proj.bias the first"),
    (lambda path: gguf_files.write(path, llama(), **{"split.count": 2}),
     "x.gguf: one of 2 parts; llama-gguf-split --merge makes one file of them"),
])
def test_what_is_no_such_file_is_named(tmp_path, spoil, message):
    path = tmp_path / "x.gguf"
    gguf_files.write(path, llama())
    spoil(path)
    with pytest.raises(click.UsageError, match=message) as refusal:
        load.load_policy(str(path), "cpu", "fp32")
    assert "\n" not in refusal.value.message


def test_positions_that_are_not_stretched_are_no_reason(tmp_path):
    file = gguf_files.write(tmp_path / "x.gguf", llama(), **{"llama.rope.scaling.type": "none"})
    assert load.load_config(file).num_hidden_layers == 2


def test_one_of_several_parts(tmp_path):
    with pytest.raises(click.UsageError, match="one of 3 parts; llama-gguf-split --merge makes one file of them"):
        load.load_config(str(tmp_path / "x-00001-of-00003.gguf"))


def test_a_file_holds_no_reward_model(tmp_path):
    with pytest.raises(click.UsageError, match="x.gguf: a policy or a bare model; a reward model"):
        load.load_reward(gguf_files.write(tmp_path / "x.gguf", llama()), "cpu")


def test_without_the_package_the_line_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    monkeypatch.setattr(sources.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(click.UsageError, match=r"x.gguf: .* pip install 'align-tools\[gguf\]'"):
        load.load_config(str(tmp_path / "x.gguf"))


# -- weights alone ---------------------------------------------------------------------------------------------


def gptj(kind=transformers.GPTJForCausalLM, seed=0, **changes) -> torch.nn.Module:
    """A tiny GPT-J; its configuration as that of the released one: no id of padding, not tied."""
    torch.manual_seed(seed)
    ends = {"bos_token_id": tiny.VOCABULARY - 2, "eos_token_id": tiny.VOCABULARY - 2}
    return kind(transformers.GPTJConfig(vocab_size=tiny.VOCABULARY, n_positions=tiny.CONTEXT, n_embd=32, n_layer=2,
                                        n_head=4, rotary_dim=4, initializer_range=0.3, **ends, **changes)).eval()


def masks(names: str = "transformer") -> dict[str, torch.Tensor]:
    """What older releases of transformers kept among a GPT-J's weights."""
    return {f"{names}.h.{layer}.attn.{name}": value for layer in range(2) for name, value in
            (("bias", torch.ones(1, 1, 8, 8, dtype=torch.uint8)), ("masked_bias", torch.tensor(-1e9)))}


@pytest.fixture
def base(tmp_path):
    """A folder of a GPT-J, which the weights of the tests began as."""
    return tiny.save(gptj(seed=9), tmp_path / "base")


def test_a_policy_of_the_dpo_reference_implementation(tmp_path, base):
    """With the base's configuration, tokenizer and generation configuration."""
    said = json.loads((tmp_path / "base" / "generation_config.json").read_text())
    (tmp_path / "base" / "generation_config.json").write_text(json.dumps({**said, "eos_token_id": [3, 265]}))
    model, file = gptj(), tmp_path / "policy.pt"
    torch.save({"step_idx": 7, "state": {**model.state_dict(), **masks()}, "metrics": {"loss": 0.5}}, file)
    policy = load.load_policy(f"{file}@{base}", "cpu", "fp32")
    torch.testing.assert_close(logits(policy.core), logits(model), rtol=0, atol=0)
    assert load.encoder_for(policy).ends >= {3, 265}
    assert policy.core.config.name_or_path == policy.tokenizer.name_or_path == f"{file}@{base}"


@pytest.mark.parametrize("form", ["bin", "safetensors"])
def test_weights_beside_a_configuration(tmp_path, base, form):
    model, file = gptj(), tmp_path / "base" / f"step-8.{form}"
    if form == "bin":
        torch.save(model.state_dict(), file)
    else:
        save_file(model.state_dict(), file)
    torch.testing.assert_close(logits(load.load_policy(str(file), "cpu", "fp32").core), logits(model), rtol=0, atol=0)


def test_a_folder_of_weights(tmp_path, base):
    model = gptj()
    (tmp_path / "alone").mkdir()
    torch.save(model.state_dict(), tmp_path / "alone" / "pytorch_model.bin")
    policy = load.load_policy(f"{tmp_path / 'alone'}@{base}", "cpu", "fp32")
    torch.testing.assert_close(logits(policy.core), logits(model), rtol=0, atol=0)


@pytest.mark.parametrize("command", [
    ("al-sft", "MODEL", "-o", "OUT", "--steps", 1),
    ("al-train-exo", "MODEL", "--ref", "BASE", "--loss", "dpo-pref", "-o", "OUT", "--steps", 1),
    ("al-train-rm", "MODEL", "-o", "OUT", "--steps", 1),
    ("al-train-ppo", "MODEL", "--ref", "BASE", "--reward", "length", "-n", 2, "-m", 2, "-o", "OUT", "--steps", 1),
])
@pytest.mark.slow
def test_training_begins_there(tmp_path, base, command):
    torch.save({"step_idx": 7, "state": gptj().state_dict(), "metrics": {}}, tmp_path / "policy.pt")
    names = {"MODEL": f"{tmp_path / 'policy.pt'}@{base}", "BASE": base, "OUT": tmp_path / "out"}
    done = run(*(names.get(str(word), word) for word in command), stdin=lines({"prompt": "the", "chosen": " an",
                                                                               "rejected": " in"}) * 2)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "model.safetensors").is_file()


@pytest.mark.parametrize(("saved", "message"), [
    ({"step_idx": 7, "state": {}}, r"policy.pt: no weights by their names but a dict of "),
    ({"optimizer": {"a": torch.ones(2)}, "epoch": 3}, "policy.pt: no weights by their names but a dict of optimizer, "),
    ([1, 2], "policy.pt: no weights by their names but list"),
    ({"state": {"a": torch.ones(1)}}, "the checkpoint lacks"),
    (click.UsageError("a class of somebody's"), r"policy.pt: not a checkpoint that can be read safely \(Unpickling"),
])
def test_what_holds_no_weights_says_what_it_holds(tmp_path, base, saved, message):
    torch.save(saved, tmp_path / "policy.pt")
    with pytest.raises(click.UsageError, match=message):
        load.load_policy(f"{tmp_path / 'policy.pt'}@{base}", "cpu", "fp32")


@pytest.mark.slow
def test_what_is_no_model_says_what_would_be(tmp_path, base):
    alone = tmp_path / "alone"
    alone.mkdir()
    for name in ("policy.pt", "notes.txt"):
        (alone / name).touch()
    for path, message in (
        (alone / "policy.pt", "weights alone; name the model that they began as, a folder or a name on the Hub: "),
        (alone / "notes.txt", "a file that is no model: a folder, a .gguf file or WEIGHTS@BASE is"),
        (alone, f"no config.json); for weights alone name their base: {alone / 'policy.pt'}@BASE"),
        (f"{alone / 'policy.pt'}@{alone}", "no config.json"),
        (f"{alone / 'missing.pt'}@{base}", "missing.pt"),
    ):
        done = run("al-score", path, "--logps", stdin=lines({"prompt": "a", "completions": ["b"]}))
        assert done.returncode == 2 and message in one_line(done.stderr), done.stderr


@pytest.mark.parametrize(("path", "message"), [
    ("/dev/null", "/dev/null: a file that is no model: a folder, a .gguf file or WEIGHTS@BASE is"),
    ("", "MODEL: the name given is empty"),
    ("x.gguf@base", "x.gguf@base: a .gguf file stands alone, without @: x.gguf"),
    ("killed", "killed: a training run that is not done, and no model yet: --resume ends it"),
    ("killed/ref_logps.pt@killed", "killed: a training run that is not done, and no model yet: --resume ends it"),
    ("./none", "./none: no such folder"),
    ("/none/at/all", "/none/at/all: no such folder"),
    ("base/none/more", "base/none/more: no such folder"),
    ("base/none", "base/none: no such folder, nor is it to be had from the Hub"),
])
def test_what_can_be_no_model_is_said_in_a_line(tmp_path, base, monkeypatch, path, message):
    monkeypatch.chdir(tmp_path)
    gguf_files.write("x.gguf")
    (tmp_path / "killed").mkdir()
    (tmp_path / "killed" / "started.json").write_text("{}")
    (tmp_path / "killed" / "ref_logps.pt").touch()
    with pytest.raises(click.UsageError) as refusal:
        load.load_policy(path, "cpu")
    assert refusal.value.message == message


def test_of_weights_at_a_folder_that_is_not_there_the_folder_is_named(tmp_path, base):
    weights = shutil.copy(tmp_path / "base" / "model.safetensors", tmp_path / "w.safetensors")
    with pytest.raises(click.UsageError, match=f"^{weights}@nosuch: nosuch: no model folder, nor to be had"):
        load.load_policy(f"{weights}@nosuch", "cpu")


def test_an_encoder_is_no_policy_of_weights_either(tmp_path, base):
    shutil.copy(tmp_path / "base" / "model.safetensors", tmp_path / "w.safetensors")
    config = transformers.BertConfig(vocab_size=300, hidden_size=32, num_hidden_layers=1, num_attention_heads=2)
    transformers.BertForMaskedLM(config).save_pretrained(tmp_path / "bert")
    with pytest.raises(click.UsageError, match="not a causal language model but a BertForMaskedLM"):
        load.load_policy(f"{tmp_path / 'w.safetensors'}@{tmp_path / 'bert'}", "cpu")
