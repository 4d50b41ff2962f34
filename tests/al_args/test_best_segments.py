"""Best-of-n and best segments: whole texts drawn as al-sample draws them, the one with the best reward kept."""

import pytest
import torch

from al_args.settings import Search
from al_args.token_by_token import GuidedDraw, GuidedModels
from alignlib.decoding import sampler
from alignlib.models.encoding import Encoder
from helpers import tiny
from helpers.guided import NEW, RAGGED, closing, decode_all, draws, models, reward_of

pytestmark = pytest.mark.slow


def test_best_of_n_is_the_best_of_al_samples(many_ends):
    both = models()
    made = decode_all(both, draws(*RAGGED, number=2), Search("best-of-n", best_of=3))
    plain = [sampler.Draw(draw.record, number, draw.prompt, 1.0) for draw in draws(*RAGGED) for number in range(6)]
    sampler.generate(both.policy, Encoder(both.policy.tokenizer, max_length=tiny.CONTEXT), plain, both.how)
    for draw in made:
        own = [one for one in plain if one.record == draw.record and one.number // 3 == draw.number]
        best = max(own, key=lambda one: reward_of(both, one.prompt + one.ids))
        assert (draw.ids, draw.end, draw.text, draw.reason) == (best.ids, best.end, best.text, best.reason)
        assert draw.reward == pytest.approx(reward_of(both, best.prompt + best.ids), abs=1e-5)


@pytest.mark.parametrize("batch_tokens", [1 << 16, 300])
@pytest.mark.parametrize("reads_eos", [False, True])
def test_segments_are_the_definition(batch_tokens, reads_eos, many_ends):
    """Three segments of 4, 4, 2 tokens, each the best of 3, drawn by whole passes one after the other."""
    both = models(batch_tokens=batch_tokens, reads_eos=reads_eos)
    for draw in decode_all(both, draws(*RAGGED), Search("segment", best_of=3, segment=4, temperature=0.8)):
        ids, reason = [], ""
        while not reason:
            tries = [segment(both, draw, ids, number) for number in range(3)]
            rewards = [reward_of(both, draw.prompt + text + closing(both, end))
                       for text, _, end in tries]
            ids, reason, end = tries[rewards.index(max(rewards))]
        assert (draw.ids, draw.reason, draw.end) == (ids, reason, end)
        assert draw.reward == pytest.approx(max(rewards), abs=1e-5)


@torch.no_grad()
def segment(both: GuidedModels, draw: GuidedDraw, ids: list[int], number: int) -> tuple[list[int], str, int | None]:
    until, ids = len(ids) + 4, list(ids)
    while len(ids) < min(until, NEW):
        logits = both.policy.core(input_ids=torch.tensor([draw.prompt + ids])).logits[0, -1:]
        chance = sampler.uniforms(5, draw.record, number, NEW)[len(ids):len(ids) + 1]
        token = sampler.choose(logits.float(), torch.tensor(chance), torch.tensor([0.8]), 0, 1.0).item()
        if token in both.ends:
            return ids, "stop", token
        ids.append(token)
    return ids, "length" if len(ids) == NEW else "", None
