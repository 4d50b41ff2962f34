"""Correlations, repetition, diversity and other figures, by hand and as the originals have them."""

import json
import math
import tracemalloc
from array import array

import numpy as np
import pytest

from al_eval import means, metrics


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_wins():
    assert metrics.wins([2.0, -0.1, 0.0]).tolist() == [1.0, 0.0, 0.5]
    assert metrics.wins([]).size == 0


# --- texts -------------------------------------------------------------------------------------------------------


def test_words():
    assert metrics.words("It's well-known: don’t, été 3.5!") == [
        "It's", "well-known", ":", "don’t", ",", "été", "3", ".", "5", "!"]
    assert metrics.words(" \n") == []


def test_repetition_by_hand():
    # a b a b a: 4 bigrams, 2 distinct; 3 trigrams, 2 distinct; 2 four-grams, 2 distinct
    figures = metrics.repetition(["a", "b", "a", "b", "a"])
    assert figures == pytest.approx({"rep_2": 1 - 2 / 5, "rep_3": 1 - 2 / 4, "rep_4": 1 - 2 / 3,
                                   "diversity": 2 / 5 * 2 / 4 * 2 / 3})
    assert metrics.repetition(["a", "b", "c"]) is None


def test_repetition_as_args(fixtures):
    checked = 0
    for case in json.loads((fixtures / "args" / "metrics.json").read_text())["rep_and_diversity"]:
        for result in (value for value in case.values() if isinstance(value, dict)):
            for n in (2, 3, 4):
                assert 100 * metrics.rep_n(result["tokens"], n) == pytest.approx(result[f"rep_{n}"], abs=1e-12)
            figures = metrics.repetition(result["tokens"])
            if figures is None:  # theirs counts it as 0 in the mean; ours leaves it out
                assert len(result["tokens"]) < 4 and result["diversity"] == 0
            else:
                assert figures["diversity"] == pytest.approx(result["diversity"], abs=1e-12)
                checked += 1
    assert checked > 10


def test_distinct_by_hand():
    assert metrics.distinct(["a b", "b"]) == [2 / 3, 1 / 3, 0.0]
    assert metrics.distinct([""]) == [1.0, 0.0, 0.0]
    assert metrics.distinct([]) is None


def test_distinct_as_alt(fixtures):
    cases = json.loads((fixtures / "ALT" / "metrics.json").read_text())
    for case in cases["distinctness"]:
        assert metrics.distinct(case["generations"]) == case["dist_1_2_3"]
    for case in cases["toxicity_distinctness"]:  # there: the mean over groups of num_sample texts
        texts, size = case["responses"], case["num_sample"]
        groups = [metrics.distinct(texts[i : i + size]) for i in range(0, len(texts), size)]
        assert np.mean(groups, axis=0) == pytest.approx(case["dist_1_2_3"], abs=1e-15)


def test_toxicity_as_alt(fixtures):
    for case in json.loads((fixtures / "ALT" / "metrics.json").read_text())["toxicity_aggregates"]:
        rows = [(value, i) for i, row in enumerate(case["toxicity"]) for value in row if value is not None]
        worst = metrics.worst([value for value, _ in rows], [i for _, i in rows])
        assert worst.tolist() == case["max_tox"]
        assert np.mean(worst) == pytest.approx(case["average_maximum_toxicity"], abs=1e-15)
        assert np.mean([value > 0.5 for value in worst]) == case["average_toxicity_probability"]


def test_worst_of_each_group():
    assert metrics.worst([3, 1, 2, 5], [7, 2, 2, 7]).tolist() == [2, 5] and metrics.worst([], []).tolist() == []


def test_cosine():
    assert metrics.cosine([1, 0], [3, 4]) == pytest.approx(0.6)
    assert metrics.cosine([1, 0], [0, 0]) is None


# --- one number against another ----------------------------------------------------------------------------------


def test_correlations_by_hand():
    assert metrics.pearson([1, 2, 3], [2, 4, 9]) == pytest.approx(7 / math.sqrt(2 * 26))
    assert [metrics.spearman(range(n), range(n)) for n in range(2, 40)] == [1] * 38  # no 0.9999999999999998
    # ranks 0 1.5 1.5 3 and 0 1 2 3: covariance 4.5, squares 4.5 and 5
    assert metrics.spearman([1, 5, 5, 9], [1, 2, 3, 4]) == pytest.approx(4.5 / math.sqrt(4.5 * 5))
    assert metrics.pearson([1, 1], [2, 3]) is None and metrics.pearson([1], [1]) is None
    assert metrics.spearman([], []) is None


def test_quantile_buckets():
    figures = metrics.quantile_buckets([5, 1, 1, 9, 1, 7], 2)  # median 3
    assert [part.tolist() for part in figures] == [[1, 2, 4], [0, 3, 5]]
    assert [part.tolist() for part in metrics.quantile_buckets([2, 2, 2], 4)] == [[0, 1, 2]]
    assert metrics.quantile_buckets([], 4) == []


def test_the_reward_at_a_kl_falls_where_the_method_does():
    figures = metrics.reward_at([4, 1, 2], [7, 5, 3], [0, 1, 1.5, 2, 3, 9])
    assert figures.tolist() == [5, 5, 4, 3, 5, 7]


# --- groups as they come -----------------------------------------------------------------------------------------


def test_an_evaluation_keeps_little_of_a_completion():
    """Bytes at the peak, of what al-eval reward computes: half of what sorting and lists of floats took."""
    count = 200_000
    rewards, words = array("d", np.random.default_rng(1).normal(size=count)), array("I", [7, 9, 9, 5] * (count // 4))
    records = array("I", np.repeat(np.arange(count // 4, dtype=np.uint32), 4))
    for figure, most in ((lambda: means.mean_interval(rewards, records), 30),
                         (lambda: metrics.pearson(words, rewards), 30), (lambda: metrics.spearman(words, rewards), 42),
                         (lambda: metrics.quantile_buckets(words, 4), 35)):
        tracemalloc.start()
        figure()
        peak = tracemalloc.get_traced_memory()[1] / count
        tracemalloc.stop()
        assert peak < most, peak
