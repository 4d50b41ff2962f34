"""Adapters in peft's folders: what they make of their bases, by peft's own reading; and what is no such model."""

import json
import shutil
import subprocess
from pathlib import Path

import click
import pytest
import torch
from safetensors.torch import load_file, save_file

from alignlib.models import load, precision, tokenizer_files
from helpers import adapted, tiny
from helpers.commands import folders, lines, one_line, rewarded, run
from helpers.plain import plain_logps
from helpers.process import command, environment

pytestmark = pytest.mark.slow

EXAMPLE = tiny.example(9, 4, 7)


def same_policy(path, example=EXAMPLE, **settings):
    """Our log-probabilities are those of peft's model."""
    policy = load.load_policy(path, "cpu", "fp32", **settings)
    with torch.no_grad():
        wanted = plain_logps(adapted.as_policy(path), example)
        torch.testing.assert_close(policy.logps(policy.pack([example]))[0], wanted, rtol=1e-5, atol=1e-5)
    return policy


def same_reward(path):
    reward = load.load_reward(path, "cpu", "fp32")
    oracle = adapted.as_reward(path, reward.core.config.num_labels)
    with torch.no_grad():
        ids = [torch.tensor([EXAMPLE.prompt + row]) for row in EXAMPLE.completions]
        wanted = torch.cat([oracle(input_ids=row, attention_mask=torch.ones_like(row)).logits for row in ids])
        torch.testing.assert_close(reward.logits(reward.pack([EXAMPLE])), wanted, rtol=1e-5, atol=1e-5)
    return reward


# -- policies -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt"])
def test_a_policy_s_adapter_is_what_peft_makes_of_it(tmp_path, family):
    path = adapted.adapter(tmp_path, adapted.base(tmp_path, family))
    policy = same_policy(path, train=True)
    assert all(weight.requires_grad for weight in policy.core.parameters())
    with torch.no_grad():
        bare = plain_logps(load.load_policy(load.adapter_base(path)).core, EXAMPLE)
        assert (policy.logps(policy.pack([EXAMPLE]))[0] - bare).abs().min() > 0.1
    same_policy(path, train=True, go_on=True)


@pytest.mark.parametrize("settings", [{"use_rslora": True, "lora_dropout": 0.3}, {"use_dora": True},
                                      {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"v_proj": 32}},
                                      {"target_modules": ["q_proj", "lm_head"]},
                                      {"modules_to_save": ["embed_tokens", "lm_head"]},
                                      {"modules_to_save": ["embed_tokens"]}])
@pytest.mark.parametrize("tied", [False, True])
def test_any_lora_will_do(tmp_path, settings, tied):
    """Where one of tied embeddings and head is changed, they are tied no more."""
    same_policy(adapted.adapter(tmp_path, adapted.base(tmp_path, tie_word_embeddings=tied), **settings))


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("trained", [None, ["embed_tokens", "lm_head"]])
def test_a_vocabulary_of_its_own(tmp_path, tied, trained):
    """Tokens were added, the embeddings resized and saved with the adapter; the base has fewer rows."""
    from transformers import AutoModelForCausalLM

    words = tiny.chat_tokenizer()
    base = adapted.base(tmp_path, tie_word_embeddings=tied)
    model = AutoModelForCausalLM.from_pretrained(base)
    model.resize_token_embeddings(len(words))
    path = adapted.adapter(tmp_path, base, model=model, words=words, modules_to_save=trained)
    example = tiny.example(9, 4)
    example.completions[0] += [tiny.TURN_START, tiny.TURN_END]
    policy = same_policy(path, example)
    rows = policy.core.get_output_embeddings().weight.shape[0]
    assert rows == policy.core.config.vocab_size == load.load_config(path).vocab_size == len(words)


def test_words_and_template_are_its_own_where_it_has_them(tmp_path):
    base = tiny.save(tiny.causal("llama"), tmp_path / "base", tiny.chat_tokenizer())
    path = adapted.adapter(tmp_path, base)
    assert tokenizer_files.load_tokenizer(path).chat_template == tiny.CHATML
    (Path(path) / "chat_template.jinja").write_text("{{ mine }}")
    assert tokenizer_files.load_tokenizer(path).chat_template == "{{ mine }}"
    bare = adapted.adapter(tmp_path, base, words=tiny.tokenizer(), name="bare")
    words = tokenizer_files.load_tokenizer(bare)
    assert words.chat_template == tiny.CHATML and len(words) == tiny.VOCABULARY
    own = adapted.adapter(tmp_path, base, words=tiny.chat_tokenizer("{{ other }}"), name="own")
    assert tokenizer_files.load_tokenizer(own).chat_template == "{{ other }}"


# -- reward models ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt"])
def test_a_reward_model_s_adapter_over_a_policy(tmp_path, family):
    """As peft and trl write it: task type SEQ_CLS, the score in modules_to_save."""
    path = adapted.adapter(tmp_path, adapted.base(tmp_path, family), kind="SEQ_CLS")
    assert load.is_classifier(path)
    assert same_reward(path).core.config.num_labels == 1


@pytest.mark.parametrize("kind", ["SEQ_CLS", None])
def test_a_reward_model_s_adapter_over_a_reward_model(tmp_path, kind):
    base = tiny.save(tiny.classifier("llama"), tmp_path / "base")
    path = adapted.adapter(tmp_path, base, kind="SEQ_CLS")
    if not kind:
        config = Path(path) / "adapter_config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | {"task_type": None,
                                                                       "modules_to_save": ["score"]}))
        assert load.load_reward(path, "cpu").core.config.num_labels == 1
    else:
        same_reward(path)


def test_a_classifier_s_adapter_says_how_many_classes(tmp_path):
    path = adapted.adapter(tmp_path, adapted.base(tmp_path), kind="SEQ_CLS", labels=3)
    assert same_reward(path).core.config.num_labels == 3
    (Path(path) / "reward_model.json").write_text('{"id2label": {"0": "bad", "1": "fair", "2": "good"}, '
                                                  '"reads_eos": true, "torch_dtype": "no"}')
    for config in (load.load_config(path), load.load_reward(path, "cpu").core.config):
        assert config.id2label == {0: "bad", 1: "fair", 2: "good"} and config.label2id["good"] == 2
        assert config.reads_eos is True and config.dtype != "no"
    (Path(path) / "reward_model.json").write_text("[]")
    with pytest.raises(click.UsageError, match="reward_model.json: expected an object, got an array"):
        load.load_reward(path, "cpu")


# -- every command ------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("words", [
    ("al-sample", "POLICY", "-m", 2), ("al-score", "POLICY", "--logps"), ("al-score", "REWARD"),
    ("al-args", "POLICY", "REWARD", "-m", 2), ("al-label-ai", "--judge-rm", "REWARD"),
    ("al-train-exo", "POLICY", "-o", "OUT", "--steps", 1, "--ref", "POLICY"),
    ("al-train-alt", "POLICY", "-o", "OUT", "--steps", 1, "--ref", "POLICY", "--quantiles", 2, "--tags", "Good.",
     "--tags", "Bad."),
    ("al-train-ppo", "POLICY", "-o", "OUT", "--steps", 1, "--ref", "POLICY", "--reward", "length", "-n", 2, "-m", 2),
    ("al-train-ppo", "POLICY", "-o", "OUT", "--steps", 1, "--reward", "REWARD", "-n", 2, "-m", 2, "--critic", "REWARD"),
    ("al-train-rm", "REWARD", "-o", "OUT", "--steps", 1, "--save-adapter"),
])
def test_commands_take_adapters_as_they_take_models(tmp_path, words):
    names = {"POLICY": adapted.adapter(tmp_path, folders().policy, name="p"),
             "REWARD": adapted.adapter(tmp_path, folders().policy, kind="SEQ_CLS", name="r"), "OUT": tmp_path / "out"}
    done = run(words[0], *(names.get(word, word) for word in words[1:]), stdin=lines(*rewarded(4, 2)))
    assert done.returncode == 0 and done.stdout.count("\n") >= 1, done.stderr


def test_an_adapter_is_no_encoder(tmp_path):
    path = adapted.adapter(tmp_path, folders().policy)
    done = run("al-eval", "text", "--coherence", path, stdin=lines(*rewarded(2, 2)))
    assert done.returncode == 2 and f"{path}: an adapter; texts are made vectors by a whole encoder" in done.stderr


# -- what does not do ---------------------------------------------------------------------------------------------


def test_each_kind_is_refused_for_the_other(tmp_path):
    base = adapted.base(tmp_path)
    policy = adapted.adapter(tmp_path, base, name="p")
    reward = adapted.adapter(tmp_path, base, kind="SEQ_CLS", name="r")
    with pytest.raises(click.UsageError, match=r"r: a reward model \(an adapter of one\); a policy is needed here"):
        load.load_policy(reward, "cpu")
    with pytest.raises(click.UsageError, match="p: a policy or a bare model; a reward model"):
        load.load_reward(policy, "cpu")
    over = adapted.adapter(tmp_path, tiny.save(tiny.classifier("llama"), tmp_path / "rm"), kind="SEQ_CLS", name="rp")
    config = Path(over) / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"task_type": "CAUSAL_LM"}))
    with pytest.raises(click.UsageError, match="rp: a reward model"):
        load.load_policy(over, "cpu")


@pytest.mark.slow
@pytest.mark.parametrize("words", [("al-sample", "ADAPTER", "-m", 2), ("al-score", "ADAPTER", "--logps"),
                                     ("al-sft", "ADAPTER", "-o", "OUT"), ("al-label-ai", "--judge", "ADAPTER"),
                                     ("al-args", "ADAPTER", "RM", "-m", 2)])
def test_commands_refuse_a_reward_model_s_adapter_for_a_policy(tmp_path, words):
    names = {"ADAPTER": adapted.adapter(tmp_path, adapted.base(tmp_path), kind="SEQ_CLS"), "OUT": tmp_path / "out"}
    names["RM"] = names["ADAPTER"]
    done = run(words[0], *(names.get(word, word) for word in words[1:]), stdin=lines({"prompt": "a"}))
    assert done.returncode == 2 and "an adapter of one); a policy is needed here" in one_line(done.stderr)


def with_config(path, **changes):
    file = Path(path) / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    return path


@pytest.mark.parametrize(("base", "says"), [
    ("not/here", "no model folder, nor to be had from the Hub (HF_HUB_OFFLINE=1)"),
    ("gone", "no model folder, nor to be had from the Hub (HF_HUB_OFFLINE=1)"),
    ("", None),
])
def test_a_base_that_is_not_there_is_named_with_its_cure(tmp_path, monkeypatch, base, says):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    path = with_config(adapted.adapter(tmp_path, adapted.base(tmp_path)), base_model_name_or_path=base)
    for loader in (load.load_policy, load.load_config, load.load_reward):
        with pytest.raises(click.UsageError) as failure:
            loader(path)
        message = failure.value.message
        assert "\n" not in message and message.startswith(f"{path}: an adapter ") and "adapter_config.json" in message
        assert f"base is not to be had: {base}: {says}" in message if says else "names no base model" in message


def test_a_relative_base_is_looked_for_from_here(tmp_path, monkeypatch):
    adapted.base(tmp_path)
    path = with_config(adapted.adapter(tmp_path, str(tmp_path / "base")), base_model_name_or_path="base")
    monkeypatch.chdir(tmp_path)
    same_policy(path)


def test_an_adapter_of_an_adapter_is_refused(tmp_path):
    first = adapted.adapter(tmp_path, adapted.base(tmp_path))
    path = with_config(adapted.adapter(tmp_path, str(tmp_path / "base"), name="second"), base_model_name_or_path=first)
    with pytest.raises(click.UsageError, match=f"second: an adapter whose base is not to be had: {first}: an adapter"):
        load.load_policy(path)


@pytest.mark.parametrize(("content", "message"), [
    ("{", "/adapter_config.json: broken JSON"), ("[]", "/adapter_config.json: expected an object, got an array"),
    ('{"peft_type": "MAGIC"}', '/adapter_config.json: peft_type: "MAGIC", of which peft'),
    ('{"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 3, "base_model_name_or_path": "BASE"}',
     ": an adapter by PROMPT_TUNING, which is no change of weights"),
    ('{"peft_type": "LORA", "task_type": "TOKEN_CLS", "base_model_name_or_path": "BASE"}',
     ": an adapter for TOKEN_CLS: neither a policy's nor a reward model's"),
])
def test_a_configuration_that_will_not_do(tmp_path, content, message):
    path = adapted.adapter(tmp_path, adapted.base(tmp_path))
    (Path(path) / "adapter_config.json").write_text(content.replace("BASE", str(tmp_path / "base")))
    with pytest.raises(click.UsageError, match=f"adapter{message}"):
        load.load_policy(path, "cpu")


def test_an_adapter_of_another_model_is_named(tmp_path):
    path = adapted.adapter(tmp_path, adapted.base(tmp_path))
    tiny.save(tiny.causal("llama", hidden_size=16), tmp_path / "narrow")
    with pytest.raises(click.UsageError, match="adapter: the adapter does not fit: size mismatch for .*q_proj"):
        load.load_policy(with_config(path, base_model_name_or_path=str(tmp_path / "narrow")), "cpu")


def test_an_adapter_of_another_kind_is_called_so(tmp_path):
    path = adapted.adapter(tmp_path, adapted.base(tmp_path))
    with pytest.raises(click.UsageError, match="adapter: an adapter of the kind XLORA, which does not fit: "):
        load.load_policy(with_config(path, peft_type="XLORA"), "cpu")


def test_an_adapter_that_is_cut_or_has_more_is_named(tmp_path):
    path = adapted.adapter(tmp_path, adapted.base(tmp_path))
    file = f"{path}/adapter_model.safetensors"
    weights = load_file(file)
    name = next(name for name in weights if "layers.1" in name)
    save_file({other: weights[other] for other in weights if other != name}, file)
    with pytest.raises(click.UsageError, match="adapter: the adapter lacks base_model.model.model.layers.1."):
        load.load_policy(path, "cpu")
    save_file(weights | {"base_model.model.score.weight": torch.ones(1, 32)}, file)
    with pytest.raises(click.UsageError, match="the adapter has base_model.model.score.weight, unlike a Llama"):
        load.load_policy(path, "cpu")


def test_an_adapter_without_weights_is_named(tmp_path):
    path = adapted.adapter(tmp_path, adapted.base(tmp_path))
    (Path(path) / "adapter_model.safetensors").unlink()
    with pytest.raises(click.UsageError, match="adapter: an adapter without weights"):
        load.load_policy(path, "cpu")


@pytest.mark.long
@pytest.mark.slow
def test_a_name_on_the_hub_is_an_adapter_too(tmp_path):
    """Of what is in the cache, without a network."""
    path = adapted.adapter(tmp_path, folders().policy)
    place = tmp_path / "cache" / "models--me--adapter"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text("abc")
    shutil.copytree(path, place / "snapshots" / "abc")
    record = lines({"prompt": "a", "completions": ["b"]})
    env = environment() | {"HF_HUB_CACHE": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"}
    found = [subprocess.run(command("al-score", name, "--logps"), input=record, capture_output=True, env=env)
             for name in ("me/adapter", path, "me/other")]
    assert found[0].stdout == found[1].stdout != b""
    assert found[2].returncode == 2 and "me/other: no model folder" in one_line(found[2].stderr.decode())


def test_without_bitsandbytes_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(precision.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(click.UsageError, match=r"--load-4bit needs bitsandbytes: pip install 'align-tools\[4bit\]'"):
        precision.must_have_bitsandbytes()
