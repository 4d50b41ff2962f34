"""Sampling: greedy is transformers' own, draws follow the distribution, and each is a function of its own name."""

import math

import click
import pytest
import torch
import transformers
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from alignlib.decoding import sampler
from alignlib.decoding.sampler import Draw, GrowingLayer, Sampling
from alignlib.models import load
from alignlib.models.encoding import Encoder
from alignlib.models.policy import Policy
from helpers import tiny


def world(family="llama", seed=0, **changes):
    policy = Policy(tiny.causal(family, seed, **changes), tiny.tokenizer())
    return policy, Encoder(policy.tokenizer, max_length=tiny.CONTEXT)


def draws(*lengths, number=1, temperature=1.0, first=0):
    """`number` draws for each of the prompts, which have so many tokens."""
    return [Draw(first + i, j, [tiny.VOCABULARY - 3, *tiny.example(length, seed=i).prompt], temperature)
            for i, length in enumerate(lengths) for j in range(number)]


def alone(policy, prompt, count):
    """Greedy tokens by whole forward passes, nothing cached or padded: what the definition says."""
    ids = list(prompt)
    while len(ids) < len(prompt) + count and ids[-1] != policy.tokenizer.eos_token_id:
        ids.append(policy.core(input_ids=torch.tensor([ids])).logits[0, -1].argmax().item())
    return ids[len(prompt):]


# -- greedy -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", [*tiny.FAMILIES, "bloom"])
@pytest.mark.slow
def test_greedy_is_what_transformers_generates(family):
    """Ragged prompts, left padding, a few of them ending early: the same tokens."""
    policy, encoder = world(family, seed=3)
    batch = draws(3, 17, 1, 30, 8, 9, temperature=0.0)
    sampler.generate(policy, encoder, batch, Sampling(24))
    with torch.no_grad():
        for draw in batch:
            ended = draw.ids + [policy.tokenizer.eos_token_id] * (draw.reason == "stop")
            assert ended == alone(policy, draw.prompt, 24)
            generated = policy.core.generate(torch.tensor([draw.prompt]), max_new_tokens=24, do_sample=False,
                                        attention_mask=torch.ones(1, len(draw.prompt), dtype=torch.long))
            assert generated[0, len(draw.prompt):].tolist() == ended
            assert draw.text == encoder.tokens.decode(draw.ids)


def test_finished_rows_leave_and_change_nothing_for_the_others(monkeypatch):
    """Every eighth token is made an end, so that rows leave early and the batch shrinks around the others."""
    policy, encoder = world("llama", seed=1)
    ends = set(range(0, tiny.VOCABULARY, 8))
    monkeypatch.setattr(sampler, "stopping_ids", lambda encoder, stop: ends)
    for compact in (0.0, 0.75, 1.0):  # never, by the rule, at once
        monkeypatch.setattr(sampler, "COMPACT", compact)
        batch = draws(3, 17, 1, 30, 8, 9, 12, 5, number=2, temperature=1.0)
        count = sampler.generate(policy, encoder, batch, Sampling(12))
        assert count == sum(len(draw.ids) + (draw.reason == "stop") for draw in batch)
        assert {draw.reason for draw in batch} == {"stop", "length"}
        assert not any(set(draw.ids) & ends for draw in batch)
        if compact == 0.0:
            wanted = [draw.ids for draw in batch]
        assert [draw.ids for draw in batch] == wanted


# -- the distribution -------------------------------------------------------------------------------------------


def histogram(logits, temperature=1.0, top_k=0, top_p=1.0, count=20_000):
    numbers = torch.tensor(sampler.uniforms(7, 0, 0, count))
    rows = logits.expand(count, -1)
    chosen = sampler.choose(rows, numbers, torch.full((count,), temperature), top_k, top_p)
    return torch.bincount(chosen, minlength=len(logits)).double()


def chi_square(counts, probs):
    kept = probs > 0
    assert counts[~kept].sum() == 0
    expected = probs[kept] * counts.sum()
    return ((counts[kept] - expected).square() / expected).sum().item(), int(kept.sum()) - 1


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draws_follow_the_softmax(temperature):
    """Chi-square below its 99.9th percentile (Wilson and Hilferty's approximation), at a fixed seed."""
    logits = torch.tensor([0.0, 2.0, -1.0, 1.5, 0.3, -torch.inf, -2.0])
    score, degrees = chi_square(histogram(logits, temperature), (logits.double() / temperature).softmax(0))
    bound = degrees * (1 - 2 / (9 * degrees) + 3.09 * math.sqrt(2 / (9 * degrees))) ** 3
    assert score < bound, (score, bound)


def test_top_k_and_top_p_cut_exactly():
    probs = torch.tensor([0.4, 0.05, 0.25, 0.2, 0.1])
    logits = probs.log()

    def support(**how):
        return set(histogram(logits, **how).nonzero()[:, 0].tolist())

    assert support() == {0, 1, 2, 3, 4}
    assert support(top_k=1) == {0} and support(top_k=2) == {0, 2} and support(top_k=4) == {0, 2, 3, 4}
    assert support(top_k=99) == {0, 1, 2, 3, 4}
    # The fewest that hold top_p: the one that passes it is in.
    assert support(top_p=0.39) == {0} and support(top_p=0.41) == {0, 2}
    assert support(top_p=0.64) == {0, 2} and support(top_p=0.66) == {0, 2, 3} and support(top_p=0.94) == {0, 2, 3, 4}
    # top_k first: of (0.4, 0.25, 0.2) / 0.85, the first two hold 0.76.
    assert support(top_k=3, top_p=0.75) == {0, 2} and support(top_k=3, top_p=0.77) == {0, 2, 3}
    score, degrees = chi_square(histogram(logits, top_k=3), torch.tensor([0.4, 0.0, 0.25, 0.2, 0.0]).double() / 0.85)
    assert degrees == 2 and score < 13.8


def test_as_likely_as_the_last_is_in_and_who_is_beside_does_not_matter():
    """A peak is cut by its likeliest tokens alone, a plain by all of them; both as a sorted vocabulary would be."""
    draws = torch.Generator().manual_seed(0)
    peak, plain = torch.randn(2, 2000, generator=draws).mul(torch.tensor([[9.0], [0.1]])).bfloat16()
    probs = torch.stack([peak, plain]).float().softmax(-1, dtype=torch.float64)
    both = sampler.least_of(probs, 0.9)
    for row, least in zip(probs, both, strict=True):
        held = (row >= least).sum().item()
        ordered = row.sort(descending=True).values
        assert ordered[:held - (row == least).sum()].sum() < 0.9 <= ordered[:held].sum()
        assert (sampler.least_of(row[None], 0.9) == least).all()
    assert (probs[0] >= both[0]).sum() < sampler.LIKELY < (probs[1] >= both[1]).sum()
    assert set(histogram(torch.tensor([1.0, 0.0, 0.0]), top_p=0.6).nonzero()[:, 0].tolist()) == {0, 1, 2}


def test_draws_at_the_ends_never_fall_on_what_was_cut():
    """A draw of 0 or just under 1 takes the first or last token with a share, also where the sum is rounded."""
    logits = torch.full((1, 1000), -torch.inf)
    logits[0, 100:900] = torch.randn(800, generator=torch.Generator().manual_seed(0))
    for number, wanted in ((0.0, 100), (1 - 2**-53, 899)):
        chosen = sampler.choose(logits, torch.tensor([number], dtype=torch.float64), torch.ones(1), 0, 1.0)
        assert chosen.item() == wanted
    assert sampler.choose(logits, torch.tensor([0.99]), torch.zeros(1), 0, 1.0).item() == logits.argmax().item()


def test_each_row_has_its_own_temperature():
    logits = torch.tensor([[0.0, 1.0]]).expand(3, -1)
    chosen = sampler.choose(logits, torch.full((3,), 0.3, dtype=torch.float64), torch.tensor([0.0, 1.0, 0.2]), 0, 1.0)
    # P(token 0) is 1 / (1 + e^(1/t)): 0.27 at 1, 0.007 at 0.2; nothing to draw at 0.
    assert chosen.tolist() == [1, 1, 1]
    chosen = sampler.choose(logits, torch.full((3,), 0.2, dtype=torch.float64), torch.tensor([0.0, 1.0, 0.2]), 0, 1.0)
    assert chosen.tolist() == [1, 0, 1]


# -- a draw is a function of its name ----------------------------------------------------------------------------


def test_uniforms_are_keyed_by_all_of_their_name():
    base = sampler.uniforms(1, 2, 3, 50)
    assert (base == sampler.uniforms(1, 2, 3, 50)).all()
    assert (base[:20] == sampler.uniforms(1, 2, 3, 20)).all()  # a token's draw does not depend on how many follow
    for other in ((2, 2, 3), (1, 3, 3), (1, 2, 4), (-1, 2, 3), (2**64 - 1 + 2, 2, 2)):
        assert not (base == sampler.uniforms(*other, 50)).any(), other
    many = [sampler.uniforms(0, record, number, 100) for record in range(30) for number in range(4)]
    mean = sum(row.mean() for row in many) / len(many)
    assert abs(mean - 0.5) < 5 * math.sqrt(1 / 12 / 12_000)


def test_draws_do_not_depend_on_the_batch():
    """Alone, among others, one completion of several: the same tokens (float64, so that no sum's rounding decides)."""
    policy = Policy(tiny.causal("llama").double(), tiny.tokenizer())
    encoder = Encoder(policy.tokenizer, max_length=tiny.CONTEXT)
    together = draws(3, 17, 1, 30, number=3)
    sampler.generate(policy, encoder, together, Sampling(16, top_p=0.9, seed=5))
    for one in draws(3, 17, 1, 30, number=3):
        sampler.generate(policy, encoder, [one], Sampling(16, top_p=0.9, seed=5))
        same = next(draw for draw in together if (draw.record, draw.number) == (one.record, one.number))
        assert (one.ids, one.text, one.reason) == (same.ids, same.text, same.reason)
    assert len({tuple(draw.ids) for draw in together}) == 12


def test_batches_hold_their_budget_and_every_draw():
    many = draws(3, 17, 1, 30, 8, 90, number=3)
    dealt = list(sampler.batches(many, 200, 10))
    assert sorted((d.record, d.number) for batch in dealt for d in batch) == sorted((d.record, d.number) for d in many)
    for batch in dealt:
        assert len(batch) * (max(len(draw.prompt) for draw in batch) + 10) <= 200 or len(batch) == 1
    assert dealt == list(sampler.batches(many[::-1], 200, 10))


# -- the end of a completion ------------------------------------------------------------------------------------


def spell(policy, encoder, text, how, monkeypatch, end=False):
    """What becomes of a model that would write `text` byte by byte, and then end, or go on with dots."""
    tokens = [*text.encode(), *([policy.tokenizer.eos_token_id] if end else []), *b"." * how.max_new_tokens]
    steps = iter(tokens)
    monkeypatch.setattr(sampler, "choose", lambda logits, *_: torch.full((len(logits),), next(steps)))
    (draw,) = draws(4)
    sampler.generate(policy, encoder, [draw], how)
    return draw


@pytest.mark.parametrize("text, stop, kept", [
    (" Yes\n\nHuman: no", ("\n\nHuman:",), " Yes"),  # of many tokens
    (" a é b", ("é",), " a "),  # of two bytes
    (" a 🙂漢 b", ("🙂漢",), " a "),
    (" one; two", (".", ";"), " one"),  # any of several
    ("stop", ("stop",), ""),  # at once
    (" ab", ("abc", "b"), " a"),  # the shorter of two that begin alike
])
def test_stop_strings(text, stop, kept, monkeypatch):
    policy, encoder = world()
    draw = spell(policy, encoder, text, Sampling(40, stop=stop), monkeypatch)
    assert (draw.text, draw.reason) == (kept, "stop")
    assert encoder.tokens.decode(draw.ids) == kept


def test_a_stop_string_is_seen_wherever_it_ends(monkeypatch):
    """Long text before it, and a bound on tokens just met."""
    policy, encoder = world()
    draw = spell(policy, encoder, "x" * 30 + "END", Sampling(33, stop=("END",)), monkeypatch)
    assert (draw.text, draw.reason) == ("x" * 30, "stop")


def test_end_of_sequence_and_length(monkeypatch):
    policy, encoder = world()
    draw = spell(policy, encoder, " Yes", Sampling(40), monkeypatch, end=True)
    assert (draw.text, draw.reason, draw.ids) == (" Yes", "stop", list(b" Yes"))
    draw = spell(policy, encoder, " Yes", Sampling(3), monkeypatch)
    assert (draw.text, draw.reason, draw.ids) == (" Ye", "length", list(b" Ye"))
    draw = spell(policy, encoder, "", Sampling(3), monkeypatch, end=True)
    assert (draw.text, draw.reason, draw.ids) == ("", "stop", [])
    draw = spell(policy, encoder, "é", Sampling(1), monkeypatch)  # half of a character
    assert draw.reason == "length" and draw.text == "\ufffd" and encoder.tokens.decode(draw.ids) == draw.text


def test_the_generation_config_may_name_more_ends():
    policy, encoder = world()
    eos = policy.tokenizer.eos_token_id
    assert encoder.ends == {eos}
    policy.core.generation_config.eos_token_id = [7, 9]
    assert load.encoder_for(policy).ends == {7, 9, eos}


# -- the cache --------------------------------------------------------------------------------------------------


def test_a_growing_layer_is_a_dynamic_one():
    """Through prefill, single tokens beyond its room, rows chosen and repeated in between."""
    numbers = torch.Generator().manual_seed(0)
    grows, plain = GrowingLayer(), DynamicLayer()
    rows = 3
    for step in range(2 * sampler.ROOM + 9):
        new = [torch.randn(rows, 2, 11 if step == 0 else 1, 4, generator=numbers) for _ in range(2)]
        for grown, wanted in zip(grows.update(*new), plain.update(*new), strict=True):
            assert torch.equal(grown, wanted)
        if step in (0, 20, 90):
            keep = torch.tensor([2, 0, 0, 1] if step == 0 else [0, 2])
            grows.batch_select_indices(keep)
            plain.batch_select_indices(keep)
            rows = len(keep) if step < 90 else 2
            keep_all = torch.equal(grows.keys, plain.keys) and torch.equal(grows.values, plain.values)
            assert keep_all
            if step == 20:
                grows.batch_select_indices(torch.tensor([0, 1, 1]))
                plain.batch_select_indices(torch.tensor([0, 1, 1]))
                rows = 3
        assert grows.get_seq_length() == plain.get_seq_length() == 11 + step


def test_layers_of_other_kinds_stay():
    layers = sampler.new_cache(tiny.config("mistral", sliding_window=8)).layers
    wanted = DynamicCache(config=tiny.config("mistral", sliding_window=8)).layers
    assert [type(layer) for layer in layers] == [type(layer) for layer in wanted]
    assert all(type(layer) is GrowingLayer for layer in sampler.new_cache(tiny.config("llama")).layers)


def test_a_model_whose_cache_cannot_drop_rows_is_named():
    config = tiny.causal("qwen3_next").config
    config.architectures = ["Qwen3NextForCausalLM"]
    with pytest.raises(click.UsageError, match="^some/model: a Qwen3NextForCausalLM has layers without keys and value"):
        sampler.must_drop_rows("some/model", config)
    for family in ("llama", "gemma3", "gpt2"):
        sampler.must_drop_rows("some/model", tiny.config(family))
    sampler.must_drop_rows("some/model", transformers.ViTConfig(architectures=["ViTModel"]))


# -- rows ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", [*tiny.FAMILIES, "bloom", "gptj", "gemma3"])
@pytest.mark.slow
def test_tokens_that_waited_are_read_together(family):
    """Three at once, of ragged prompts, after rows have left: what whole passes say; beyond windows too."""
    policy, _ = world(family, seed=2, **tiny.windowed(family, 5))
    prompts = [(draw.record, draw.prompt) for draw in draws(3, 17, 8, number=2)]
    with torch.inference_mode():
        for asked in (True, False):  # whether the prompts are read before tokens come
            rows = sampler.Rows(policy, prompts)
            if asked:
                rows.logits()
            for first in (5, 40):
                rows.read(torch.arange(first, first + 6))
            rows.keep(torch.tensor([0, 2, 3, 5]))
            rows.read(torch.tensor([9, 8, 7, 6]))
            found = rows.logits()
            for row, kept, last in zip(found, (0, 2, 3, 5), (9, 8, 7, 6), strict=True):
                text = [*prompts[kept][1], 5 + kept, 40 + kept, last]
                wanted = policy.core(input_ids=torch.tensor([text])).logits[0, -1]
                torch.testing.assert_close(row, wanted, rtol=1e-3, atol=1e-3)
            assert torch.equal(rows.logits(), found)  # nothing new to read


def test_a_guidance_is_told_what_is_taken_and_who_is_there():
    """It sees the rows of the batch as they are, and its logits are drawn by."""
    policy, encoder = world("llama", seed=1)
    seen = []

    class Only:
        def guide(self, logits, rows):
            seen.append(["guide", len(rows)])
            ids = torch.tensor([64 + draw.record if len(draw.ids) < draw.record + 1 else policy.tokenizer.eos_token_id
                                for draw in rows])
            return torch.full_like(logits, -torch.inf).scatter(1, ids[:, None], 0.0)

        def take(self, tokens, rows):
            seen.append(["take", tokens.tolist(), [draw.reason for draw in rows]])

        def keep(self, rows):
            seen.append(["keep", rows.tolist()])

    batch = draws(3, 5)
    count = sampler.generate(policy, encoder, batch, Sampling(5), Only())
    assert [draw.ids for draw in batch] == [[64], [65, 65]] and count == 5
    end = policy.tokenizer.eos_token_id
    assert seen == [["guide", 2], ["take", [64, 65], ["", ""]], ["guide", 2], ["take", [end, 65], ["", ""]],
                    ["keep", [1]], ["guide", 1], ["take", [end], [""]]]
