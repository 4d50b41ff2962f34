"""Heads of reward models: computed in float32, and read as those who saved them read them."""

import json

import click
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from al_train_rm import start
from alignlib.models import heads, load
from alignlib.models.policy import RewardModel
from helpers import tiny
from helpers.commands import lines, log, one_line, pairs, read, run

pytestmark = pytest.mark.slow

EXAMPLES = [tiny.example(9, 4, 0, 7), tiny.example(3, 2, 12, 5)]


def edit(folder, **changes) -> None:
    """Change config.json; None leaves a name out."""
    file = folder / "config.json"
    config = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({name: value for name, value in config.items() if value is not None}))


def scores(model: RewardModel) -> torch.Tensor:
    with torch.no_grad():
        return model.scores(model.pack(EXAMPLES))


def last_states(model: torch.nn.Module) -> torch.Tensor:
    """What a head reads of every text of EXAMPLES, each a row of its own: [E, K, H]."""
    with torch.no_grad():
        rows = [model.base_model(torch.tensor([example.prompt + row])).last_hidden_state[0, -1]
                for example in EXAMPLES for row in example.completions]
    return torch.stack(rows).view(2, 3, -1)


# -- in float32 ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_in_bf16_answers_do_not_tie_by_the_head_s_rounding(tmp_path):
    """Scores of some 90, of which bf16 has every half; al-args reads what al-score reads."""
    model = tiny.classifier("llama", reads_eos=False)
    model.score.weight.data = 8 + torch.rand(1, 32) / 50
    reward, policy = tiny.save(model, tmp_path / "rm"), tiny.save(tiny.causal("llama", 1), tmp_path / "lm")
    prompts = lines(*({"prompt": text} for text in ("the", "an in", "er the a", "a the er in")))
    guided = run("al-args", policy, reward, "-m", 6, "-n", 30, "--method", "stochastic", "--weight", 0.001, "--ids",
                 "--temperature", 3, "--rm-dtype", "bf16", stdin=prompts)
    assert guided.returncode == 0, guided.stderr
    scored = run("al-score", reward, "--dtype", "bf16", stdin=guided.stdout)
    plain = run("al-score", reward, "--dtype", "fp32", stdin=guided.stdout)
    by_guide, by_score, exact = ([value for record in read(done.stdout) for value in record["rewards"]]
                                 for done in (guided, scored, plain))
    answers = {(record["prompt"], tuple(ids)) for record in read(guided.stdout) for ids in record["completion_ids"]}
    assert len(set(by_score)) == len(answers) > 100
    assert len(set(torch.tensor(by_score).bfloat16().tolist())) < len(answers) - 5  # such a head would let them tie
    size = max(map(abs, exact))
    assert by_score == pytest.approx(exact, abs=0.03 * size) and by_guide == pytest.approx(by_score, abs=0.03 * size)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_head_s_product_is_that_of_its_input_in_float32(dtype):
    model = tiny.classifier("llama").to(dtype)
    weight = model.score.weight
    reward, states = RewardModel(model, tiny.tokenizer()), torch.randn(6, 32).to(dtype)
    assert model.score.weight is weight and list(model.state_dict()) == list(tiny.classifier("llama").state_dict())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = reward.head(states)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, states.float() @ weight.float().T, rtol=1e-6, atol=1e-6)


def test_training_under_autocast_asks_it_in_float32_too(tmp_path):
    reward = start.new_reward(tiny.save(tiny.causal("llama"), tmp_path), None, "cpu", "bf16")
    read, logits = [], []
    reward.core.score.register_forward_hook(lambda layer, given, out: read.append(given[0]) or logits.append(out))
    reward.scores(reward.pack(EXAMPLES)).sum().backward()
    torch.testing.assert_close(logits[0], read[0].float() @ reward.core.score.weight.T, rtol=1e-6, atol=1e-6)
    assert reward.core.score.weight.grad.dtype == torch.float32


@pytest.mark.slow
def test_under_zero_its_weights_may_be_bf16_and_in_parts(tmp_path):
    """Stage 3 deals them out; what a head says is the same, and none of bf16's numbers."""
    folder, _ = trl(tmp_path / "trl", "llama")
    said = []
    for stage in (2, 3):
        done = run("al-train-rm", folder, "-o", tmp_path / f"rm-{stage}", "--zero", stage, "--dtype", "bf16", "--steps",
                   2, "--batch-size", 4, "--lr", 1e-3, stdin=lines(*pairs(8)))
        assert done.returncode == 0, done.stderr
        said.append([entry[name] for entry in log(tmp_path / f"rm-{stage}")
                     for name in ("loss", "best_score", "worst_score")])
        saved = load_file(tmp_path / f"rm-{stage}" / "model.safetensors")["score.weight"]
        assert saved.dtype == torch.float32 and torch.equal(saved, saved.bfloat16().float())  # kept as the folder's are
    assert said[0] == pytest.approx(said[1], rel=1e-4)
    sums = torch.tensor(said[0]) * 4  # over four examples
    assert (sums != sums.bfloat16()).all()


@pytest.mark.parametrize("family", ["Bert", "Roberta", "DistilBert", "Electra", "ModernBert"])
def test_encoders_heads_too(family):
    shape = dict(vocab_size=64, num_labels=3, hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
                 intermediate_size=48, max_position_embeddings=40, pad_token_id=0)
    if family == "DistilBert":
        shape = dict(vocab_size=64, num_labels=3, dim=32, n_layers=1, n_heads=2, hidden_dim=48)
    if family == "ModernBert":
        shape |= dict(bos_token_id=1, eos_token_id=2, cls_token_id=1, sep_token_id=2)
    config = getattr(transformers, f"{family}Config")(**shape)
    model = transformers.AutoModelForSequenceClassification.from_config(config, dtype=torch.bfloat16).eval()
    heads.compute_in_float32(model)
    found = [layer for layer in model.modules() if isinstance(layer, heads.Float32Linear)]
    assert [layer.out_features for layer in found] == [3]
    assert model(torch.tensor([[1, 5, 6, 2]])).logits.dtype == torch.float32


# -- without num_labels ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", [1, 3])
@pytest.mark.parametrize("form", ["safetensors", "bin", "parts"])
def test_a_head_s_shape_says_how_many_labels_it_has(tmp_path, labels, form):
    model = tiny.classifier("qwen2", labels)
    tiny.save(model, tmp_path)
    edit(tmp_path, id2label=None, label2id=None)
    if form == "bin":
        (tmp_path / "model.safetensors").unlink()
        torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    if form == "parts":
        (tmp_path / "model.safetensors").unlink()
        model.config.num_labels = labels
        model.save_pretrained(tmp_path, max_shard_size="20KB")
        edit(tmp_path, id2label=None, label2id=None)
        assert (tmp_path / "model.safetensors.index.json").exists()
    loaded = load.load_reward(str(tmp_path), "cpu", "fp32").core
    assert loaded.config.num_labels == labels
    torch.testing.assert_close(loaded.state_dict(), model.state_dict(), rtol=0, atol=0)


def test_what_a_configuration_says_of_its_labels_must_be_so(tmp_path):
    tiny.save(tiny.classifier("llama", 3), tmp_path)
    edit(tmp_path, id2label={"0": "bad", "1": "good"}, label2id={"bad": 0, "good": 1})
    with pytest.raises(click.UsageError, match=r"score.weight is \[3, 32\], the configuration wants \[2, 32\]"):
        load.load_reward(str(tmp_path), "cpu")


# -- DeepSpeed-Chat ----------------------------------------------------------------------------------------------


def deepspeed_chat(folder, family, body, change=lambda state: None):
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
    folder, inner = deepspeed_chat(tmp_path / "rm", family, body)
    assert load.is_classifier(folder)
    loaded = load.load_reward(folder, "cpu", "fp32")
    torch.testing.assert_close(scores(loaded), scores(RewardModel(inner, tiny.tokenizer())), rtol=1e-6, atol=1e-6)
    assert scores(loaded).std() > 0.1
    with pytest.raises(click.UsageError, match=r"a reward model \(its head is v_head\); a policy is needed"):
        load.load_policy(folder)


@pytest.mark.parametrize("family", ["opt", "gpt_neox"])
@pytest.mark.slow
def test_it_guides_as_the_model_itself_does(family, tmp_path):
    """al-args: the same texts and rewards."""
    folder, inner = deepspeed_chat(tmp_path / "rm", family, "rwtransformer.")
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

    folder, inner = deepspeed_chat(tmp_path / "rm", "gpt_neox", "rwtransformer.", old)
    loaded = load.load_reward(folder, "cpu", "fp32")
    torch.testing.assert_close(loaded.core.state_dict(), inner.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("change, named", [
    (lambda state: state.pop("rwtransformer.layers.1.mlp.up_proj.weight"),
     "lacks 1 weights, model.layers.1.mlp.up_proj.weight"),
    (lambda state: state.update({"rwtransformer.extra.weight": torch.ones(1)}),
     "has 1 weights that a LlamaForSequenceClassification has no place for, extra.weight"),
])
def test_what_does_not_fit_is_named(change, named, tmp_path):
    folder, _ = deepspeed_chat(tmp_path / "rm", "llama", "rwtransformer.", change)
    with pytest.raises(click.UsageError, match=f"the checkpoint {named} the first"):
        load.load_reward(folder, "cpu", "fp32")


# -- GPT-J, from DeepSpeed-Chat and from trlx's example -----------------------------------------------------------


def gptj(folder, body, form="beside"):
    """A tiny GPT-J as a reward model of theirs, fp16 and with the masks of older releases; what loads it, and it.

    form: "beside" the configuration of a language model; "alone", with that in a folder of its own
    """
    shape = dict(vocab_size=tiny.VOCABULARY, n_positions=tiny.CONTEXT, n_embd=32, n_layer=2, n_head=4, rotary_dim=4,
                 initializer_range=0.3, bos_token_id=265, eos_token_id=265)
    torch.manual_seed(0)
    inner = transformers.GPTJForSequenceClassification(transformers.GPTJConfig(**shape, num_labels=1)).eval()
    for weight in inner.parameters():
        weight.data = weight.data.half().float()
    state = {name.replace("transformer.", body, 1): weight.half() for name, weight in inner.state_dict().items()}
    state["v_head.weight"] = state.pop("score.weight")
    for layer in range(2):
        state |= {f"{body}h.{layer}.attn.bias": torch.ones(1, 1, 8, 8, dtype=torch.uint8),
                  f"{body}h.{layer}.attn.masked_bias": torch.tensor(-1e9)}
    base = folder / "base"
    tiny.save(transformers.GPTJForCausalLM(transformers.GPTJConfig(**shape)), base)
    file = (base if form == "beside" else folder) / "pytorch_model.bin"
    if form == "beside":
        (base / "model.safetensors").unlink()
    torch.save(state, file)
    return str(base) if form == "beside" else f"{file}@{base}", inner


@pytest.mark.parametrize("body, form", [("rwtransformer.", "beside"), ("rwtransformer.", "alone"),
                                        ("transformer.", "beside"), ("transformer.", "alone")])
def test_reward_models_of_a_gpt_j(tmp_path, body, form):
    """At each text's last token; a policy they are not."""
    model, inner = gptj(tmp_path, body, form)
    loaded = load.load_reward(model, "cpu", "fp32")
    with torch.no_grad():
        wanted = last_states(inner) @ inner.score.weight.T
    torch.testing.assert_close(scores(loaded), wanted[..., 0], rtol=1e-5, atol=1e-5)
    with pytest.raises(click.UsageError, match=r"a reward model \(its head is v_head\); a policy is needed"):
        load.load_policy(model)


@pytest.mark.slow
def test_the_commands_take_carperai_s(tmp_path):
    """al-score reads it as its makers do: at the last token of a text that goes on from the prompt."""
    model, inner = gptj(tmp_path, "transformer.", "alone")
    done = run("al-score", model, "--dtype", "fp32", stdin=lines({"prompt": "the in", "completions": [" an", " er"]}))
    assert done.returncode == 0, done.stderr
    words = tiny.tokenizer()
    with torch.no_grad():
        wanted = [inner.score(inner.transformer(torch.tensor([words(f"the in{text}").input_ids]))[0][0, -1]).item()
                  for text in (" an", " er")]
    assert read(done.stdout)[0]["rewards"] == pytest.approx(wanted, abs=1e-4)
    done = run("al-train-rm", model, "-o", tmp_path / "rm", "--steps", 1, stdin=lines(*pairs(2)))
    assert done.returncode == 0, done.stderr


# -- trl ---------------------------------------------------------------------------------------------------------


def trl(folder, family, prefix="", form="safetensors", **changes):
    """A tiny model as trl's AutoModelForCausalLMWithValueHead saves it; the scores of EXAMPLES."""
    model = tiny.causal(family, **changes)
    tiny.save(model, folder)
    torch.manual_seed(7)
    state = {f"{prefix}{name}": weight.clone() for name, weight in model.state_dict().items()}
    if model.config.tie_word_embeddings:
        state.pop(f"{prefix}lm_head.weight", None)
    weight, bias = torch.randn(1, model.get_input_embeddings().embedding_dim), torch.tensor([3.5])
    state |= {"v_head.summary.weight": weight, "v_head.summary.bias": bias}
    (folder / "model.safetensors").unlink()
    if form == "safetensors":
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    else:
        torch.save(state, folder / "pytorch_model.bin")
    return str(folder), (last_states(model) @ weight.T + bias)[..., 0]


@pytest.mark.parametrize("family, changes", [("llama", {}), ("llama", {"tie_word_embeddings": True}), ("gpt2", {}),
                                             ("opt", {}), ("gpt_neox", {}), ("gemma2", {})])
@pytest.mark.parametrize("prefix, form", [("", "safetensors"), ("pretrained_model.", "bin")])
def test_value_heads_of_trl(tmp_path, family, changes, prefix, form):
    folder, wanted = trl(tmp_path, family, prefix, form, **changes)
    assert load.is_classifier(folder)
    torch.testing.assert_close(scores(load.load_reward(folder, "cpu", "fp32")), wanted, rtol=1e-4, atol=1e-4)


def test_a_value_head_is_no_policy_s(tmp_path):
    folder, _ = trl(tmp_path / "trl", "llama")
    for command in (("al-sample", folder), ("al-sft", folder, "-o", tmp_path / "new")):
        done = run(*command, stdin=lines({"prompt": "the", "chosen": " an"}))
        assert done.returncode == 2
        assert "trl: a reward model (its head is v_head.summary); a policy is needed here" in one_line(done.stderr)


@pytest.mark.slow
def test_a_value_head_is_a_start_for_a_reward_model(tmp_path):
    """Its weights are where training begins; of its bias no ranking depends, and a folder has no place for it."""
    folder, wanted = trl(tmp_path / "trl", "llama", "pretrained_model.", "bin")
    reward = start.new_reward(folder, None, "cpu", "fp32")
    torch.testing.assert_close(scores(reward).detach() + 3.5, wanted, rtol=1e-4, atol=1e-4)
    done = run("al-train-rm", folder, "-o", tmp_path / "rm", "--steps", 1, "--batch-size", 4, "--lr", 1e-9,
               stdin=lines(*pairs(4)))
    assert done.returncode == 0, done.stderr
    again = load.load_reward(str(tmp_path / "rm"), "cpu", "fp32")
    assert load_file(tmp_path / "rm" / "model.safetensors").keys() == again.core.state_dict().keys()
    torch.testing.assert_close(scores(again) + 3.5, wanted, rtol=1e-3, atol=1e-3)


def test_a_bias_is_kept_where_the_model_is(tmp_path):
    """al-train-ppo's critic: transformers' folder has no place for it, ours reads it there."""
    folder, wanted = trl(tmp_path / "trl", "llama")
    first = load.load_reward(folder, "cpu", "fp32")
    load.save(first, tmp_path / "ours")
    again = load.load_reward(str(tmp_path / "ours"), "cpu", "fp32")
    torch.testing.assert_close(again.core.state_dict(), first.core.state_dict(), rtol=0, atol=0)
    torch.testing.assert_close(scores(again), wanted, rtol=1e-4, atol=1e-4)


# -- OpenRLHF ------------------------------------------------------------------------------------------------------


def openrlhf(folder, prefix, architecture, **said):
    """A tiny model as OpenRLHF saves it, under the name of a class of its own; the model itself."""
    model = tiny.classifier("llama")
    tiny.save(model, folder)
    state = {name.replace("score", prefix): weight for name, weight in model.state_dict().items()}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    edit(folder, architectures=[architecture], id2label=None, label2id=None, **said)
    return str(folder), model


@pytest.mark.parametrize("prefix, architecture, said", [
    ("score", "RewardModel", {"value_head_prefix": "score", "normalize_reward": False, "mean": 0.5, "std": 2.0}),
    ("value_head", "LLMForSequenceRegression", {"value_head_prefix": "value_head"}),
    ("value_head", "LlamaForSequenceClassification", {"value_head_prefix": "value_head"}),
    ("score", "LlamaForCausalLM", {}),
    ("score", "LlamaModel", {"normalize_reward": True}),
])
def test_heads_of_openrlhf(tmp_path, prefix, architecture, said):
    folder, model = openrlhf(tmp_path, prefix, architecture, **said)
    loaded = load.load_reward(folder, "cpu", "fp32")
    torch.testing.assert_close(loaded.core.state_dict(), model.state_dict(), rtol=0, atol=0)
    with pytest.raises(click.UsageError, match="a reward model .*; a policy is needed here"):
        load.load_policy(folder)


@pytest.mark.parametrize("prefix", ["score", "value_head"])
@pytest.mark.slow
def test_openrlhf_s_mean_and_deviation(tmp_path, prefix):
    """Where its configuration says that rewards are normalized; what is trained from it says so no more."""
    folder, model = openrlhf(tmp_path / "theirs", prefix, "RewardModel", value_head_prefix=prefix,
                             normalize_reward=True, mean=1.5, std=0.25)
    plain = scores(RewardModel(model, tiny.tokenizer()))
    wanted = (plain - 1.5) / 0.25
    torch.testing.assert_close(scores(load.load_reward(folder, "cpu", "fp32")), wanted, rtol=1e-5, atol=1e-5)
    done = run("al-train-rm", folder, "-o", tmp_path / "rm", "--steps", 1, "--batch-size", 4, "--lr", 1e-9,
               stdin=lines(*pairs(4)))
    assert done.returncode == 0, done.stderr
    again = scores(load.load_reward(str(tmp_path / "rm"), "cpu", "fp32"))
    torch.testing.assert_close(again - again.mean(), wanted - wanted.mean(), rtol=1e-3, atol=1e-3)


def test_al_score_asks_them(tmp_path):
    records = lines({"prompt": "the", "completions": [" an", " in the", ""]})
    theirs, model = openrlhf(tmp_path / "theirs", "value_head", "RewardModel", value_head_prefix="value_head")
    made = [run("al-score", folder, "--dtype", "fp32", stdin=records) for folder in
            (theirs, tiny.save(model, tmp_path / "plain"))]
    assert made[0].returncode == 0, made[0].stderr
    assert made[0].stdout == made[1].stdout
    done = run("al-label-ai", "--judge-rm", theirs, stdin=lines(*(
        {"prompt": pair["prompt"], "completions": [pair["chosen"], pair["rejected"]]} for pair in pairs(3))))
    assert done.returncode == 0 and len(read(done.stdout)) == 3, done.stderr
