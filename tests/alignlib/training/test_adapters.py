"""--lora: what trains, what a checkpoint holds of it, and the model or the adapter that is saved."""

import importlib.util
import json

import click
import pytest
import torch

from al_sft import Likelihood
from al_train_rm.ranking import Ranking
from al_train_rm.start import new_reward
from alignlib.models import checkpoint, load
from alignlib.models.policy import Policy, RewardModel
from alignlib.training import loop
from alignlib.training.adapters import adapter_to_train, add_adapters, trained_weights
from alignlib.training.run_folder import Run
from helpers import adapted, tiny
from helpers.adapted import EXAMPLE, logps, to_train
from helpers.commands import weights
from helpers.plain import gradients, plain_logps, same_gradients
from helpers.training import examples, fit, same

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "opt"])
def test_adapters_are_saved_merged(family, tmp_path):
    policy, made = fit(tmp_path / "run", family=family, lora=3, steps=3, save_every=2, keep=0)
    trained = [name for name, weight in policy.model.named_parameters() if weight.requires_grad]
    assert trained and all("lora_" in name for name in trained)
    example = tiny.example(9, 4, 7)
    loaded = load.load_policy(str(made.folder), "cpu", "fp32")
    with torch.no_grad():
        merged, adapted = (model.logps(model.pack([example])) for model in (loaded, policy))
        given = Policy(tiny.causal(family), tiny.tokenizer())
        torch.testing.assert_close(merged, adapted, rtol=1e-5, atol=0)
        assert (adapted - given.logps(given.pack([example]))).abs().min() > 1e-3
    assert load.load_policy(str(made.folder / "checkpoint-2")).shared


def test_a_reward_models_head_is_trained_beside_its_adapter(tmp_path):
    reward = RewardModel(tiny.classifier("llama"), tiny.tokenizer())
    before = reward.core.score.weight.detach().clone()
    data = examples(8, 5, 3, rewards=[1.0, 0.0])
    _, made = fit(tmp_path / "run", model=reward, data=data, objective=Ranking(), lora=2, steps=4)
    loaded = load.load_reward(str(made.folder), "cpu", "fp32")
    assert (loaded.core.score.weight - before).abs().max() > 1e-3
    with torch.no_grad():
        same(loaded.scores(loaded.pack(data)), reward.scores(reward.pack(data)), 1e-5)


def test_without_a_rank_there_are_none():
    policy = Policy(tiny.causal("llama"), tiny.tokenizer())
    add_adapters(policy, tiny.recipe("x"))
    assert policy.model is policy.core and trained_weights(policy) == {}
    assert all(weight.requires_grad for weight in policy.model.parameters())


def test_they_start_at_nothing_the_same_for_a_seed_and_on_every_layer_but_the_head():
    def adapted(seed):
        policy = Policy(tiny.causal("llama"), tiny.tokenizer())
        add_adapters(policy, tiny.recipe("x", lora=2, seed=seed))
        return policy

    plain = Policy(tiny.causal("llama"), tiny.tokenizer())
    policy = adapted(0)
    example = tiny.example(9, 4)
    with torch.no_grad():
        same(policy.logps(policy.pack([example])), plain.logps(plain.pack([example])), 1e-6)
    weights = trained_weights(policy)
    linear = [name for name, module in plain.core.named_modules() if isinstance(module, torch.nn.Linear)]
    assert len(weights) == 2 * (len(linear) - 1) and not any("lm_head" in name for name in weights)
    assert all(weight.equal(weights[name]) for name, weight in trained_weights(adapted(0)).items())
    assert not all(weight.equal(weights[name]) for name, weight in trained_weights(adapted(1)).items())


# -- what they are made of ----------------------------------------------------------------------------------------


def test_scale_layers_and_dropout_are_as_asked():
    policy = Policy(tiny.causal("llama"), tiny.tokenizer())
    add_adapters(policy, tiny.recipe("x", lora=2, lora_alpha=6, lora_targets="q_proj, down_proj", lora_dropout=0.25))
    names = {name.split(".lora_")[0].rpartition(".")[2] for name in trained_weights(policy)}
    layer = policy.core.model.layers[0].self_attn.q_proj
    assert names == {"q_proj", "down_proj"} and layer.scaling["default"] == 3
    assert layer.lora_dropout["default"].p == 0.25 and not policy.model.training


def test_a_layer_that_is_not_there_is_named():
    policy = Policy(tiny.causal("gpt2"), tiny.tokenizer())
    with pytest.raises(click.UsageError, match="--lora-targets: 'q_proj' is no linear layer of a GPT2LMHeadModel; "
                                               "there are all-linear, or some of c_attn,c_fc,c_proj"):
        add_adapters(policy, tiny.recipe("x", lora=2, lora_targets="c_attn,q_proj"))


def test_dropout_is_for_training_steps_alone(tmp_path, monkeypatch):
    """Evaluations see the model as it will be; steps do not, once the adapter does something."""
    modes, ask = [], loop.evaluate

    def spied(model, *rest):
        figures = ask(model, *rest)
        modes.append((model.model.training, figures["loss"], ask(model, *rest)["loss"]))
        return figures

    monkeypatch.setattr(loop, "evaluate", spied)
    policy, _ = fit(tmp_path / "run", lora=2, lora_dropout=0.5, steps=3, held_out=examples(2), eval_every=1)
    assert len(modes) == 3 and all(training and first == again for training, first, again in modes)
    policy.model.train()
    assert not logps(policy).equal(logps(policy))
    policy.model.eval()
    assert logps(policy).equal(logps(policy))


def test_every_step_leaves_out_other_inputs(tmp_path):
    """All records are in each step, and none learns: what is left out is all that differs."""
    policy = to_train(adapted.adapter(tmp_path, adapted.base(tmp_path)), go_on=True)
    data = examples(2)
    _, made = fit(tmp_path / "run", model=policy, data=data, batch_size=2, lora_dropout=0.9, steps=4, lr=0.0)
    losses = [json.loads(line)["loss"] for line in (made.folder / "log.jsonl").read_text().splitlines()]
    assert len(set(losses)) == 4


def test_adapters_have_a_rate_of_their_own_beside_a_head(tmp_path):
    """At rate 0 they stay, while the head moves at --lr; and the other way about."""
    for lr, rate in ((1e-2, 0.0), (0.0, 1e-2)):
        reward = RewardModel(tiny.classifier("llama"), tiny.tokenizer())
        before = reward.core.score.weight.detach().clone()
        fit(tmp_path / f"{rate}", model=reward, data=examples(8, 5, 3, rewards=[1.0, 0.0]), objective=Ranking(), lora=2,
            steps=2, lr=lr, lora_lr=rate)
        moved = any(weight.abs().max() > 0 for name, weight in trained_weights(reward).items() if "lora_B" in name)
        assert moved == (rate > 0) and reward.core.score.weight.equal(before) == (lr == 0)


# -- what is saved ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_saved_adapter_is_peft_s_and_gives_what_was_trained(family, tmp_path):
    base = adapted.base(tmp_path, family)
    policy, made = fit(tmp_path / "run", model=to_train(base), lora=3, steps=3, save_every=2, keep=0, save_adapter=True)
    folder = str(made.folder)
    assert not (made.folder / "config.json").exists() and load.adapter_base(folder) == base
    with torch.no_grad():
        same(plain_logps(adapted.as_policy(folder), EXAMPLE), logps(policy), 1e-5)
    same(logps(to_train(folder)), logps(policy), 1e-5)
    assert (logps(to_train(base)) - logps(policy)).abs().min() > 1e-3
    assert logps(to_train(str(made.folder / "checkpoint-2"))).isfinite().all()


def test_a_saved_reward_adapter_reads_as_the_model_did(tmp_path):
    reward = new_reward(adapted.base(tmp_path), None, "cpu", "fp32")
    reward.core.config.reads_eos, reward.core.config.reward_pool = True, "mean"
    data = examples(8, 5, 3, rewards=[1.0, 0.0])
    _, made = fit(tmp_path / "run", model=reward, data=data, objective=Ranking(), lora=2, steps=4, save_adapter=True)
    loaded = load.load_reward(str(made.folder), "cpu", "fp32")
    assert loaded.pooling == "mean" and loaded.core.config.reads_eos is True
    with torch.no_grad():
        same(loaded.scores(loaded.pack(data)), reward.scores(reward.pack(data)), 1e-5)
        head = adapted.as_reward(str(made.folder)).get_base_model().score
        same(head(torch.ones(1, 32)), reward.core.score(torch.ones(1, 32)))


@pytest.mark.parametrize(("asked", "stored", "wanted"), [("auto", torch.bfloat16, torch.bfloat16),
                                                         ("auto", torch.float32, torch.float32),
                                                         ("fp32", torch.bfloat16, torch.float32),
                                                         ("fp16", torch.float32, torch.float16)])
@pytest.mark.parametrize("how", [{}, {"lora": 2}, {"lora": 2, "save_adapter": True}])
def test_what_is_saved_is_kept_in_the_base_s_type(tmp_path, asked, stored, wanted, how):
    """Checkpoints in float32, whatever that is."""
    base = tiny.save(tiny.causal("llama", tie_word_embeddings=True).to(stored), tmp_path / "base")
    policy = to_train(base)
    recipe = tiny.recipe(tmp_path / "run", steps=2, save_every=1, keep=2, save_dtype=asked, **how)
    run = Run(recipe, {"command": "test", "model": base})
    run.reads(1)
    loop.fit(policy, examples(4), Likelihood("token"), recipe, run)

    def types(folder):
        name = "adapter_model.safetensors" if recipe.save_adapter else "model.safetensors"
        return {weight.dtype for weight in checkpoint.tensors(folder / name).values()}

    assert types(tmp_path / "run") == {wanted} and types(tmp_path / "run" / "checkpoint-2") == {torch.float32}
    if not recipe.save_adapter:
        says = json.loads((tmp_path / "run" / "config.json").read_text())["dtype"]
        assert f"torch.{says}" == str(wanted)
        assert (tmp_path / "run" / "model.safetensors").stat().st_size == pytest.approx(
            tiny_size(policy, wanted), rel=0.1)
    loaded = load.load_policy(str(tmp_path / "run"), "cpu", "fp32")
    torch.testing.assert_close(logps(loaded), logps(policy), rtol=0.02, atol=0.2)


def tiny_size(policy, dtype):
    """Bytes of the plain model's weights, tied ones once."""
    return sum(weight.numel() for name, weight in policy.model.named_parameters()
               if ".lora_" not in name) * dtype.itemsize


# -- going on in one ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("save_adapter", [False, True])
def test_training_goes_on_in_the_adapter_that_model_is(tmp_path, save_adapter):
    path = adapted.adapter(tmp_path, adapted.base(tmp_path), lora_dropout=0.5)
    policy = to_train(path, go_on=True)
    before = logps(policy)
    same(before, logps(to_train(path)), 1e-5)
    _, made = fit(tmp_path / "run", model=policy, steps=3, save_adapter=save_adapter)
    assert all("lora_" in name for name in trained_weights(policy))
    after = logps(policy)
    assert (after - before).abs().min() > 1e-3 and logps(policy).equal(after)  # its own dropout is no dropout
    same(logps(to_train(str(made.folder))), after, 1e-5)
    same(logps(to_train(str(tmp_path / "base"))), logps(to_train(load.adapter_base(path))))  # the base is as it was


@pytest.mark.parametrize("save_adapter", [False, True])
def test_it_goes_on_with_a_vocabulary_of_its_own(tmp_path, save_adapter):
    from transformers import AutoModelForCausalLM

    words, base = tiny.chat_tokenizer(), adapted.base(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(base)
    model.resize_token_embeddings(len(words))
    path = adapted.adapter(tmp_path, base, model=model, words=words)
    policy, made = fit(tmp_path / "run", model=to_train(path, go_on=True), steps=2, save_adapter=save_adapter)
    loaded = to_train(str(made.folder))
    assert loaded.core.config.vocab_size == len(words) == len(loaded.tokenizer)
    same(logps(loaded), logps(policy), 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {"save_adapter": True}, {"lora_dropout": 0.5, "save_adapter": True}])
def test_a_killed_run_in_an_adapter_ends_as_the_unbroken_one(tmp_path, monkeypatch, changes):
    path = adapted.adapter(tmp_path, adapted.base(tmp_path))
    how = {"steps": 6, "save_every": 2, "batch_size": 3, "pack_tokens": 60, **changes}
    fit(tmp_path / "whole", model=to_train(path, go_on=True), **how)
    step_of = loop.train_step

    def stop_at(indices, *rest):
        if stop_at.steps == 5:
            raise KeyboardInterrupt
        stop_at.steps += 1
        return step_of(indices, *rest)

    stop_at.steps = 0
    monkeypatch.setattr(loop, "train_step", stop_at)
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "broken", model=to_train(path, go_on=True), **how)
    monkeypatch.setattr(loop, "train_step", step_of)
    _, made = fit(tmp_path / "broken", model=to_train(path, go_on=True), resume=True, **how)
    assert made.checkpoint.name == "checkpoint-4"
    assert weights(tmp_path / "broken") == weights(tmp_path / "whole")


def test_a_policy_s_adapter_is_merged_to_begin_a_reward_model(tmp_path):
    path = adapted.adapter(tmp_path, adapted.base(tmp_path))
    reward, policy = new_reward(path, None, "cpu", "fp32"), to_train(path)
    batch = policy.pack([EXAMPLE])
    with torch.no_grad():
        same(reward.hidden(batch), policy.hidden(batch), 1e-5)
    assert all(weight.requires_grad for weight in reward.core.parameters())


def test_options_that_do_not_go_together_are_refused(tmp_path):
    base = adapted.base(tmp_path)
    path, dora = adapted.adapter(tmp_path, base), adapted.adapter(tmp_path, base, name="dora", use_dora=True)
    reward = adapted.adapter(tmp_path, base, name="rm", kind="SEQ_CLS")
    for name, value in {"lora_alpha": 3, "lora_dropout": 0.1, "lora_targets": "q_proj", "lora_lr": 0.1,
                        "load_4bit": True, "save_adapter": True}.items():
        with pytest.raises(click.UsageError, match=f"--{name.replace('_', '-')} goes with --lora"):
            adapter_to_train(base, tiny.recipe("x", **{name: value}), reward=False)
    for model, wants_reward, changes, message in (
        (path, False, {"lora": 8}, f"--lora 8: {path} is an adapter of rank 4, in which training goes on"),
        (path, False, {"lora_alpha": 8}, f"--lora-alpha: {path} is an adapter, which has its own"),
        (path, False, {"lora_targets": "q_proj"}, f"--lora-targets: {path} is an adapter"),
        (path, True, {"lora": 4, "save_adapter": True}, f"--save-adapter: {path} is an adapter of a policy"),
        (dora, False, {}, "dora: an adapter with use_dora; training goes on in plain LoRA only"),
        (base, False, {"lora": 2, "lora_lr": 0.1}, "--lora-lr does nothing where adapters alone train"),
        (base, False, {"lora": 2, "load_4bit": True}, "--load-4bit: a base in 4 bits takes no adapter in"),
        (base, False, {"lora": 2, "load_4bit": True, "save_adapter": True, "zero": 2}, "--load-4bit does not go with"),
    ):
        with pytest.raises(click.UsageError, match=message):
            adapter_to_train(model, tiny.recipe("x", **changes), reward=wants_reward)
    assert adapter_to_train(base, tiny.recipe("x", lora=2), reward=False) is None
    assert adapter_to_train(path, tiny.recipe("x", lora=4), reward=False).path == path
    assert adapter_to_train(path, tiny.recipe("x"), reward=True) is None
    assert adapter_to_train(reward, tiny.recipe("x", lora_lr=0.1), reward=True).path == reward


# -- in 4 bits ----------------------------------------------------------------------------------------------------


def with_weights_of(policy, oracle):
    """`oracle`, its linear layers what `policy` has in 4 bits."""
    from bitsandbytes.functional import dequantize_4bit

    for name, layer in policy.core.named_modules():
        if type(layer).__name__ == "Linear4bit":
            oracle.core.get_submodule(name).weight.data = dequantize_4bit(layer.weight.data, layer.weight.quant_state)
    return oracle


def first_gradients(policy):
    """Of new adapters, which must come through all layers; the model itself stays as it was."""
    given = policy.model
    add_adapters(policy, tiny.recipe("x", lora=4))
    found = gradients(policy.model, policy.logps(policy.pack([EXAMPLE])).sum())
    policy.model = policy.model.unload()
    assert policy.model is given
    return {name: gradient for name, gradient in found.items() if "lora_B" in name}


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")
def test_a_base_in_4_bits_trains_under_its_adapter(tmp_path):
    base = adapted.base(tmp_path, hidden_size=64, intermediate_size=128)
    policy = to_train(base, bits=4)
    kinds = {type(layer).__name__ for name, layer in policy.core.named_modules() if name.endswith("_proj")}
    assert kinds == {"Linear4bit"} and type(policy.core.lm_head) is torch.nn.Linear
    whole, before = logps(to_train(base)), logps(policy)
    oracle = with_weights_of(policy, to_train(base))
    same(before, logps(oracle), 1e-4)
    assert (before - whole).abs().min() > 1e-3
    same_gradients(*(first_gradients(model) for model in (policy, oracle)), relative=1e-3)
    _, made = fit(tmp_path / "run", model=policy, lora=4, steps=4, load_4bit=True, save_adapter=True)
    assert (logps(policy) - before).abs().min() > 1e-3
    again = to_train(str(made.folder), bits=4, go_on=True)
    same(logps(again), logps(policy), 1e-4)
    same(logps(to_train(base)), whole)  # the folder is as it was
    reward = new_reward(base, None, "cpu", "fp32", bits=4)
    assert type(reward.core.score) is not type(reward.core.model.layers[0].mlp.up_proj)
