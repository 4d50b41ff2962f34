"""temperature.py against hand-worked numbers, a grid, and simulations."""

import math

import numpy as np
import pytest

from al_eval import temperature
from helpers.evaluation import reward_gaps


def test_temperature_by_hand():
    # Three pairs right by 1, one wrong by 1: sigmoid(1/T) = 3/4, so 1/T = log 3.
    figures = temperature.fit([1, 1, -1, 1], range(4))
    assert figures["mean"] == pytest.approx(1 / math.log(3), rel=1e-12) and figures["n"] == 4
    # slopes -1/4 thrice and 3/4, second derivatives 3/16: log T deviates by sqrt(3/4) / (3/4 log 3)
    ratio = math.exp(1.959964 * math.sqrt(0.75) / (0.75 * math.log(3)))
    assert figures["low"] == pytest.approx(figures["mean"] / ratio)
    assert figures["high"] == pytest.approx(figures["mean"] * ratio)
    assert temperature.log_loss([0.0, 0.0])["mean"] == pytest.approx(math.log(2))


@pytest.mark.parametrize("scale", [1e-6, 0.3, 4.0, 1e6])
def test_temperature_is_the_lowest_of_a_grid(scale):
    gaps = reward_gaps(400, scale)
    figures = temperature.fit(gaps, range(400))["mean"]
    grid = figures * np.exp(np.linspace(-1, 1, 2001))  # steps of .1 %
    losses = [temperature.log_loss(gaps / t, resamples=1)["mean"] for t in grid]
    assert grid[int(np.argmin(losses))] == pytest.approx(figures, rel=1.1e-3)
    assert figures == pytest.approx(scale, rel=0.3)


def test_the_interval_of_the_temperature_holds_the_truth():
    held = 0
    for seed in range(60):
        figures = temperature.fit(reward_gaps(300, 3, seed), range(300))
        held += figures["low"] <= 3 <= figures["high"]
    assert held >= 52
    # Pairs of one prompt say as much as one.
    one = temperature.fit(reward_gaps(300, 3), range(300))
    four = temperature.fit(np.repeat(reward_gaps(300, 3), 4), np.repeat(range(300), 4))
    assert [four[name] for name in ("mean", "low", "high")] == pytest.approx([one[n] for n in ("mean", "low", "high")])


def test_where_no_temperature_is_best():
    for gaps, why in (([0, 0], "no pair has two different rewards"), ([1, 2, 0], "every pair is right"),
                      ([1, -3], "the rewards do not order")):
        with pytest.raises(ValueError, match=why):
            temperature.fit(gaps, range(len(gaps)))
    figures = temperature.fit([1, -0.9999], [0, 1])  # says next to nothing
    assert figures["mean"] > 1000 and figures["high"] == math.inf
    assert temperature.fit([2, 1, -1], [0, 0, 0])["low"] is None
