"""Figures in packs: each example's own, in the examples' order, the same in whatever packs."""

import pytest
import torch

from alignlib.models.packs import Pack
from alignlib.models.policy import Policy, RewardModel
from alignlib.models.scoring import PackScorer
from helpers import tiny


def policy() -> Policy:
    return Policy(tiny.causal("llama"), tiny.tokenizer())


def test_every_example_gets_its_own_figures_in_its_place():
    """Examples of several lengths and widths, which packs take in another order."""
    model = policy()
    examples = [tiny.example(5, 3), tiny.example(40, 2, 7, 4), tiny.example(3, 9), tiny.example(12, 1, 1, 30)]
    with torch.no_grad():
        alone = [model.logps(model.pack([example]))[0].tolist() for example in examples]
    for pack_tokens in (1, 60, 16384):
        scorer = PackScorer(model, lambda batch: {"logps": model.logps(batch)}, pack_tokens)
        figures = scorer.score(examples)
        assert [row.keys() for row in figures] == [{"logps"}] * 4
        for row, expected in zip(figures, alone, strict=True):
            assert row["logps"] == pytest.approx(expected, rel=1e-4)
        assert scorer.tokens == sum(example.length for example in examples)


def test_several_figures_from_one_pass():
    """Without gradients, and the tokens of one call after another are counted together."""
    model = RewardModel(tiny.classifier("llama"), tiny.tokenizer())
    batches = []

    def measure(batch: Pack) -> dict[str, torch.Tensor]:
        batches.append(batch)
        scores = model.scores(batch)
        assert scores.is_inference()
        return {"scores": scores, "tokens": batch.counts()}

    scorer = PackScorer(model, measure, pack_tokens=16384)
    first, second = scorer.score([tiny.example(6, 2, 3), tiny.example(4, 5, 1)])
    assert (first["tokens"], second["tokens"]) == ([2, 3], [5, 1]) and len(batches) == 1
    assert scorer.score([]) == [] and scorer.tokens == 11 + 10
    (again,) = scorer.score([tiny.example(6, 2, 3)])
    assert again["scores"] == pytest.approx(first["scores"], rel=1e-4) and scorer.tokens == 11 + 10 + 11


def test_the_same_examples_make_the_same_packs():
    """To the last bit: a resumed run computes a window anew, and its figures are those written before."""
    model = policy()
    examples = [tiny.example(3 + i % 5, 1 + i % 7, 4) for i in range(20)]
    one, two = (PackScorer(model, lambda batch: {"logps": model.logps(batch)}, 64).score(examples) for _ in range(2))
    assert one == two
