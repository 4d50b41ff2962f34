"""Means against hand-worked numbers and the textbook's."""

import math
from array import array

import numpy as np
import pytest

from al_eval import means

# --- intervals ---------------------------------------------------------------------------------------------------


def test_mean_of_nothing_and_of_one():
    assert means.mean_interval([]) == {"mean": None, "low": None, "high": None, "n": 0}
    assert means.mean_interval([2.5]) == {"mean": 2.5, "low": None, "high": None, "n": 1}
    assert means.mean_interval([1, 2], [7, 7]) == {"mean": 1.5, "low": None, "high": None, "n": 2}
    assert means.mean_interval([0.0], weights=[0]) == {"mean": None, "low": None, "high": None, "n": 1}


def test_interval_of_two_values_spans_both():
    # Four equally likely resamples of {0, 1}: 0, 1/2, 1/2, 1; the tails of 2.5 % lie in 0 and in 1.
    assert means.mean_interval([0, 1]) == {"mean": 0.5, "low": 0.0, "high": 1.0, "n": 2}


def test_interval_has_the_textbook_width_and_a_seed():
    values = np.random.default_rng(3).normal(size=4000)
    figures = means.mean_interval(values, resamples=4000)
    half = 1.96 * values.std() / math.sqrt(values.size)
    assert figures["mean"] == pytest.approx(values.mean(), abs=1e-12)
    assert figures["mean"] - figures["low"] == pytest.approx(half, rel=0.08)
    assert figures["high"] - figures["mean"] == pytest.approx(half, rel=0.08)
    assert means.mean_interval(values, resamples=4000) == figures
    assert means.mean_interval(values, resamples=4000, seed=1) != figures
    narrow = means.mean_interval(values, resamples=4000, confidence=0.5)
    assert (narrow["high"] - narrow["low"]) / (figures["high"] - figures["low"]) == pytest.approx(0.674 / 1.96, rel=0.1)


def test_completions_of_one_prompt_count_as_one_draw():
    # 100 prompts with four equal answers each: no more is known than from one answer each.
    prompts = np.random.default_rng(0).normal(size=100)
    one = means.mean_interval(prompts)
    four = means.mean_interval(np.repeat(prompts, 4), np.repeat(np.arange(100), 4))
    assert four["n"] == 400
    assert [four[k] for k in ("mean", "low", "high")] == pytest.approx([one[k] for k in ("mean", "low", "high")])
    wrong = means.mean_interval(np.repeat(prompts, 4))
    assert wrong["high"] - wrong["low"] < 0.6 * (one["high"] - one["low"])


def test_weighted_mean_is_a_ratio_of_sums():
    figures = means.mean_interval([2.0, 3.0, 0.0], weights=[1, 4, 0])
    assert figures["mean"] == 1.0 and figures["n"] == 3
    assert figures["low"] == 0.75 and figures["high"] == 2.0  # a quarter of the resamples is 2/1 twice, a quarter 3/4


def test_many_groups_take_the_normal_interval_of_the_same_width(monkeypatch):
    rng = np.random.default_rng(5)
    groups = np.sort(rng.integers(0, 3000, 9000))
    values = rng.normal(size=3000)[groups] + rng.normal(size=9000)
    drawn = means.mean_interval(values, groups, resamples=4000)
    monkeypatch.setattr(means, "BOOTSTRAP_UP_TO", 100)
    normal = means.mean_interval(values, groups)
    assert normal["mean"] == drawn["mean"]
    width = drawn["high"] - drawn["low"]
    assert normal["low"] == pytest.approx(drawn["low"], abs=0.04 * width)
    assert normal["high"] == pytest.approx(drawn["high"], abs=0.04 * width)


# --- pairs -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("groups", [[], [5], [0, 0, 1, 4, 4], [3, 1, 3, 0], array("I", [7, 7, 9]), range(4)])
def test_groups_are_numbered_in_their_order_sorted_or_not(groups):
    known = sorted(set(groups))
    assert means.group_numbers(groups).tolist() == [known.index(group) for group in groups]
