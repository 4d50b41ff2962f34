"""Attention in strips: rows longer than a strip give the numbers and gradients of plain rows without strips."""

import json

import pytest
import torch
import transformers

from alignlib.decoding.sampler import Draw, Sampling, generate
from alignlib.models import attention, load
from alignlib.models.policy import Policy, RewardModel
from helpers import tiny
from helpers.plain import gradients, plain_logps, same_gradients

SHAPES = [(200, *[60] * 6), (300, 40, 25, 60)]  # prompt, then K completions: rows of 560 and 425 tokens


@pytest.fixture(autouse=True)
def long_context(monkeypatch):
    monkeypatch.setattr(tiny, "CONTEXT", 1024)


def pair(family):
    """The same tiny model twice: as transformers runs it, and as a Policy."""
    plain, model = (tiny.causal(family) for _ in range(2))
    policy = Policy(model, tiny.tokenizer())
    assert policy.shared and model.config._attn_implementation == attention.NAME
    assert plain.config._attn_implementation == "sdpa"
    return plain, policy


@pytest.fixture
def calls(monkeypatch):
    """[(queries, keys)] of every call of sdpa."""
    seen, sdpa = [], attention.sdpa_attention_forward

    def spy(module, query, key, *args, **kwargs):
        seen.append((query.shape[2], key.shape[2]))
        return sdpa(module, query, key, *args, **kwargs)

    monkeypatch.setattr(attention, "sdpa_attention_forward", spy)
    return seen


# -- the function -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("long, strips", [
    (600, [(256, 256), (256, 512), (88, 600)]), (512, [(256, 256), (256, 512)]), (257, [(256, 256), (1, 257)]),
    (256, [(256, 256)])])
def test_strips_are_sdpa(calls, long, strips):
    """Groups of heads share keys; every third token is hidden, the first ones (left padding) from everybody."""
    numbers = torch.Generator().manual_seed(0)
    query = torch.randn(2, 4, long, 8, generator=numbers, dtype=torch.float64)
    key, value = torch.randn(2, 2, 2, long, 8, generator=numbers, dtype=torch.float64)
    mask = torch.ones(long, long, dtype=torch.bool).tril()[None, None].repeat(2, 1, 1, 1)
    mask[1, :, :, ::3] = mask[1, :, :, :5] = False
    module = torch.nn.Module()
    module.num_key_value_groups = 2
    actual, _ = attention.causal_strips(module, query, key, value, mask, dropout=0.0, scaling=0.3)
    assert calls == strips
    wanted, _ = attention.sdpa_attention_forward(module, query, key, value, mask, dropout=0.0, scaling=0.3)
    torch.testing.assert_close(actual, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("queries, keys, masked", [(600, 600, False), (1, 600, True), (300, 600, True)])
def test_rows_without_a_mask_and_after_a_cache_stay_whole(calls, queries, keys, masked):
    query, key = torch.randn(1, 2, queries, 8), torch.randn(1, 2, keys, 8)
    mask = torch.ones(1, 1, queries, keys, dtype=torch.bool).tril(keys - queries) if masked else None
    attention.causal_strips(torch.nn.Module(), query, key, key, mask)
    assert calls == [(queries, keys)]


# -- through models ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_long_packs_are_plain_rows(calls, family, shape):
    plain, policy = pair(family)
    calls.clear()  # what was tried on load
    example = tiny.example(*shape)
    wanted = plain_logps(plain, example)
    assert not calls
    actual = policy.logps(policy.pack([example]))[0]
    long = sum(shape)
    layer = [(min(256, long - start), min(start + 256, long)) for start in range(0, long, 256)]
    assert calls == layer * 2
    torch.testing.assert_close(actual, wanted, rtol=1e-6, atol=0)
    weights = torch.linspace(-1, 2, len(wanted))
    same_gradients(gradients(policy.core, (actual * weights).sum()), gradients(plain, (wanted * weights).sum()), 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("family", ["gemma2", "gpt_oss", "mistral", "llama4"])
def test_windows_caps_and_sinks_are_plain_rows(family, shape):
    """What sdpa cannot do, and keys that no query of a strip looks back at; of plain long rows too."""
    plain, model = (tiny.causal(family, **tiny.windowed(family, 70)) for _ in range(2))
    policy = Policy(model, tiny.tokenizer())
    assert policy.shared and model.config._attn_implementation == attention.NAME
    for example in (tiny.example(*shape), tiny.example(300, 180)):
        wanted, actual = plain_logps(plain, example), policy.logps(policy.pack([example]))[0]
        torch.testing.assert_close(actual, wanted, rtol=1e-6, atol=0)
        same_gradients(gradients(policy.core, actual.sum()), gradients(plain, wanted.sum()), 1e-4)


def test_keys_before_a_window_are_left_out(calls):
    policy = Policy(tiny.causal("mistral", sliding_window=70), tiny.tokenizer())
    calls.clear()
    example = tiny.example(500, 180)
    with torch.no_grad():
        policy.logps(policy.pack([example]))
        assert calls == [(256, 256), (256, 325), (168, 237)] * 2  # of one plain text
        calls.clear()
        policy.logps(policy.pack([tiny.example(500, 90, 90)]))
    assert calls == [(256, 256), (256, 325), (168, 249)] * 2  # the second completion looks back to the prompt's end


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("cap, sunk", [(2.0, False), (None, True), (2.0, True)])
def test_scores_with_a_cap_or_sinks(cap, sunk, dtype):
    """By their definition; an added mask is one of bools, and a query that sees nothing gets numbers."""
    numbers = torch.Generator().manual_seed(0)
    query, sinks = torch.randn(2, 4, 5, 8, generator=numbers), torch.randn(4, generator=numbers)
    key, value = torch.randn(2, 2, 2, 7, 8, generator=numbers)
    mask = torch.ones(5, 7, dtype=torch.bool).tril(2)[None, None].repeat(2, 1, 1, 1)
    scores = query @ key.repeat_interleave(2, 1).mT * 0.3
    weights = (cap * (scores / cap).tanh() if cap else scores).exp() * mask
    wanted = weights / (weights.sum(-1, keepdim=True) + sunk * sinks[:, None, None].exp())
    wanted = wanted @ value.repeat_interleave(2, 1)
    parts = [part.to(dtype) for part in (query, key, value)]
    added = torch.zeros(mask.shape).masked_fill(~mask, -torch.inf)
    near = 1e-6 if dtype == torch.float64 else 0.02
    for one in (mask, added):
        actual = attention.attend_by_scores(*parts, one, 0.3, cap, sinks if sunk else None)
        assert actual.dtype == dtype
        torch.testing.assert_close(actual.float(), wanted, rtol=near, atol=near)
    blind = attention.attend_by_scores(*parts, torch.zeros_like(mask), 0.3, cap, sinks if sunk else None)
    assert blind.isfinite().all()


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_gradient_checkpointing(calls, family):
    """The strips of each layer are computed again on the way back, and say the same."""
    plain, policy = pair(family)
    calls.clear()  # what was tried on load
    load.remove_dropout(policy.core)
    policy.core.train().gradient_checkpointing_enable({"use_reentrant": False})
    example = tiny.example(*SHAPES[1])
    wanted, actual = plain_logps(plain, example), policy.logps(policy.pack([example]))[0]
    torch.testing.assert_close(actual, wanted, rtol=1e-6, atol=0)
    same_gradients(gradients(policy.core, actual.sum()), gradients(plain, wanted.sum()), 1e-4)
    assert calls == [(256, 256), (169, 425)] * 4


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_greedy_completions_of_long_ragged_prompts_are_transformers_own(calls, family):
    """Left padding makes the prefill's mask a square one too."""
    plain, policy = pair(family)
    prompts = [tiny.example(long).prompt for long in (330, 301, 40)]
    batch = [Draw(number, 0, prompt, 0.0) for number, prompt in enumerate(prompts)]
    generate(policy, load.encoder_for(policy), batch, Sampling(max_new_tokens=8))
    assert (74, 330) in calls and (330, 330) not in calls
    for draw, prompt in zip(batch, prompts, strict=True):
        own = plain.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=8)[0, len(prompt):].tolist()
        assert draw.ids == (own[:-1] if draw.reason == "stop" else own)


def test_a_reward_model_reads_long_packs_too():
    reward = RewardModel(tiny.classifier("llama"), tiny.tokenizer())
    assert reward.core.config._attn_implementation == attention.NAME
    plain = tiny.classifier("llama")
    example = tiny.example(*SHAPES[0])
    with torch.no_grad():
        wanted = torch.cat([plain.score(plain.model(torch.tensor([example.prompt + one])).last_hidden_state[:, -1])
                            for one in example.completions])[:, 0]
        actual = reward.scores(reward.pack([example]))[0]
    torch.testing.assert_close(actual, wanted, rtol=1e-5, atol=1e-5)


# -- who keeps its own ------------------------------------------------------------------------------------------


def test_an_encoder_keeps_its_attention():
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    config = transformers.BertConfig(vocab_size=tiny.VOCABULARY, num_labels=1, **shape)
    reward = RewardModel(transformers.BertForSequenceClassification(config).eval(), tiny.tokenizer())
    assert not reward.shared and reward.core.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("family, kept", [("llama", True), ("gptj", True), ("gemma2", False), ("gpt_oss", False)])
def test_a_model_of_eager_attention_keeps_it(family, kept):
    """Unless it has one because of what sdpa cannot do."""
    model = tiny.causal(family)
    if family == "llama":
        model.set_attn_implementation("eager")
    attention.use_strips(model)
    assert model.config._attn_implementation == ("eager" if kept else attention.NAME)


def test_a_saved_model_does_not_name_strips(tmp_path):
    """It loads where this code is not known."""
    _, policy = pair("llama")
    load.save(policy, tmp_path)
    assert attention.NAME not in (tmp_path / "config.json").read_text()
    assert not [name for name in json.loads((tmp_path / "config.json").read_text()) if "attn" in name]
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    assert loaded.config._attn_implementation == "sdpa"
    example = tiny.example(*SHAPES[1])
    with torch.no_grad():
        torch.testing.assert_close(policy.logps(policy.pack([example]))[0], plain_logps(loaded, example),
                                   rtol=1e-6, atol=0)
