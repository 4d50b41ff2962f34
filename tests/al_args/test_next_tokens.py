"""Guidance by reward models of next tokens: the definitions' tokens and draws, whatever is cached, batched or waits."""

import math

import pytest
import torch

from al_args.next_tokens import Candidates, Guide, NextDraw, Products, settle
from al_args.settings import Search
from alignlib.decoding import sampler
from alignlib.decoding.draws import Sampling
from alignlib.models.encoding import Encoder
from alignlib.models.policy import Policy
from alignlib.models.scoring import PackScorer
from alignlib.models.token_rewards import NextTokenReward, VocabularyReward
from helpers import tiny
from helpers.guided import BOS, NEW, RAGGED

pytestmark = pytest.mark.slow
END = tiny.VOCABULARY - 2
WORLD = 3  # tokens
COUNT = 20_000  # draws


def exact(family: str, seed: int, **changes) -> torch.nn.Module:
    """In float64, so that no sum's rounding decides what comes next; Bloom's masks overflow there."""
    model = tiny.causal(family, seed, **changes)
    return model if family == "bloom" else model.double()


def policy(family="llama", seed=0, **changes) -> Policy:
    return Policy(exact(family, seed, **changes), tiny.tokenizer())


def guide(kind=NextTokenReward, family="llama", seed=1, **changes) -> Guide:
    model = kind(exact(family, seed, **changes), tiny.tokenizer())
    encoder = Encoder(model.tokenizer, max_length=tiny.CONTEXT)
    return Guide(f"rm{seed}", model, encoder, encoder,
                 PackScorer(model, lambda batch: {"rewards": model.scores(batch)}, 1 << 16))


def draws(*lengths, number=1, temperature=0.0, guides=1) -> list[NextDraw]:
    """`number` draws for each of the prompts, which have so many tokens and are texts."""
    made = []
    for i, length in enumerate(lengths):
        text = "".join(chr(97 + (i + j) % 26) for j in range(length))
        ids = [BOS, *tiny.tokenizer()(text)["input_ids"][1:]]
        made += [NextDraw(i, j, ids, temperature, where=f"record {i}", about={"prompt": text}, prompts=[ids] * guides,
                          said=[0.0] * guides) for j in range(number)]
    return made


def run(model: Policy, guidance, batch: list[NextDraw], **how) -> int:
    encoder = Encoder(model.tokenizer, max_length=tiny.CONTEXT)
    return sampler.generate(model, encoder, batch, Sampling(how.pop("new", NEW), seed=5, **how), guidance)


@torch.no_grad()
def logits(model: Policy, text: list[int]) -> torch.Tensor:
    """By a whole pass, float64."""
    return model.core(input_ids=torch.tensor([text])).logits[0, -1].double()


def greedy(score, prompt: list[int], ends, new: int = NEW) -> tuple[list[int], str]:
    """The tokens with the best scores, [vocabulary] of a text, one after the other."""
    ids: list[int] = []
    while len(ids) < new:
        token = score(prompt + ids).argmax().item()
        if token in ends:
            return ids, "stop"
        ids.append(token)
    return ids, "length"


@pytest.fixture
def ends(monkeypatch):
    """Every twentieth token ends a text, so that rows leave all the time."""
    some = set(range(0, tiny.VOCABULARY, 20))
    monkeypatch.setattr(sampler, "stopping_ids", lambda encoder, stop: some)
    return some


# -- next-token ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family, other", [*((family, family) for family in tiny.FAMILIES), ("gpt2", "llama"),
                                           ("bloom", "llama"), ("llama", "bloom"), ("gptj", "gemma2")])
def test_greedy_is_whole_passes(family, other, ends):
    """Of two reward models, one of them against; rewards are their log-probabilities, what ends a text among them."""
    model, guides, weights = policy(family), [guide(family=other), guide(seed=2)], (1.5, -0.5)
    batch = draws(*RAGGED, guides=2)
    guidance = Products(guides, weights, batch, tiny.VOCABULARY)
    count = run(model, guidance, batch)
    settle(guides, weights, batch)

    def score(text: list[int]) -> torch.Tensor:
        return logits(model, text).log_softmax(-1) + sum(
            weight * logits(one.model, text).log_softmax(-1) for one, weight in zip(guides, weights, strict=True))

    for draw in batch:
        assert (draw.ids, draw.reason) == greedy(score, draw.prompt, ends), draw.where
        assert draw.reward == pytest.approx(sum(weight * one for weight, one in zip(weights, draw.said, strict=True)))
        text = [*draw.ids, *([END] if draw.reason == "stop" else [])]  # al-score takes none but control tokens for ends
        for one, said in zip(guides, draw.said, strict=True):
            wanted = sum(logits(one.model, draw.prompt + text[:i]).log_softmax(-1)[token].item()
                         for i, token in enumerate(text))
            assert said == pytest.approx(wanted, abs=1e-4)
    assert guidance.calls == 2 * count
    assert {draw.reason for draw in batch} == {"stop", "length"} or (family, other) != ("llama", "llama")


@pytest.mark.parametrize("kind", [NextTokenReward, VocabularyReward])
@pytest.mark.parametrize("family, other", [("gemma3", "gemma2"), ("mistral", "qwen2"), ("qwen2", "gemma3"),
                                           ("qwen3", "mistral"), ("gptj", "qwen3")])
def test_texts_go_on_beyond_windows(kind, family, other, ends):
    """Of five tokens, in either model, where the family knows any."""
    model = policy(family, **tiny.windowed(family, 5))
    one = guide(kind, other, **tiny.windowed(other, 5))
    batch = draws(3, 17, 30)
    guidance = (Products([one], [1.5], batch, tiny.VOCABULARY) if kind is NextTokenReward
                else Candidates(one, Search(weight=2.0, topk=6), batch, tiny.VOCABULARY))
    run(model, guidance, batch)

    def score(text: list[int]) -> torch.Tensor:
        own, said = logits(model, text), logits(one.model, text)
        if kind is NextTokenReward:
            return own.log_softmax(-1) + 1.5 * said.log_softmax(-1)
        best = own.topk(6)
        scores = best.values + 2.0 * said[best.indices]
        return torch.full_like(own, -torch.inf).scatter(0, best.indices, scores)

    for draw in batch:
        assert (draw.ids, draw.reason) == greedy(score, draw.prompt, ends), draw.where


def chi_square(counts: torch.Tensor, shares: torch.Tensor) -> float:
    expected = shares * counts.sum()
    return ((counts - expected).square() / expected).sum().item()


def bound(degrees: int) -> float:
    """The 99.9th percentile, by Wilson and Hilferty's approximation."""
    return degrees * (1 - 2 / (9 * degrees) + 3.09 * math.sqrt(2 / (9 * degrees))) ** 3


@pytest.mark.parametrize("temperature, top_k, top_p", [(1.0, 0, 1.0), (0.7, 0, 1.0), (1.0, 2, 1.0), (1.0, 0, 0.8)])
def test_draws_are_from_the_product(temperature, top_k, top_p):
    """Texts of two tokens in a world of three: pi(y) pi_1(y)^w1 pi_2(y)^w2, token by token, at a fixed seed."""
    world = {"vocab_size": WORLD, "bos_token_id": 0, "eos_token_id": None, "pad_token_id": None}
    model, guides = policy(**world), [guide(seed=seed, **world) for seed in (3, 4)]
    weights, prompt = (0.8, 0.3), [0, 1, 2]
    batch = [NextDraw(0, i, prompt, temperature, prompts=[prompt] * 2, said=[0.0] * 2) for i in range(COUNT)]
    run(model, Products(guides, weights, batch, WORLD), batch, new=2, top_k=top_k, top_p=top_p)

    def shares(text: list[int]) -> torch.Tensor:
        total = logits(model, text) + sum(weight * logits(one.model, text)
                                          for one, weight in zip(guides, weights, strict=True))
        if top_k:
            total = total.masked_fill(total < total.topk(top_k).values[-1], -torch.inf)
        found = (total / temperature).softmax(-1)
        ordered = found.sort(descending=True)
        kept = ordered.values.cumsum(0) - ordered.values < top_p
        found = torch.zeros(WORLD, dtype=torch.float64).scatter(0, ordered.indices, ordered.values * kept)
        return found / found.sum()

    first = shares(prompt)
    wanted = torch.cat([first[token] * shares([*prompt, token]) for token in range(WORLD)])
    counts = torch.bincount(torch.tensor([draw.ids[0] * WORLD + draw.ids[1] for draw in batch]), minlength=WORLD ** 2)
    there = wanted > 0
    assert counts[~there].sum() == 0 and counts.sum() == COUNT
    assert there.all() == (top_k == 0 and top_p == 1)
    assert chi_square(counts[there], wanted[there]) < bound(int(there.sum()) - 1)


def test_without_weight_it_is_al_sample():
    """The same draws, and rewards all the same."""
    model, one = policy(), guide()
    batch, plain = draws(*RAGGED, number=2, temperature=1.0), draws(*RAGGED, number=2, temperature=1.0)
    run(model, Products([one], [0.0], batch, tiny.VOCABULARY), batch)
    run(model, None, plain)
    assert [draw.ids for draw in batch] == [draw.ids for draw in plain]
    assert all(draw.said[0] < 0 for draw in batch)


def test_a_text_that_is_cut_is_read_anew():
    """At a stop string its last tokens may be others: the reward is of what is left."""
    model, one = policy(), guide()
    free = draws(*RAGGED)
    run(model, Products([one], [1.0], free, tiny.VOCABULARY), free, new=20)
    stop = free[0].text[len(free[0].text) // 2:][:2]
    batch = draws(*RAGGED)
    run(model, Products([one], [1.0], batch, tiny.VOCABULARY), batch, new=20, stop=(stop,))
    settle([one], [1.0], batch)
    assert batch[0].text == free[0].text.partition(stop)[0] and batch[0].reason == "stop"
    wanted = sum(logits(one.model, batch[0].prompt + batch[0].ids[:i]).log_softmax(-1)[token].item()
                 for i, token in enumerate(batch[0].ids))
    assert batch[0].reward == pytest.approx(wanted, abs=1e-4)


# -- a head over the vocabulary -----------------------------------------------------------------------------------


def ours(family, other, search: Search, ends, lengths=RAGGED, **how) -> tuple[list[NextDraw], Candidates, int]:
    """Decoded, and held against the definition, rewards too."""
    model, one = policy(family), guide(VocabularyReward, other)
    batch = draws(*lengths)
    guidance = Candidates(one, search, batch, tiny.VOCABULARY)
    count = run(model, guidance, batch, **how)
    settle([one], (), batch)

    def score(text: list[int]) -> torch.Tensor:
        best = logits(model, text).topk(search.topk)
        scores = best.values + search.weight * logits(one.model, text)[best.indices]
        if search.margin is not None:
            scores = scores.masked_fill(best.values < best.values[0] - search.margin, -torch.inf)
        return torch.full((tiny.VOCABULARY,), -torch.inf, dtype=torch.float64).scatter(0, best.indices, scores)

    for draw in batch:
        assert (draw.ids, draw.reason) == greedy(score, draw.prompt, ends), draw.where
        text = [*draw.prompt, *draw.ids, *([END] if draw.reason == "stop" else [])]
        assert draw.reward == pytest.approx(logits(one.model, text[:-1])[text[-1]].item(), abs=1e-4)
    return batch, guidance, count


@pytest.mark.parametrize("family, other", [*((family, family) for family in tiny.FAMILIES), ("bloom", "llama"),
                                           ("llama", "gemma2")])
def test_the_best_candidate_is_the_definition_s(family, other, ends):
    batch, guidance, count = ours(family, other, Search(weight=2.0, topk=6), ends)
    assert guidance.calls == count and {draw.reason for draw in batch} == {"stop", "length"}


@pytest.mark.parametrize("search", [
    Search(weight=0.0, topk=6), Search(weight=3.0, topk=1), Search(weight=-1.5, topk=6),
    Search(weight=2.0, topk=tiny.VOCABULARY), Search(weight=2.0, topk=6, margin=0.0),
    Search(weight=2.0, topk=6, margin=0.7), Search(weight=2.0, topk=6, margin=9.0),
])
def test_settings_at_their_edges(search, ends):
    """Where the reward model is not asked it reads later what it has missed, and says the same."""
    _, guidance, count = ours("llama", "llama", search, ends, (3, 17, 1))
    assert (guidance.calls == 0) == (search.weight == 0 or search.topk == 1 or search.margin == 0)
    assert (guidance.calls < count) == (search.weight == 0 or search.topk == 1 or search.margin in (0.0, 0.7))


def test_stochastic_draws_are_from_the_candidates_shares():
    """A histogram of 20,000 first tokens; below a margin none."""
    model, one = policy(), guide(VocabularyReward)
    prompt = draws(5)[0].prompt
    best = logits(model, prompt).topk(6)
    margin = (best.values[0] - best.values[3]).item() + 1e-3  # four are left
    search = Search("stochastic", weight=0.7, topk=6, temperature=0.8, margin=margin)
    batch = [NextDraw(0, i, prompt, 0.8, prompts=[prompt], said=[0.0]) for i in range(COUNT)]
    run(model, Candidates(one, search, batch, tiny.VOCABULARY), batch, new=1)
    scores = (best.values + 0.7 * logits(one.model, prompt)[best.indices]).masked_fill(
        best.values < best.values[0] - margin, -torch.inf)
    wanted = torch.zeros(tiny.VOCABULARY, dtype=torch.float64).scatter(0, best.indices, (scores / 0.8).softmax(-1))
    counts = torch.bincount(torch.tensor([(draw.ids or [draw.end])[0] for draw in batch]), minlength=tiny.VOCABULARY)
    there = wanted > 0
    assert counts[~there].sum() == 0 and there.sum() == 4
    assert chi_square(counts[there], wanted[there]) < bound(int(there.sum()) - 1)


# -- numbers that are none ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [NextTokenReward, VocabularyReward])
def test_numbers_that_are_not_finite_name_the_record(kind):
    def guidance(one: Guide, batch: list[NextDraw]):
        if kind is NextTokenReward:
            return Products([one], [1.0], batch, tiny.VOCABULARY)
        return Candidates(one, Search(), batch, tiny.VOCABULARY)

    model, one, batch = policy(), guide(kind), draws(3, 3)
    one.model.core.get_output_embeddings().weight.data.fill_(float("inf"))
    with pytest.raises(FloatingPointError, match="record 0: rm1: the reward model's (logits|values) are not finite"):
        run(model, guidance(one, batch), batch)
    model, one, batch = policy(), guide(kind), draws(3, 3)
    model.core.get_output_embeddings().weight.data.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="record 0: the model's logits are not finite"):
        run(model, guidance(one, batch), batch)


def test_a_weight_too_large_for_floats_is_no_score():
    model, one, batch = policy(), guide(VocabularyReward), draws(3)
    with pytest.raises(FloatingPointError, match=r"record 0: logit \+ 1e\+39 \* value is not finite"):
        run(model, Candidates(one, Search(weight=1e39), batch, tiny.VOCABULARY), batch)
    one, batch = guide(), draws(3)
    with pytest.raises(FloatingPointError, match=r"record 0: log-probabilities \+ weights \* rewards are not finite"):
        run(model, Products([one], [1e39], batch, tiny.VOCABULARY), batch)
