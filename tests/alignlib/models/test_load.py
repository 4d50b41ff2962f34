"""Policies and reward models asked through packs: the numbers and gradients of one plain row a completion."""

import math

import click
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from al_train_rm import start
from alignlib.models import load, logps, packs
from alignlib.models.policy import Policy, RewardModel, knows_head
from alignlib.training import batches, loop, reference
from alignlib.training.run_folder import Run
from helpers import tiny
from helpers.plain import gradients, plain_logps, same_gradients

VARIANTS = [("llama", {}), ("llama", {"num_key_value_heads": 4}), ("gpt_neox", {}), ("gpt2", {}), ("opt", {}),
            ("opt", {"do_layer_norm_before": False})]
SHAPES = [(5, 3), (9, 4, 7), (1, 6, 2, 5), (17, 1, 12, 3, 8), (30, 9, 2, 16, 5, 11)]  # prompt, then K completions








# -- the same numbers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family, changes", VARIANTS)
def test_packed_sums_are_those_of_plain_rows(family, changes):
    """K = 1..5, ragged, in one pack a width, at two temperatures: relative 1e-6 of the sum in float32."""
    model = tiny.causal(family, **changes)
    policy = Policy(model, tiny.tokenizer())
    assert policy.shared
    for first in SHAPES:
        examples = [tiny.example(*first), tiny.example(first[0] + 4, *first[:0:-1])]
        for temperature in (1.0, 0.7):
            with torch.no_grad():
                packed = policy.logps(policy.pack(examples), temperature)
                apart = policy.logps(packs.pack(examples, shared=False), temperature)
                plain = torch.stack([plain_logps(model, example, temperature) for example in examples])
            torch.testing.assert_close(packed, plain, rtol=1e-6, atol=0)
            torch.testing.assert_close(apart, plain, rtol=1e-6, atol=0)


@pytest.mark.parametrize("family, changes", VARIANTS)
def test_packed_gradients_are_those_of_plain_rows(family, changes, monkeypatch):
    """With groups split into rows and logits into chunks; float64, though Llama's norms compute in float32."""
    monkeypatch.setattr(packs, "ROW_TOKENS", 24)
    monkeypatch.setattr(logps, "CHUNK", 7 * tiny.VOCABULARY)
    model = tiny.causal(family, **changes).double()
    policy = Policy(model, tiny.tokenizer())
    examples = [tiny.example(9, 4, 0, 7, 3), tiny.example(2, 6, 13, 5, 0)]
    weights = torch.tensor([[0.3, 1.0, -1.1, 0.4], [2.0, -0.6, 0.9, 1.0]], dtype=torch.float64)
    batch = policy.pack(examples)
    assert len(batch.ids) > 2
    packed = policy.logps(batch)
    plain = torch.stack([plain_logps(model, example) for example in examples])
    torch.testing.assert_close(packed, plain, rtol=1e-6, atol=0)
    assert packed[0, 1] == packed[1, 3] == 0.0  # empty completions
    same_gradients(gradients(model, (packed * weights).sum()), gradients(model, (plain * weights).sum()), 1e-6)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_packed_rewards_are_those_of_the_classifiers_own_rows(family):
    """Also of an empty completion (read at the prompt's end) and with pad = end-of-sequence in the rows."""
    model = tiny.classifier(family).double()
    model.config.pad_token_id = model.config.eos_token_id
    reward = RewardModel(model, tiny.tokenizer(pad=tiny.EOS))
    assert reward.shared
    examples = [tiny.example(9, 4, 0, 7), tiny.example(3, 2, 12, 5)]
    examples[1].completions[0][-1] = model.config.eos_token_id  # an end-of-sequence is read, not taken for padding
    packed = reward.scores(reward.pack(examples))
    model.config.pad_token_id = None  # of a single row, the classifier itself then reads the last token
    plain = torch.stack([model(input_ids=torch.tensor([example.prompt + completion])).logits[0, 0]
                         for example in examples for completion in example.completions]).view(2, 3)
    torch.testing.assert_close(packed, plain.float(), rtol=1e-6, atol=1e-6)
    model.config.pad_token_id = model.config.eos_token_id
    same_gradients(gradients(model, packed.square().sum()), gradients(model, plain.square().sum()), 1e-5)


@pytest.mark.parametrize("name", ["banana", "cuda:x", "cuda:99", "meta", ""])
def test_a_device_that_is_not_there_is_refused(name):
    with pytest.raises(click.UsageError, match=f"--device {name}: "):
        load.device_for(name)
    assert load.device_for("cpu").type == "cpu"


def test_numbers_do_not_depend_on_the_batch():
    """float32: the same completion alone, among others, and in a row of its own."""
    policy = Policy(tiny.causal("llama"), tiny.tokenizer())
    wanted = tiny.example(9, 6, 4)
    others = [tiny.example(n, 8, 3, seed=1) for n in (1, 5, 14, 20)]
    with torch.no_grad():
        alone = policy.logps(policy.pack([wanted]))[0]
        among = policy.logps(policy.pack([*others, wanted]))[-1]
        rows = policy.logps(packs.pack([*others, wanted], shared=False))[-1]
    torch.testing.assert_close(among, alone, rtol=1e-6, atol=0)
    torch.testing.assert_close(rows, alone, rtol=1e-6, atol=0)


def test_a_completion_is_blind_to_the_others():
    """Contamination would show at once: another neighbour, another number."""
    policy = Policy(tiny.causal("gpt2"), tiny.tokenizer())
    one, other = tiny.example(9, 6, 4), tiny.example(9, 6, 4)
    other.completions[0] = other.completions[0][::-1]
    with torch.no_grad():
        first, second = (policy.logps(policy.pack([example]))[0] for example in (one, other))
    assert first[0] != second[0]
    torch.testing.assert_close(first[1], second[1], rtol=1e-6, atol=0)


# -- models that cannot share a prompt --------------------------------------------------------------------------


@pytest.mark.parametrize("family, changes", [("bloom", {}), ("mistral", {"sliding_window": 4})])
def test_models_that_cannot_share_are_found_out_and_fall_back(family, changes, capsys):
    model = tiny.causal(family, **changes)
    policy = Policy(model, tiny.tokenizer())
    assert not policy.shared
    assert "using padded rows" in capsys.readouterr().err
    examples = [tiny.example(9, 4, 7, 2), tiny.example(5, 11, 3, 6)]
    with torch.no_grad():
        found = policy.logps(policy.pack(examples))
        plain = torch.stack([plain_logps(model, example) for example in examples])
    torch.testing.assert_close(found, plain, rtol=1e-6, atol=0)


def test_models_that_can_share_are_silent(capsys):
    assert Policy(tiny.causal("mistral", sliding_window=64), tiny.tokenizer()).shared
    assert capsys.readouterr().err == ""


def test_a_sliding_window_limits_the_length():
    assert load.context_length(tiny.config("mistral", sliding_window=64)) == 64
    assert load.context_length(tiny.config("mistral", sliding_window=None)) == tiny.CONTEXT


# -- the full logits never exist --------------------------------------------------------------------------------


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused():
    """Added ones excepted: many a model has never had its tokenizer's padding."""
    size = tiny.tokenizer().vocab_size
    load.build_encoder(tiny.config("llama", vocab_size=size), tiny.tokenizer())
    with pytest.raises(click.UsageError, match=f"a tokenizer of {size} tokens, a model of {size - 1}"):
        load.build_encoder(tiny.config("llama", vocab_size=size - 1), tiny.tokenizer())


def test_the_head_sees_completion_positions_in_chunks_only(monkeypatch):
    model = tiny.causal("llama")
    policy = Policy(model, tiny.tokenizer())
    examples = [tiny.example(30, 9, 14), tiny.example(22, 16, 5)]
    batch, seen = policy.pack(examples), []
    whole = policy.logps(batch)
    wanted = gradients(model, whole.sum())
    monkeypatch.setattr(logps, "CHUNK", 10 * tiny.VOCABULARY)
    handle = model.get_output_embeddings().register_forward_hook(lambda head, given, out: seen.append(len(given[0])))
    chunked = policy.logps(batch)
    found = gradients(model, chunked.sum())
    handle.remove()
    assert max(seen) == 10 and sum(seen) == 2 * (9 + 14 + 16 + 5), seen  # once forward, once backward; no prompt
    torch.testing.assert_close(chunked, whole, rtol=1e-6, atol=0)
    same_gradients(found, wanted, 1e-5)


# -- what families put after their head -------------------------------------------------------------------------


def test_logits_are_the_models_own():
    """Caps and scales behind the head: Gemma 2's soft cap, Cohere's and Granite's scales."""
    import transformers

    small = dict(vocab_size=tiny.VOCABULARY, hidden_size=32, intermediate_size=48, num_hidden_layers=1,
                 num_attention_heads=4, num_key_value_heads=2, head_dim=8, max_position_embeddings=64,
                 initializer_range=0.3, pad_token_id=0, bos_token_id=1, eos_token_id=2)
    for config in (transformers.Gemma2Config(**small, final_logit_softcapping=2.0),
                   transformers.CohereConfig(**small, logit_scale=0.25),
                   transformers.GraniteConfig(**small, logits_scaling=4.0)):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config).eval()
        policy, example = Policy(model, tiny.tokenizer()), tiny.example(9, 4, 7)
        with torch.no_grad():
            found = policy.logps(policy.pack([example]))[0]
            torch.testing.assert_close(found, plain_logps(model, example), rtol=1e-5, atol=0, msg=type(model).__name__)
        assert knows_head(policy)
        policy.logits = lambda hidden, of=policy.logits: of(hidden) / 1.5  # a scale that we would not know of
        assert not knows_head(policy)


# -- step 0 -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_policy_that_is_its_own_reference_starts_at_log_2(family, tmp_path):
    """Loaded as al-train-exo loads it, in training mode, dropout in its configuration; any batch, any split of it."""
    changes = {"attention_dropout": 0.3} if family == "llama" else {}  # GPT-2's is 0.1 by default
    folder = tiny.save(tiny.causal(family, **changes), tmp_path / "policy")
    policy = load.load_policy(folder, "cpu", "fp32", train=True)
    policy.model.train()
    for records in range(1, 8):
        for pack_tokens in (1, 90, 4096):
            run = Run(tiny.recipe(tmp_path / f"{records}-{pack_tokens}", batch_size=3, pack_tokens=pack_tokens), {})
            recipe = run.recipe
            examples = [tiny.example(3 + 7 * i, 5 + i, 12 - i, rewards=[i % 2, 0.5]) for i in range(records)]
            run.reads(0)
            objective = tiny.contrast()
            reference.reference(policy, examples, recipe, run, policy.logps)
            for step in range(batches.steps_an_epoch(examples, recipe)):
                indices, total = batches.batch_at(step, batches.Shuffled(records), recipe), 0.0
                for batch, *_ in batches.packs_of(indices, policy, examples, recipe):
                    total += objective(policy, batch)[0].item()
                size = sum(objective.size(examples[i]) for i in indices)
                assert abs(total / size - math.log(2)) < 1e-6


def test_step_0_of_every_loss_through_the_training_loop(tmp_path):
    """fit's first logged loss is the closed form at policy = reference, K = 4, at temperature 0.8 too."""
    rewards = [0.3, -1.0, 0.7, 0.0]
    log_q = (torch.tensor(rewards) / 0.5).log_softmax(0)
    wanted = {"exo-rw": -math.log(4) - log_q.mean().item(), "dpo-rw": math.log(4), "exo-pref": 5 - math.log(2),
              "dpo-pref": math.log(2), "ipo": 1.0, "robust": 2 * math.log(2)}
    folder = tiny.save(tiny.causal("llama"), tmp_path / "policy")
    for loss, number in wanted.items():
        policy = load.load_policy(folder, "cpu", "fp32", train=True)
        examples = [tiny.example(3 + 5 * i, 5 + i, 9 - i, 4, 2, rewards=rewards) for i in range(5)]
        recipe = tiny.recipe(tmp_path / loss, steps=1, batch_size=5, pack_tokens=60)
        run = Run(recipe, {})
        run.reads(0)
        objective = tiny.contrast(loss, temperature=0.8, smoothing=0.1 if loss == "robust" else 0.0)
        reference.reference(policy, examples, recipe, run, lambda batch, p=policy: p.logps(batch, 0.8))
        entry = loop.fit(policy, examples, objective, recipe, run)
        assert abs(entry["loss"] - number) < 2e-6, loss
        assert entry["margin"] == entry["kl"] == 0.0 and entry["accuracy"] == 0.5, (loss, entry)


# -- folders ----------------------------------------------------------------------------------------------------


def test_what_is_saved_loads_with_from_pretrained(tmp_path):
    policy = Policy(tiny.causal("llama", tie_word_embeddings=True), tiny.tokenizer())
    load.save(policy, tmp_path / "policy")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "policy")
    torch.testing.assert_close(again.state_dict(), policy.core.state_dict(), rtol=0, atol=0)
    assert load.load_policy(str(tmp_path / "policy")).tokenizer("the").input_ids == policy.tokenizer("the").input_ids
    reward = RewardModel(tiny.classifier("opt"), tiny.tokenizer())
    load.save(reward, tmp_path / "reward")
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "reward")
    torch.testing.assert_close(again.state_dict(), reward.core.state_dict(), rtol=0, atol=0)


def test_a_new_head_is_small_and_a_function_of_the_seed(tmp_path):
    folder = tiny.save(tiny.causal("llama"), tmp_path / "policy")
    one, same, other = (start.new_reward(folder, None, "cpu", "fp32", seed).core.score.weight for seed in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert one.shape == (1, 32) and 0.5 < one.std().item() * 33 ** 0.5 < 1.5
    classes = start.new_reward(folder, ["bad", "good"], "cpu", "fp32").core
    assert classes.score.weight.shape == (2, 32) and classes.config.id2label == {0: "bad", 1: "good"}


def test_a_pretrained_adapter_is_part_of_the_policy(tmp_path):
    """And so of the reference: a policy read from an adapter's folder is base plus adapter, with the base's words."""
    import peft

    base = tiny.save(tiny.causal("llama"), tmp_path / "base")
    adapted = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(base),
                                  peft.LoraConfig(r=4, target_modules="all-linear"))
    torch.manual_seed(0)
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight)
    adapted.save_pretrained(tmp_path / "adapter")
    example = tiny.example(9, 4, 7)
    policy = load.load_policy(str(tmp_path / "adapter"), "cpu", "fp32", train=True)
    assert all(weight.requires_grad for weight in policy.core.parameters())
    with torch.no_grad():
        found, bare = policy.logps(policy.pack([example]))[0], plain_logps(load.load_policy(base).core, example)
        torch.testing.assert_close(found, plain_logps(adapted, example), rtol=1e-5, atol=0)
    assert (found - bare).abs().min() > 0.1


def test_encoders_are_asked_as_they_were_trained(tmp_path):
    """A BERT classifier: framed, padded, masked; the numbers of its own tokenizer's rows."""
    import transformers
    from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors
    from tokenizers import models as token_models

    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "good", "bad", "film", "a"])}
    made = Tokenizer(token_models.WordPiece(vocabulary, unk_token="[UNK]"))
    made.normalizer, made.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    made.post_processor, made.decoder = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2)), decoders.WordPiece()
    words = transformers.PreTrainedTokenizerFast(tokenizer_object=made, cls_token="[CLS]", sep_token="[SEP]",
                                                 pad_token="[PAD]", unk_token="[UNK]", model_max_length=14)
    config = transformers.BertConfig(vocab_size=8, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
                                     intermediate_size=48, max_position_embeddings=16, num_labels=2,
                                     initializer_range=0.3)
    torch.manual_seed(0)
    folder = tiny.save(transformers.BertForSequenceClassification(config).eval(), tmp_path / "bert", words)
    reward = load.load_reward(folder, "cpu", "fp32")
    encoder = load.encoder_for(reward)
    assert encoder.max_length == 14  # the tokenizer's limit, under the 16 positions of the model
    record, texts = {"prompt": "a good", "finish_reasons": ["length", "stop", "stop"]}, [" film", " bad bad film a", ""]
    with torch.no_grad():
        found = reward.logits(reward.pack([encoder.encode(record, texts)]))
        wanted = [reward.core(**words("a good" + text, return_tensors="pt")).logits[0] for text in texts]
    torch.testing.assert_close(found, torch.stack(wanted), rtol=1e-5, atol=1e-5)
