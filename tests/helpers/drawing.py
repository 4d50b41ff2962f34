"""The same completions drawn by al-sample's generation and by transformers' `generate`, as functions to be timed."""

from collections.abc import Callable

import torch

from alignlib.decoding import sampler
from alignlib.models import load
from alignlib.models.policy import Policy


def prompts(count: int, length: int, vocabulary: int = 300) -> list[list[int]]:
    return torch.randint(10, vocabulary, (count, length), generator=torch.Generator().manual_seed(0)).tolist()


def sampler_draws(policy: Policy, rows: list[tuple[int, int, list[int]]], new: int) -> Callable[[], int]:
    """`rows` are (record, number, prompt): the prompt of a record is computed once. Gives the tokens drawn."""
    encoder = load.encoder_for(policy)
    return lambda: sampler.generate(policy, encoder, [sampler.Draw(*row, temperature=1.0) for row in rows],
                                    sampler.Sampling(new))


def generate_draws(policy: Policy, rows: list[list[int]], new: int) -> Callable[[], int]:
    ids = torch.tensor(rows, device=policy.device)
    settings = {"do_sample": True, "top_k": 0, "max_new_tokens": new, "eos_token_id": None}
    return lambda: policy.core.generate(ids, attention_mask=torch.ones_like(ids), **settings)[:, ids.shape[1]:].numel()


def fastest(ways: list[Callable[[], int]], rounds: int, clock: Callable[[], float]) -> list[float]:
    """The quickest round of each, in the clock's seconds; the ways take turns and must draw equally much."""
    best = [float("inf")] * len(ways)
    for _ in range(rounds):
        drawn = []
        for i, way in enumerate(ways):
            start = clock()
            drawn.append(way())
            best[i] = min(best[i], clock() - start)
        assert len(set(drawn)) == 1
    return best
