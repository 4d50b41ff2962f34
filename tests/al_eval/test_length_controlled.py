"""Figures of judged comparisons: kappa by hand; AlpacaEval's length-controlled win rate against other solvers."""

import numpy as np
import pytest

from al_eval.length_controlled import STRENGTHS, Gamed, kappa, lasso_logistic, length_controlled

NONE = {"mean": None, "low": None, "high": None}


# --- kappa -------------------------------------------------------------------------------------------------------


def test_kappa_by_hand():
    # Agreed 4 of 5; by chance 2/5 * 1/5 + 2/5 * 3/5 + 1/5 * 1/5 = 9/25.
    figures = kappa([0, 0, 1, 1, 2], [0, 1, 1, 1, 2])
    assert figures["mean"] == pytest.approx((20 - 9) / (25 - 9)) and figures["n"] == 5
    assert kappa([0, 1, 0, 1], [1, 0, 1, 0])["mean"] == -1.0
    assert kappa([0, 1], [0, 1]) == {"mean": 1.0, "low": 1.0, "high": 1.0, "n": 2}
    assert kappa([0, 1] * 50, [0, 0, 1, 1] * 25)["mean"] == 0.0


def test_kappa_where_there_is_none():
    assert kappa([], []) == {**NONE, "n": 0}
    assert kappa([1, 1], [1, 1]) == {**NONE, "n": 2}  # chance agrees always


def test_kappa_s_interval_narrows_with_the_pairs():
    rng = np.random.default_rng(0)

    def width(n):
        truth = rng.integers(0, 2, n)
        figures = kappa(truth, np.where(rng.random(n) < 0.8, truth, 1 - truth), seed=3)
        assert figures["low"] < 0.6 < figures["high"]
        return figures["high"] - figures["low"]

    assert width(3200) == pytest.approx(width(200) / 4, rel=0.25)


# --- the length-controlled win rate ------------------------------------------------------------------------------

ROW = np.arange(60)
MODEL, REFERENCE = (ROW * 37 % 101) * 10.0 + 5, (ROW * 61 % 97) * 8.0 + 11
TANH = np.tanh((REFERENCE - MODEL) / (REFERENCE - MODEL).std(ddof=1))


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


SOFT = sigmoid(0.6 - 1.3 * TANH + np.sin(ROW * 1.7))
GAMED_ROWS = np.arange(120)
DIFFICULTY = np.cos(ROW * 0.9)
GAMED = Gamed(sigmoid(1.1 * np.sin(GAMED_ROWS * 2.3)), np.sin(GAMED_ROWS * 0.7) * 2, np.tile(DIFFICULTY, 2),
              dict(enumerate(DIFFICULTY.tolist())))


@pytest.mark.parametrize("wins, given, expected", [
    (SOFT, {}, 0.6264426108453295),
    (SOFT > 0.5, {}, 0.8979759736519207),
    (sigmoid(-0.4 - 1.3 * TANH + 0.8 * DIFFICULTY + 0.5 * np.sin(ROW * 1.7)), {"gamed": GAMED, "instructions": ROW},
     0.42789041730424643),
])
def test_it_is_what_scikit_learn_fits(wins, given, expected):
    """Expected: scikit-learn 1.9.1's LogisticRegressionCV with AlpacaEval's settings (L1, liblinear, no intercept, ten
    strengths, GroupKFold(5), log loss of soft labels, every row once as a win and once as a loss), tolerance 1e-10."""
    assert length_controlled(MODEL, REFERENCE, wins, **given)["mean"] == pytest.approx(expected, abs=1e-8)


def test_the_fit_is_the_minimum():
    """By the conditions of a convex minimum with an L1 term, for soft and hard verdicts and every strength."""
    x = np.column_stack([TANH, DIFFICULTY, np.ones(60)])
    weights = np.tile(1 + ROW % 3, (len(STRENGTHS), 1)).astype(float)
    for y in (SOFT, (SOFT > 0.5) * 1.0, np.ones(60)):
        w = lasso_logistic(x, y, weights, STRENGTHS)
        for row, strength in zip(w, STRENGTHS, strict=True):
            pull = -strength * ((1 + ROW % 3) * (sigmoid(x @ row) - y)) @ x
            slack = 1e-6 + 1e-9 * strength * weights[0].sum()  # of sums of so many terms
            assert np.abs(pull[row == 0]).max(initial=0) <= 1 + slack
            assert pull[row != 0] == pytest.approx(np.sign(row[row != 0]), abs=slack)


def test_without_a_penalty_it_is_the_plain_fit():
    import torch

    x, y = torch.tensor(np.column_stack([TANH, np.ones(60)])), torch.tensor(SOFT)
    w = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS([w], max_iter=200, tolerance_grad=1e-12, tolerance_change=1e-14,
                               line_search_fn="strong_wolfe")

    def loss():
        solver.zero_grad()
        value = torch.nn.functional.binary_cross_entropy_with_logits(x @ w, y)
        value.backward()
        return value

    solver.step(loss)
    figures = lasso_logistic(x.numpy(), SOFT, np.ones((1, 60)), np.array([1e9]))
    assert figures[0] == pytest.approx(w.detach().numpy(), abs=1e-6)


@pytest.mark.slow
def test_a_judge_of_length_alone_finds_equals():
    """Who is longer wins, and the model is longer in four of five pairs: what remains at equal lengths is near 1/2."""
    rng = np.random.default_rng(1)
    longer = rng.normal(120, 120, 2000)
    wins = rng.random(2000) < sigmoid(4 * np.tanh(longer / longer.std(ddof=1)))
    assert wins.mean() > 0.75
    figures = length_controlled(500 + longer, np.full(2000, 500.0), wins)
    assert figures["low"] < 0.5 < figures["high"] and figures["high"] - figures["low"] < 0.1


def test_a_strong_penalty_feigns_no_certainty():
    """12 of 30 won: too few to tell it from a half, so that cross-validation shrinks it all the way there."""
    wins = np.arange(30) % 5 < 2
    figures = length_controlled(MODEL[:30], REFERENCE[:30], wins)
    assert figures["mean"] == pytest.approx(0.5, abs=0.02)
    assert figures["low"] < 0.4 < 0.5 < figures["high"]


def test_swapping_sides_mirrors_it():
    mine, other = length_controlled(MODEL, REFERENCE, SOFT), length_controlled(REFERENCE, MODEL, 1 - SOFT)
    assert mine["mean"] == pytest.approx(1 - other["mean"], abs=1e-9)
    assert mine["low"] < mine["mean"] < mine["high"]


def test_equal_lengths_leave_the_win_rate():
    """But for the penalty, which is slight at the strength that is chosen."""
    wins = ROW % 3 == 0
    assert length_controlled(np.full(60, 9), np.full(60, 9), wins)["mean"] == pytest.approx(1 / 3, abs=0.02)


@pytest.mark.parametrize("wins", [np.ones(805), np.zeros(805), np.arange(805) % 7 * 7 > np.arange(805) % 11 * 4])
def test_verdicts_that_can_be_told_apart_settle(wins):
    figures = length_controlled(np.arange(805) % 7 * 7, np.arange(805) % 11 * 4, wins)
    assert 0 <= figures["low"] <= figures["high"] <= 1


@pytest.mark.parametrize("model, wins", [
    ([2680, 1658, 2929, 1410, 1548], [0.96, 0.55, 0.62, 0.38, 0.1]),
    ([46, 38, 35, 31, 33, 7], [0.7, 0.86, 0.15, 0.5, 0.83, 0.56]),
    ([23, 23, 34, 31, 33, 32, 48, 18], [0.68, 0.14, 0.78, 0.66, 0.13, 0.32, 0.41, 0.83]),
])
def test_lengths_that_hardly_differ_settle(model, wins):
    """The reference says nothing, so that in a resample the length can be nearly one for all."""
    figures = length_controlled(model, [0] * len(model), wins)
    assert 0 <= figures["low"] <= figures["high"] <= 1


def test_few_pairs_and_one_prompt():
    assert length_controlled([1, 2, 3, 4], [4, 3, 2, 1], [1, 0, 1, 0]) == {**NONE, "n": 4}
    one = length_controlled(MODEL, REFERENCE, SOFT, groups=[7] * 60)
    assert one["mean"] is not None and one["low"] is None and one["high"] is None


def test_pairs_of_one_prompt_are_drawn_together():
    twice = [np.repeat(values, 4) for values in (MODEL, REFERENCE, SOFT)]
    together, apart = length_controlled(*twice, groups=np.repeat(ROW, 4)), length_controlled(*twice)
    assert together["high"] - together["low"] == pytest.approx(2 * (apart["high"] - apart["low"]), rel=0.2)
