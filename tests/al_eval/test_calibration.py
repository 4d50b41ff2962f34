"""calibration.py against hand-worked numbers, the authors' own, and simulations."""

import json
import math

import numpy as np
import pytest

from al_eval import calibration, metrics
from al_eval.calibration import Binning
from helpers.evaluation import reward_gaps


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


# --- curves and errors -------------------------------------------------------------------------------------------


def test_share_interval():
    # 8 of 10: (.8 + .19207) / 1.38415 = .71674, -+ 1.41601 * sqrt(.016 + .0096037) = .22658
    figures = calibration.share_interval(8, 10)
    assert figures["low"] == pytest.approx(0.4902, abs=5e-5) and figures["high"] == pytest.approx(0.9433, abs=5e-5)
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
        figures = calibration.calibration_errors(curve)
        for name, value in figures.items():
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
    (figures,) = calibration.errors([50, -50], [0, 1], [Binning("uniform", 2)], resamples=400)
    assert figures == {"strategy": "uniform", "bins": 2,
                     **{name: {"mean": 0.5, "low": 0.0, "high": 1.0, "n": 2} for name in calibration.ERRORS}}
    (alone,) = calibration.errors([50, -50], [7, 7], [Binning("quantile", 2)])
    assert alone["MCE"] == {"mean": 0.5, "low": None, "high": None, "n": 2}
    (none,) = calibration.errors([], [], [Binning("uniform", 5)])
    assert none["ECE"] == {"mean": None, "low": None, "high": None, "n": 0}


def test_errors_are_those_of_the_curves():
    gaps, binnings = reward_gaps(300, 2), [Binning(kind, n) for kind in ("uniform", "quantile") for n in (5, 10, 20)]
    for row in calibration.errors(gaps, np.arange(300) // 2, binnings, resamples=50):
        curve = calibration.reliability(*calibration.both_directions(gaps), row["bins"], row["strategy"])
        expected = calibration.calibration_errors(curve)
        for name in calibration.ERRORS:
            assert row[name]["mean"] == pytest.approx(expected[name], abs=1e-12)
            assert 0 <= row[name]["low"] <= row[name]["mean"] <= row[name]["high"] and row[name]["n"] == 300


def test_the_interval_holds_the_truth_where_percentiles_do_not():
    binning, held, by_percentile = Binning("uniform", 10), 0, 0
    for seed in range(40):
        gaps = reward_gaps(200, seed=seed)  # calibrated: the error is 0, but for the bins' width (.002)
        (row,) = calibration.errors(gaps, range(200), [binning], resamples=200, seed=seed)
        held += row["ECE"]["low"] <= 0.002
        sums = calibration._bin_sums(*calibration.both_directions(gaps), range(200), *binning)
        drawn = calibration._errors(calibration._drawn(sums, 200, seed))["ECE"]
        by_percentile += np.quantile(drawn, 0.025) <= 0.002
    assert held >= 28 and by_percentile == 0


def test_completions_of_one_prompt_count_as_one_draw():
    gaps, binning = reward_gaps(150, 2), [Binning("uniform", 5)]
    (one,) = calibration.errors(gaps, range(150), binning, resamples=4000)
    (four,) = calibration.errors(np.repeat(gaps, 4), np.repeat(range(150), 4), binning, resamples=4000)
    width = [row["ECE"]["high"] - row["ECE"]["low"] for row in (one, four)]
    assert four["ECE"]["mean"] == pytest.approx(one["ECE"]["mean"]) and width[1] == pytest.approx(width[0], rel=0.05)


def test_many_prompts_take_the_normal_law_of_the_same_width(monkeypatch):
    gaps, binnings = reward_gaps(3000, 1.5), [Binning("uniform", 5), Binning("quantile", 10)]
    drawn = calibration.errors(gaps, range(3000), binnings, resamples=2000)
    monkeypatch.setattr(calibration, "BOOTSTRAP_UP_TO", 100)
    for one, other in zip(drawn, calibration.errors(gaps, range(3000), binnings, resamples=2000), strict=True):
        assert other["ECE"]["mean"] == one["ECE"]["mean"]
        width = one["ECE"]["high"] - one["ECE"]["low"]
        assert other["ECE"]["low"] == pytest.approx(one["ECE"]["low"], abs=0.1 * width)
        assert other["ECE"]["high"] == pytest.approx(one["ECE"]["high"], abs=0.1 * width)
