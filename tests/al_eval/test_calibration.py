"""calibration.py and temperature.py against hand-worked numbers, the authors' own, a grid, and simulations."""

import json
import math

import numpy as np
import pytest

from al_eval import calibration
from al_eval.calibration import Binning
from alignlib.stats import metrics, temperature


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def pairs(n, scale=1.0, seed=0):
    """Gaps of a model whose rewards are `scale` times calibrated ones."""
    rng = np.random.default_rng(seed)
    log_odds = rng.normal(0, 1.5, n)
    preferred = rng.random(n) < 1 / (1 + np.exp(-log_odds))
    return scale * np.where(preferred, log_odds, -log_odds)


# --- curves and errors -------------------------------------------------------------------------------------------


def test_share_interval():
    # 8 of 10: (.8 + .19207) / 1.38415 = .71674, -+ 1.41601 * sqrt(.016 + .0096037) = .22658
    found = calibration.share_interval(8, 10)
    assert found["low"] == pytest.approx(0.4902, abs=5e-5) and found["high"] == pytest.approx(0.9433, abs=5e-5)
    assert calibration.share_interval(3, 3)["high"] == 1.0 and calibration.share_interval(0, 3)["high"] > 0.5


def test_both_directions_stays_finite():
    truth, probability = calibration.both_directions([0.0, 2000.0])
    assert truth.tolist() == [1, 1, 0, 0]
    assert probability.tolist() == [0.5, 1.0, 0.5, 0.0]
    assert calibration.both_directions([40.0])[1][1] == pytest.approx(math.exp(-40), rel=1e-9)


def test_calibration_by_hand():
    # Bins [0, .5] and (.5, 1]: predicted .3 observed .5 (n 2), predicted .8 observed 1 (n 1). The .5 is in the first.
    curve = calibration.reliability([0, 1, 1], [0.1, 0.5, 0.8], 2)
    assert [(p["n"], p["predicted"], p["observed"]) for p in curve] == [(2, 0.3, 0.5), (1, 0.8, 1.0)]
    assert curve[0]["low"] < 0.5 < curve[0]["high"]
    errors = calibration.calibration_errors(curve)
    assert errors == pytest.approx({"ECE": 0.2, "ACE": 0.2, "MCE": 0.2})
    assert calibration.calibration_errors(calibration.reliability([], [], 5)) == {"ECE": None, "ACE": None, "MCE": None}
    with pytest.raises(ValueError, match="'uniform' or 'quantile', not 'other'"):
        calibration.reliability([1], [0.5], 5, "other")


def test_calibration_as_more(fixtures):
    for case in lines(fixtures / "MORE" / "calibration_error.jsonl"):
        curve = calibration.reliability(case["y_true"], case["y_prob"], case["n_bins"], case["strategy"])
        assert sum(point["n"] for point in curve) == len(case["y_true"])
        found = calibration.calibration_errors(curve)
        for name, value in found.items():
            expected = case[name] if case["y_true"] else None  # theirs calls the error of nothing 0
            assert value == pytest.approx(expected, abs=1e-12), (case["id"], name)


def test_pair_figures_as_more(fixtures):
    for case in lines(fixtures / "MORE" / "compute_metrics.jsonl"):
        # One difference a pair with different scores, the better first; below 0 is their padding.
        differences = [
            rewards[i] - rewards[j]
            for rewards, scores in zip(case["logits"], case["scores"], strict=True)
            for i in range(len(scores))
            for j in range(len(scores))
            if scores[i] > scores[j] >= 0
        ]
        expected = case["output"]
        assert metrics.wins(differences).mean() == pytest.approx(expected["Preference total Acc"], abs=1e-6)
        for bins in (5, 10, 20):
            curve = calibration.reliability(*calibration.both_directions(differences), bins)
            for name, value in calibration.calibration_errors(curve).items():
                assert value == pytest.approx(expected[f"calibration_{name}_bin{bins}"], abs=1e-6), (case["id"], name)


# --- intervals of the errors -------------------------------------------------------------------------------------


def test_errors_of_two_prompts_by_hand():
    # One right, one wrong, both sure: each half of the probabilities is right half the time. Of the four resamples one
    # has no error, two have 1/2 and one has 1.
    (found,) = calibration.errors([50, -50], [0, 1], [Binning("uniform", 2)], resamples=400)
    assert found == {"strategy": "uniform", "bins": 2,
                     **{name: {"mean": 0.5, "low": 0.0, "high": 1.0, "n": 2} for name in calibration.ERRORS}}
    (alone,) = calibration.errors([50, -50], [7, 7], [Binning("quantile", 2)])
    assert alone["MCE"] == {"mean": 0.5, "low": None, "high": None, "n": 2}
    (none,) = calibration.errors([], [], [Binning("uniform", 5)])
    assert none["ECE"] == {"mean": None, "low": None, "high": None, "n": 0}


def test_errors_are_those_of_the_curves():
    gaps, binnings = pairs(300, 2), [Binning(kind, n) for kind in ("uniform", "quantile") for n in (5, 10, 20)]
    for row in calibration.errors(gaps, np.arange(300) // 2, binnings, resamples=50):
        curve = calibration.reliability(*calibration.both_directions(gaps), row["bins"], row["strategy"])
        expected = calibration.calibration_errors(curve)
        for name in calibration.ERRORS:
            assert row[name]["mean"] == pytest.approx(expected[name], abs=1e-12)
            assert 0 <= row[name]["low"] <= row[name]["mean"] <= row[name]["high"] and row[name]["n"] == 300


def test_the_interval_holds_the_truth_where_percentiles_do_not():
    binning, held, by_percentile = Binning("uniform", 10), 0, 0
    for seed in range(40):
        gaps = pairs(200, seed=seed)  # calibrated: the error is 0, but for the bins' width (.002)
        (row,) = calibration.errors(gaps, range(200), [binning], resamples=200, seed=seed)
        held += row["ECE"]["low"] <= 0.002
        sums = calibration._bin_sums(*calibration.both_directions(gaps), range(200), *binning)
        drawn = calibration._errors(calibration._drawn(sums, 200, seed))["ECE"]
        by_percentile += np.quantile(drawn, 0.025) <= 0.002
    assert held >= 28 and by_percentile == 0


def test_completions_of_one_prompt_count_as_one_draw():
    gaps, binning = pairs(150, 2), [Binning("uniform", 5)]
    (one,) = calibration.errors(gaps, range(150), binning, resamples=4000)
    (four,) = calibration.errors(np.repeat(gaps, 4), np.repeat(range(150), 4), binning, resamples=4000)
    width = [row["ECE"]["high"] - row["ECE"]["low"] for row in (one, four)]
    assert four["ECE"]["mean"] == pytest.approx(one["ECE"]["mean"]) and width[1] == pytest.approx(width[0], rel=0.05)


def test_many_prompts_take_the_normal_law_of_the_same_width(monkeypatch):
    gaps, binnings = pairs(3000, 1.5), [Binning("uniform", 5), Binning("quantile", 10)]
    drawn = calibration.errors(gaps, range(3000), binnings, resamples=2000)
    monkeypatch.setattr(calibration, "BOOTSTRAP_UP_TO", 100)
    for one, other in zip(drawn, calibration.errors(gaps, range(3000), binnings, resamples=2000), strict=True):
        assert other["ECE"]["mean"] == one["ECE"]["mean"]
        width = one["ECE"]["high"] - one["ECE"]["low"]
        assert other["ECE"]["low"] == pytest.approx(one["ECE"]["low"], abs=0.1 * width)
        assert other["ECE"]["high"] == pytest.approx(one["ECE"]["high"], abs=0.1 * width)


# --- the temperature ---------------------------------------------------------------------------------------------


def test_temperature_by_hand():
    # Three pairs right by 1, one wrong by 1: sigmoid(1/T) = 3/4, so 1/T = log 3.
    found = temperature.fit([1, 1, -1, 1], range(4))
    assert found["mean"] == pytest.approx(1 / math.log(3), rel=1e-12) and found["n"] == 4
    # slopes -1/4 thrice and 3/4, second derivatives 3/16: log T deviates by sqrt(3/4) / (3/4 log 3)
    ratio = math.exp(1.959964 * math.sqrt(0.75) / (0.75 * math.log(3)))
    assert found["low"] == pytest.approx(found["mean"] / ratio)
    assert found["high"] == pytest.approx(found["mean"] * ratio)
    assert temperature.log_loss([0.0, 0.0])["mean"] == pytest.approx(math.log(2))


@pytest.mark.parametrize("scale", [1e-6, 0.3, 4.0, 1e6])
def test_temperature_is_the_lowest_of_a_grid(scale):
    gaps = pairs(400, scale)
    found = temperature.fit(gaps, range(400))["mean"]
    grid = found * np.exp(np.linspace(-1, 1, 2001))  # steps of .1 %
    losses = [temperature.log_loss(gaps / t, resamples=1)["mean"] for t in grid]
    assert grid[int(np.argmin(losses))] == pytest.approx(found, rel=1.1e-3)
    assert found == pytest.approx(scale, rel=0.3)


def test_the_interval_of_the_temperature_holds_the_truth():
    held = 0
    for seed in range(60):
        found = temperature.fit(pairs(300, 3, seed), range(300))
        held += found["low"] <= 3 <= found["high"]
    assert held >= 52
    # Pairs of one prompt say as much as one.
    one = temperature.fit(pairs(300, 3), range(300))
    four = temperature.fit(np.repeat(pairs(300, 3), 4), np.repeat(range(300), 4))
    assert [four[name] for name in ("mean", "low", "high")] == pytest.approx([one[n] for n in ("mean", "low", "high")])


def test_where_no_temperature_is_best():
    for gaps, why in (([0, 0], "no pair has two different rewards"), ([1, 2, 0], "every pair is right"),
                      ([1, -3], "the rewards do not order")):
        with pytest.raises(ValueError, match=why):
            temperature.fit(gaps, range(len(gaps)))
    found = temperature.fit([1, -0.9999], [0, 1])  # says next to nothing
    assert found["mean"] > 1000 and found["high"] == math.inf
    assert temperature.fit([2, 1, -1], [0, 0, 0])["low"] is None
