"""Policies and reward models that read packs: the numbers and gradients of one plain row a completion."""

import sys

import pytest
import torch
import transformers

from alignlib.models import load, logps, packs
from alignlib.models.example import Example
from alignlib.models.policy import Policy, RewardModel, context_length, knows_head
from helpers import tiny
from helpers.plain import gradients, plain_logps, same_gradients

VARIANTS = [("llama", {}), ("llama", {"num_key_value_heads": 4}), ("gpt_neox", {}), ("gpt2", {}), ("opt", {}),
            ("opt", {"do_layer_norm_before": False})]
SHAPES = [(5, 3), (9, 4, 7), (1, 6, 2, 5), (17, 1, 12, 3, 8), (30, 9, 2, 16, 5, 11)]  # prompt, then K completions


# -- the same numbers -----------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("labels, pad", [(1, None), (1, tiny.VOCABULARY - 1), (3, tiny.VOCABULARY - 1)])
@pytest.mark.parametrize("family", tiny.CHATS)
def test_rewards_are_those_of_transformers_classifiers(family, labels, pad, tmp_path, capsys):
    """As saved and loaded, for given ids: of one prompt and several completions, of texts alone, of a padded batch."""
    model = tiny.classifier(family, labels, pad_token_id=pad)
    reward = load.load_reward(tiny.save(model, tmp_path), "cpu", "fp32")
    assert reward.shared and capsys.readouterr().err == ""
    examples = [tiny.example(9, 4, 1, 7), tiny.example(3, 2, 12, 5), tiny.example(20, 30, 3, 8)]
    rows = [example.prompt + completion for example in examples for completion in example.completions]
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(
        tmp_path, attn_implementation="eager").eval()  # the default of 5.17 passes over Gemma 2's caps
    with torch.no_grad():
        plain = torch.cat([theirs(torch.tensor([row])).logits for row in rows])
        packed = reward.logits(reward.pack(examples))
        apart = reward.logits(packs.pack(examples, shared=False))
        alone = torch.cat([reward.logits(reward.pack([Example(example.prompt, [completion])]))
                           for example in examples for completion in example.completions])
    assert plain.std() > 0.5
    for ours in (packed, apart, alone):
        torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-5)
    for side in ("right", "left") if pad else ():
        batch = tiny.tokenizer().pad({"input_ids": rows}, padding_side=side, return_tensors="pt")
        with torch.no_grad():
            torch.testing.assert_close(packed, theirs(**batch).logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_that_adds_its_mask_shares_prompts_too(dtype, capsys):
    """Gemma 2's caps its scores, which sdpa cannot: transformers computes it step by step."""
    model = tiny.classifier("gemma2", attn_logit_softcapping=2.0).to(dtype)
    reward, examples = RewardModel(model, tiny.tokenizer()), [tiny.example(9, 4, 0, 7), tiny.example(3, 2, 12, 5)]
    assert reward.shared and capsys.readouterr().err == ""
    with torch.no_grad():
        packed, apart = (reward.scores(packs.pack(examples, shared=shared)) for shared in (True, False))
    near = 1e-5 if dtype == torch.float32 else 0.05
    torch.testing.assert_close(packed, apart, rtol=near, atol=near)


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


# -- how long a text may be ------------------------------------------------------------------------------------


def test_a_window_limits_no_text():
    """Nor do those that are switched off, or a multimodal model's: its language model's context counts."""
    for family, changes in (("mistral", {}), ("gpt_oss", {}), ("qwen2", {"sliding_window": 8}), ("gpt2", {})):
        assert context_length(tiny.config(family, **changes)) == tiny.CONTEXT, family
    both = transformers.Gemma3Config(text_config=tiny.config("gemma3").to_dict())
    assert context_length(both) == tiny.CONTEXT
    assert context_length(tiny.config("bloom")) == sys.maxsize


def test_longrope_ends_where_its_other_factors_begin():
    """There transformers chooses the factors of all rows by the longest of them."""
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": 64,
            "short_factor": [1.0] * 4, "long_factor": [1.0, 2.0, 4.0, 8.0]}
    assert context_length(tiny.config("phi3", rope_parameters=rope, original_max_position_embeddings=64)) == 64
    assert context_length(tiny.config("llama", rope_parameters={"rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0,
        "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64})) == tiny.CONTEXT


# -- the full logits never exist ------------------------------------------------------------------------------


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
    actual = gradients(model, chunked.sum())
    handle.remove()
    assert max(seen) == 10 and sum(seen) == 2 * (9 + 14 + 16 + 5), seen  # once forward, once backward; no prompt
    torch.testing.assert_close(chunked, whole, rtol=1e-6, atol=0)
    same_gradients(actual, wanted, 1e-5)


# -- what families put after their head -----------------------------------------------------------------------


def test_logits_are_the_models_own():
    """Caps and scales behind the head: Gemma 2's soft cap, Cohere's and Granite's scales."""
    small = dict(vocab_size=tiny.VOCABULARY, hidden_size=32, intermediate_size=48, num_hidden_layers=1,
                 num_attention_heads=4, num_key_value_heads=2, head_dim=8, max_position_embeddings=64,
                 initializer_range=0.3, pad_token_id=0, bos_token_id=1, eos_token_id=2)
    for config in (transformers.Gemma2Config(**small, final_logit_softcapping=2.0),
                   transformers.CohereConfig(**small, logit_scale=0.25),
                   transformers.GraniteConfig(**small, logits_scaling=4.0)):
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(config).eval()
        policy, example = Policy(model, tiny.tokenizer()), tiny.example(9, 4, 7)
        with torch.no_grad():
            actual = policy.logps(policy.pack([example]))[0]
            torch.testing.assert_close(actual, plain_logps(model, example), rtol=1e-5, atol=0, msg=type(model).__name__)
        assert knows_head(policy)
        policy.logits = lambda hidden, logits=policy.logits: logits(hidden) / 1.5  # a scale that we would not know of
        assert not knows_head(policy)
