"""Decoding token by token: the plain definition's tokens and scores, whatever is cached, batched, pruned or late."""

import json

import pytest
import torch

from al_args import token_by_token
from al_args.settings import Search
from al_args.token_by_token import GuidedDraw, GuidedModels
from alignlib.decoding import branches, sampler
from alignlib.decoding.draws import Sampling
from alignlib.models import load
from alignlib.models.example import Example
from helpers import tiny
from helpers.guided import NEW, RAGGED, closing, decode_all, draws, models, reward_of

pytestmark = pytest.mark.slow


@torch.no_grad()
def defined(both: GuidedModels, prompt: list[int], ids: list[int], search: Search) -> tuple[list[int], list[float]]:
    """The candidates after `prompt` and `ids`, and their scores: nothing cached, a whole pass for each."""
    best = both.policy.core(input_ids=torch.tensor([prompt + ids])).logits[0, -1].topk(search.topk)
    scores = []
    for token, logit in zip(best.indices.tolist(), best.values.tolist(), strict=True):
        is_text = both.ends_are_tokens or token not in both.ends
        reward = reward_of(both, prompt + ids + [token] * is_text) if search.weight else 0.0
        pruned = search.margin is not None and logit < best.values[0].item() - search.margin
        scores.append(-torch.inf if pruned else logit + search.weight * reward)
    return best.indices.tolist(), scores


def greedy(both: GuidedModels, prompt: list[int], search: Search) -> tuple[list[int], str]:
    ids = []
    while len(ids) < both.how.max_new_tokens:
        candidates, scores = defined(both, prompt, ids, search)
        token = candidates[scores.index(max(scores))]
        if token in both.ends:
            return ids, "stop"
        ids.append(token)
    return ids, "length"


def compare(both: GuidedModels, search: Search, lengths=RAGGED) -> list[GuidedDraw]:
    made = decode_all(both, draws(*lengths), search)
    for draw in made:
        assert (draw.ids, draw.reason) == greedy(both, draw.prompt, search), draw.where
        text = draw.prompt + draw.ids + closing(both, draw.end)
        assert draw.reward == pytest.approx(reward_of(both, text), abs=1e-5)
    return made


# -- greedy -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", tiny.FAMILIES)
@pytest.mark.parametrize("ends_are_tokens", [False, True])
def test_greedy_is_the_definition(family, ends_are_tokens, many_ends):
    both = models(family, ends_are_tokens=ends_are_tokens)
    assert both.kinds == (branches.Tree, branches.Tree)
    made = compare(both, Search(weight=2.0, topk=6))
    assert {draw.reason for draw in made} == {"stop", "length"}


def test_the_reward_model_may_be_of_another_family(many_ends):
    compare(models("gpt2", "llama"), Search(weight=2.0, topk=6))


@pytest.mark.parametrize("family, other", [("gemma3", "gemma2"), ("mistral", "qwen2"), ("gptj", "qwen3")])
def test_texts_go_on_beyond_windows(family, other, many_ends):
    """Under caps, by copies of a cache; weighed late too."""
    both = models(family, other, window=5)
    assert both.kinds == (branches.Copies if family == "gptj" else branches.Tree, branches.Tree)
    compare(both, Search(weight=2.0, topk=6, margin=3.0), (3, 17, 30))


@pytest.mark.parametrize("ends_are_tokens", [False, True])
def test_rewards_may_be_read_at_the_end(ends_are_tokens, many_ends):
    compare(models(ends_are_tokens=ends_are_tokens, reads_eos=True), Search(weight=2.0, topk=6))


@pytest.mark.parametrize("search", [
    Search(weight=0.0, topk=6), Search(weight=3.0, topk=1), Search(weight=-1.5, topk=6),
    Search(weight=2.0, topk=tiny.VOCABULARY), Search(weight=2.0, topk=6, margin=0.0),
    Search(weight=2.0, topk=6, margin=0.7), Search(weight=2.0, topk=6, margin=3.0),
])
def test_settings_at_their_edges(search, many_ends):
    """Also where the reward model falls behind: it is read late, and says the same."""
    both = models()
    compare(both, search, (3, 17, 1))
    whole = both.tokens
    assert (both.reward_calls == 0) == (search.weight == 0 or search.topk == 1 or search.margin == 0)
    assert (both.reward_calls < whole) == (search.weight == 0 or search.topk == 1 or search.margin in (0.0, 0.7))


def test_a_margin_that_rewards_cannot_bridge_changes_nothing(many_ends):
    """Rewards between -1 and 1: with margin 2 * weight, the same tokens for fewer questions."""
    both = models()
    both.reward.core.score = torch.nn.Sequential(both.reward.core.score, torch.nn.Tanh())
    for weight in (0.2, 1.0):
        both.tokens = both.reward_calls = 0
        free = decode_all(both, draws(*RAGGED, 5, 6, 7), Search(weight=weight))
        asked, both.reward_calls = both.reward_calls, 0
        bound = decode_all(both, draws(*RAGGED, 5, 6, 7), Search(weight=weight, margin=2 * weight))
        assert [(d.ids, d.reason) for d in bound] == [(d.ids, d.reason) for d in free]
        assert [d.reward for d in bound] == pytest.approx([d.reward for d in free], abs=1e-6)
        assert 0 < both.reward_calls < asked == both.tokens / 2


def test_rows_that_wait_take_the_places_of_those_that_are_done(many_ends):
    """Two or three at a time, of prompts with much in common too: as all at once."""
    lengths = [3, 17, 1, 30, 8, 12, 2, 9]
    together = decode_all(models(), draws(*lengths), Search(weight=2.0))
    wanted = [(draw.ids, draw.reason, pytest.approx(draw.reward)) for draw in together]
    for batch_tokens in (1, 100, 130):
        both = models(batch_tokens=batch_tokens)
        found = decode_all(both, draws(*lengths), Search(weight=2.0))
        assert [(d.ids, d.reason, d.reward) for d in found] == wanted
        assert len(both.rm.read) == max(1, batch_tokens // (31 + NEW + 11)) < len(lengths)


def test_stop_strings_cut_and_the_reward_is_of_what_is_left():
    free = decode_all(models(new=20), draws(*RAGGED), Search(weight=2.0))
    text = free[0].text
    stop = text[len(text) // 2:][:2]
    both = models(new=20, stop=(stop,))
    for draw in decode_all(both, draws(*RAGGED), Search(weight=2.0)):
        cut = free[draw.record].text.find(stop)
        assert draw.text == (free[draw.record].text if cut < 0 else free[draw.record].text[:cut])
        assert draw.reason == (free[draw.record].reason if cut < 0 else "stop")
        assert draw.reward == pytest.approx(reward_of(both, draw.prompt + draw.ids), abs=1e-5)


@pytest.mark.parametrize("other", ["llama", "bloom"])
def test_where_ends_alone_are_left_after_a_text_that_is_read_nothing_is_asked(other, monkeypatch):
    """Both candidates for the second token end the text, alone and beside another: its reward is known by then."""
    search, (draw,) = Search(weight=2.0, topk=2), draws(3)
    candidates, scores = defined(models("llama", other), draw.prompt, [], search)
    first = candidates[scores.index(max(scores))]
    ends = set(defined(models("llama", other), draw.prompt, [first], search)[0])
    for module in (sampler, token_by_token):
        monkeypatch.setattr(module, "stopping_ids", lambda encoder, stop: ends)
    both = models("llama", other)
    (made,) = compare(both, search, (3,))
    assert (made.ids, made.end in ends, both.reward_calls) == ([first], True, 1)
    assert [first] in [draw.ids for draw in compare(both, search, (3, 17))]


def test_rewards_are_those_of_al_score(many_ends):
    both = models()
    made = decode_all(both, draws(*RAGGED), Search(weight=2.0))
    scores = both.reward.scores(both.reward.pack([Example(made[3].prompt, [made[3].ids])]))
    assert made[3].reward == pytest.approx(scores.item(), abs=1e-5)


# -- stochastic -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_stochastic_draws_from_the_definition(family, many_ends, monkeypatch):
    """The scores of every step, and the token that the draw's own number picks by them."""
    both, search = models(family), Search("stochastic", weight=2.0, topk=6, temperature=0.7)
    steps, pick = [], token_by_token.pick

    def watched(rows, scores, search):
        picks = pick(rows, scores, search)
        steps.extend(zip([(row.draw, list(row.draw.ids)) for row in rows], scores.tolist(), picks, strict=True))
        return picks

    monkeypatch.setattr(token_by_token, "pick", watched)
    made = decode_all(both, draws(*RAGGED, number=2), search)
    for (draw, ids), scores, place in steps:
        candidates, wanted = defined(both, draw.prompt, ids, search)
        assert scores == pytest.approx(wanted, abs=1e-4)
        number = sampler.uniforms(5, draw.record, draw.number, NEW)[len(ids)]
        shares = (torch.tensor(scores, dtype=torch.float64) / 0.7).softmax(0).cumsum(0)
        assert place == int((shares <= number).sum())
        assert ([*draw.ids, None])[len(ids)] in (candidates[place], None)
    assert len({tuple(draw.ids) for draw in made}) > len(RAGGED)


def test_temperature_0_is_greedy(many_ends):
    cold = decode_all(models(), draws(*RAGGED), Search("stochastic", weight=2.0, temperature=0.0))
    assert [d.ids for d in cold] == [d.ids for d in decode_all(models(), draws(*RAGGED), Search(weight=2.0))]


def test_temperatures_and_weights_may_be_as_large_as_floats_are(many_ends):
    """What float32 cannot hold is drawn evenly, though never from what a margin leaves out."""
    for weight in (1e34, -1e34):
        cold = decode_all(models(), draws(*RAGGED), Search("stochastic", weight=weight, temperature=0.0))
        assert [d.ids for d in cold] == [d.ids for d in decode_all(models(), draws(*RAGGED), Search(weight=weight))]
    best = decode_all(models(), draws(*RAGGED), Search(margin=0.0))
    hot = decode_all(models(), draws(*RAGGED), Search("stochastic", margin=0.0, temperature=1e300))
    assert [d.ids for d in hot] == [d.ids for d in best]
    made = decode_all(models(), draws(*RAGGED), Search("best-of-n", best_of=2, temperature=1e300))
    assert {d.reason for d in made} == {"stop", "length"}


# -- the original's numbers -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def original(fixtures):
    at = fixtures / "args" / "models"
    policy, reward = load.load_policy(str(at / "lm"), "cpu"), load.load_reward(str(at / "rm"), "cpu")

    def make(new: int) -> GuidedModels:
        """It goes on after an end, which to its reward model is a token like any other."""
        reader = load.encoder_for(reward, end="none")
        made = GuidedModels(policy, reward, load.encoder_for(policy), reader, Sampling(new), batch_tokens=4096,
                            ends_are_tokens=True)
        made.ends = set()

        def finished(draw, token):
            draw.ids.append(token)
            draw.reason = "length" if len(draw.ids) == new else ""
            return bool(draw.reason)

        made.finished = finished
        return made

    return make


def cases(fixtures, *names) -> list[dict]:
    return [json.loads(line) for name in names for line in (fixtures / "args" / f"{name}.jsonl").open()]


def test_the_originals_tokens(fixtures, original):
    """All its greedy cases, the chunked ones too; those of one setting in one batch."""
    groups: dict[tuple, list[dict]] = {}
    for case in cases(fixtures, "greedy", "greedy_large"):
        groups.setdefault((case["weight"], case["topk"]), []).append(case)
    for (weight, topk), group in groups.items():
        made = [GuidedDraw(i, 0, case["prompt_ids"], 1.0, reward_prompt=case["prompt_ids"])
                for i, case in enumerate(group)]
        decode_all(original(32), made, Search(weight=weight, topk=topk))
        for draw, case in zip(made, group, strict=True):
            assert draw.prompt + draw.ids == case["output_ids"], case["id"]
    assert len(groups) >= 16


@pytest.mark.parametrize("name", ["greedy_traces", "stochastic"])
def test_the_originals_steps(fixtures, original, monkeypatch, name):
    """Candidates, scores, and the distribution that its tokens are drawn from."""
    found = []
    monkeypatch.setattr(token_by_token, "pick",
                        lambda rows, scores, search: found.extend(scores.tolist()) or [0] * len(rows))
    both, count = original(1), 0
    for case in cases(fixtures, name):
        for step in case["steps"]:
            text = step.get("prefix_ids") or (case["prompt_ids"] + [s["chosen"] for s in case["steps"][:step["step"]]])
            search = Search(weight=case["weight"], topk=case["topk"])
            (draw,) = decode_all(both, [GuidedDraw(0, 0, text, 1.0, reward_prompt=text)], search)
            assert draw.ids == step["candidates"][:1]
            if case["weight"] and case["topk"] > 1:
                assert found[-1] == pytest.approx(step["new_scores"], abs=1e-4)
                count += 1
            if "probs" in step:
                probs = (torch.tensor(found[-1]) / case["temperature"]).softmax(0)
                assert probs.tolist() == pytest.approx(step["probs"], abs=1e-4)
    assert count > 100


# -- branches ----------------------------------------------------------------------------------------------------


def test_a_model_that_cannot_branch_is_given_copies(capsys, many_ends):
    """Bloom's attention is its own: the same numbers in the original's way, and a warning."""
    both = models("bloom", "llama")
    assert both.kinds == (branches.Copies, branches.Tree)
    assert "BloomForCausalLM: candidates on a shared cache fail" in capsys.readouterr().err
    compare(both, Search(weight=2.0, topk=4), (3, 9))
    both = models("llama", "bloom")
    assert both.kinds == (branches.Tree, branches.Copies)
    compare(both, Search(weight=2.0, topk=4, margin=1.0), (3, 9))
    decode_all(both, draws(3, 9), Search("segment", best_of=2, segment=3))


# -- numbers that are none --------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["greedy", "stochastic", "best-of-n"])
def test_logits_and_scores_that_are_not_finite_name_the_record(method):
    both = models()
    both.reward.core.score = torch.nn.Sequential(both.reward.core.score, Spoil())
    with pytest.raises(FloatingPointError, match="record 1: the reward model's scores are not finite"):
        decode_all(both, draws(3, 3), Search(method, best_of=2))
    both = models()
    both.policy.core.get_output_embeddings().weight.data.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="record 0: the model's logits are not finite"):
        decode_all(both, draws(3, 3), Search(method, best_of=2))


class Spoil(torch.nn.Module):
    """Infinite for the last of the texts."""

    def forward(self, scores):
        return scores.index_fill(0, torch.tensor([len(scores) - 1]), float("inf"))


def test_a_weight_too_large_for_floats_is_no_score():
    with pytest.raises(FloatingPointError, match="record 0: logit"):
        decode_all(models(), draws(3), Search(weight=1e39))
