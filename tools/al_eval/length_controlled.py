"""Figures of judged comparisons, as pure functions on numbers: agreement beyond chance, length-controlled win rates.

The length-controlled win rate is AlpacaEval 2.0's (Dubois et al. 2024, arXiv 2404.04475, and its package's
`length_controlled_v1` and `length_controlled_minimal`): a logistic regression of the verdicts,

    P(model wins) = sigmoid(a tanh(d / std d) + b difficulty + c)        d = characters of the reference - the model's

is asked what it would be at d = 0. Its three weights carry an L1 penalty whose strength five-fold cross-validation
chooses. The term of the difficulty needs AlpacaEval's own numbers (`Gamed`); without them it is left out.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from al_eval.means import Integers, Mean, Numbers

FOLDS = 5
STRENGTHS = np.logspace(-4, 4, 10)  # the weight of the data against the penalty: scikit-learn's C
GAMED_WEIGHT = 0.2 / 2  # of an answer of one of two gamed baselines; one of the model's has 1
MOST = 4_000_000  # verdicts refitted for an interval: beyond 4000 pairs fewer than 1000 resamples, never under 200


def kappa(first: Integers, second: Integers, *, resamples: int = 1000, seed: int = 0) -> Mean:
    """Cohen's kappa of two judges' classes, with its 95 % percentile bootstrap interval: {mean, low, high, n}.

    first, second: (n,) classes 0, 1, ... kappa = (agreed - expected) / (1 - expected), where `expected` is how often
    they would agree by chance. None where chance alone agrees always, and without any pair.
    Source: Cohen 1960, Educational and Psychological Measurement 20.
    """
    a, b = np.asarray(first, dtype=np.int64), np.asarray(second, dtype=np.int64)
    if a.size == 0:
        return _no_mean(0)
    classes = int(max(a.max(), b.max())) + 1
    cells = np.bincount(a * classes + b, minlength=classes * classes)
    mean = _kappas(cells[None], classes)[0]
    if np.isnan(mean):
        return _no_mean(a.size)
    # A resample of the pairs is a draw of the cells' counts.
    drawn = _kappas(np.random.default_rng(seed).multinomial(a.size, cells / a.size, size=resamples), classes)
    drawn = drawn[~np.isnan(drawn)]
    low, high = np.quantile(drawn, [0.025, 0.975]).tolist() if drawn.size and a.size > 1 else (None, None)
    return {"mean": float(mean), "low": low, "high": high, "n": a.size}


def _no_mean(n: int) -> Mean:
    return {"mean": None, "low": None, "high": None, "n": n}


def _kappas(cells: np.ndarray, classes: int) -> np.ndarray:
    """Of tables of counts (r, classes * classes) -> (r,); nan where it does not exist."""
    shares = cells.reshape(-1, classes, classes) / cells.sum(1)[:, None, None]
    agreed = np.trace(shares, axis1=1, axis2=2)
    expected = (shares.sum(1) * shares.sum(2)).sum(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(expected < 1, (agreed - expected) / (1 - expected), np.nan)


# --- the length-controlled win rate ----------------------------------------------------------------------------


class Gamed(NamedTuple):
    """AlpacaEval's df_gamed.csv: its baseline asked to be brief and to be wordy, against itself.

    preference: (g,) the verdicts, 1 for the gamed answer; lengths: (g,) d / std d; difficulty: (g,) of each row's
    instruction; of_instruction: the difficulty by the instruction's number.
    """

    preference: np.ndarray
    lengths: np.ndarray
    difficulty: np.ndarray
    of_instruction: dict[int, float]


def length_controlled(
    model: Numbers, reference: Numbers, wins: Numbers, *,
    gamed: Gamed | None = None, instructions: Sequence[int] = (), groups: Integers | None = None,
    resamples: int = 1000, seed: int = 0,
) -> Mean:
    """AlpacaEval 2.0's length-controlled win rate: {mean, low, high, n}, from 0 to 1.

    model, reference: (n,) lengths in characters; wins: (n,) verdicts, 1 the model's, 1/2 a tie, or its probability;
    gamed, instructions: AlpacaEval's numbers, and which instruction each pair answers; groups: (n,) integers, the same
    for pairs that are drawn together. The interval is a bootstrap of the fit with hardly a penalty: a strong one, which
    few pairs may choose, draws the mean to 1/2 and would feign certainty there. None for fewer pairs than FOLDS.
    """
    y = np.asarray(wins, dtype=np.float64)
    if y.size < FOLDS:
        return _no_mean(y.size)
    x, own = _features(model, reference, gamed, instructions)
    weight = np.ones(y.size)
    if gamed is not None:
        apart = np.column_stack([np.tanh(gamed.lengths), gamed.difficulty, np.zeros(gamed.lengths.size)])
        x, y = np.vstack([apart, x]), np.concatenate([gamed.preference, y])
        weight = np.concatenate([np.full(len(apart), GAMED_WEIGHT), weight])
    strength = _chosen_strength(x, y, weight)
    fitted = lasso_logistic(x, y, weight[None], np.array([strength]))
    mean = float(_sigmoid(fitted @ own.T).mean())
    low, high = _interval(x, y, weight, own, groups, resamples, seed)
    return {"mean": mean, "low": low, "high": high, "n": len(own)}


def _features(model: Numbers, reference: Numbers, gamed: Gamed | None,
              instructions: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Columns length, difficulty (where known), 1 of the pairs (n, p), and the same with no difference in length."""
    delta = np.asarray(reference, dtype=np.float64) - np.asarray(model, dtype=np.float64)
    spread = delta.std(ddof=1)
    columns = [np.tanh(delta / spread) if spread else np.zeros_like(delta), np.ones_like(delta)]
    if gamed is not None:
        columns.insert(1, np.array([gamed.of_instruction[number] for number in instructions]))
    x = np.column_stack(columns)
    return x, np.column_stack([np.zeros_like(delta), *columns[1:]])


def _chosen_strength(x: np.ndarray, y: np.ndarray, weight: np.ndarray) -> float:
    """The one of STRENGTHS with the least mean loss on what is held out; of equals the strongest penalty."""
    fold = np.arange(len(y)) % FOLDS
    kept = np.repeat([fold != f for f in range(FOLDS)], len(STRENGTHS), axis=0)  # (FOLDS * strengths, n)
    fitted = lasso_logistic(x, y, weight * kept, np.tile(STRENGTHS, FOLDS))
    losses = _losses(fitted @ x.T, y) * weight * ~kept
    mean = losses.sum(1) / (~kept).sum(1)
    return float(STRENGTHS[mean.reshape(FOLDS, -1).mean(0).argmin()])


def _interval(x: np.ndarray, y: np.ndarray, weight: np.ndarray, own: np.ndarray, groups: Integers | None,
              resamples: int, seed: int) -> tuple[float | None, float | None]:
    """Percentile interval over resamples of the groups of pairs; the gamed rows, which come first, stay."""
    n, gamed = len(own), len(y) - len(own)
    _, group = np.unique(np.arange(n) if groups is None else np.asarray(groups), return_inverse=True)
    size = int(group.max()) + 1
    if size == 1:
        return None, None
    resamples = min(resamples, max(200, MOST // len(y)))
    weakest = STRENGTHS[-1:]
    fitted = lasso_logistic(x, y, weight[None], weakest)
    rng, means = np.random.default_rng(seed), []
    for start in range(0, resamples, max(1, 2_000_000 // len(y))):
        rows = min(resamples - start, max(1, 2_000_000 // len(y)))
        times = rng.multinomial(size, np.full(size, 1 / size), size=rows)[:, group]  # (rows, n)
        drawn = np.hstack([np.ones((rows, gamed)), times]) * weight
        refitted = lasso_logistic(x, y, drawn, np.repeat(weakest, rows), fitted, tolerance=1e-5)
        means.append((_sigmoid(refitted @ own.T) * times).sum(1) / times.sum(1))
    low, high = np.quantile(np.concatenate(means), [0.025, 0.975])
    return float(low), float(high)


def lasso_logistic(x: np.ndarray, y: np.ndarray, weights: np.ndarray, strengths: np.ndarray,
                   start: np.ndarray | None = None, tolerance: float = 1e-9, steps: int = 200) -> np.ndarray:
    """For each row of `weights`, the w that minimises |w|_1 + strength * sum_i weight_i loss(y_i, sigmoid(w . x_i)).

    x: (n, p) features, p small; y: (n,) in [0, 1]; weights: (b, n); strengths: (b,); start: (1, p), where to begin
    -> (b, p). The objective of scikit-learn's LogisticRegression with an L1 penalty, C = strength and no intercept,
    exact to the tolerance: proximal Newton steps, all rows at once. Raises ArithmeticError if they do not settle.
    scipy's L-BFGS-B, on w = u - v with u, v >= 0, takes 3 to 5 times as long (805 pairs with 1000 refits: 2.0 s of
    processor time for 0.4 s; with gamed rows 4.5 s for 1.5 s), and not being exact it may lead to another strength.
    """
    b, p = len(weights), x.shape[1]
    w, s = np.zeros((b, p)) + (0 if start is None else start), strengths[:, None]
    squares = (x[:, :, None] * x[:, None, :]).reshape(len(x), p * p)

    def objective(w: np.ndarray) -> np.ndarray:
        return np.abs(w).sum(1) + strengths * (weights * _losses(w @ x.T, y)).sum(1)

    for _ in range(steps):
        up, down = _sigmoid(w @ x.T), _sigmoid(-(w @ x.T))  # not 1 - up, which is 0 already at 40
        gradient = s * ((weights * ((1 - y) * up - y * down)) @ x)
        curvature = (s * ((weights * up * down) @ squares)).reshape(b, p, p)
        curvature += 1e-8 * np.eye(p)  # a feature that is zero throughout has none
        step = _lasso_step(w, gradient, curvature)
        slope = (gradient * step).sum(1) + np.abs(w + step).sum(1) - np.abs(w).sum(1)
        small = (np.abs(step) <= tolerance * (1 + np.abs(w))).all(1)
        if (small | (-slope <= 1e-14 * objective(w) + 1e-13)).all():  # less to gain than the sums can tell
            return w + step
        w = w + step * _stride(objective, w, step, slope)[:, None]
    raise ArithmeticError("the length-controlled fit does not settle")


def _lasso_step(w: np.ndarray, gradient: np.ndarray, curvature: np.ndarray) -> np.ndarray:
    """The d (b, p) that minimises gradient . d + d curvature d / 2 + |w + d|_1.

    Cyclic coordinate descent, which finds the weights that are zero but creeps where two features are nearly one (a
    length that hardly differs), in turns with the linear equations of the others.
    """
    d = np.zeros_like(w)
    for _ in range(50):
        before = d.copy()
        for j in range(w.shape[1]):
            bend = curvature[:, j, j]
            target = w[:, j] + d[:, j] - (gradient[:, j] + (curvature[:, j] * d).sum(1)) / bend
            d[:, j] = np.sign(target) * np.maximum(np.abs(target) - 1 / bend, 0) - w[:, j]
        d = _along_face(w, d, gradient, curvature)
        if np.abs(d - before).max() <= 1e-12 * (1 + np.abs(w).max()):
            break
    return d


def _along_face(w: np.ndarray, d: np.ndarray, gradient: np.ndarray, curvature: np.ndarray) -> np.ndarray:
    """From d (b, p) towards the minimum with the same weights at zero, as far as no other weight changes its sign."""
    at = w + d
    free = at != 0
    slope = gradient + np.sign(at) + np.einsum("bij,bj->bi", curvature, d)
    matrix = np.where(free[:, :, None] & free[:, None, :], curvature, np.eye(w.shape[1]))
    way = np.linalg.solve(matrix, np.where(free, -slope, 0.0)[:, :, None])[:, :, 0]
    crosses = free & (at * (at + way) < 0)
    reach = np.divide(-at, way, out=np.ones_like(at), where=crosses)  # at which part of the way a weight is zero
    part = reach.min(1, keepdims=True)
    return np.where(crosses & (reach == part), -w, d + part * way)


def _stride(objective: Callable[[np.ndarray], np.ndarray], w: np.ndarray, step: np.ndarray,
            slope: np.ndarray) -> np.ndarray:
    """How much of each step (b,) to go so that the objective falls: halved until it does."""
    stride, now = np.ones(len(w)), objective(w)
    for _ in range(40):
        uphill = objective(w + stride[:, None] * step) > now + 1e-4 * stride * slope + 1e-12 * np.abs(now)
        if not uphill.any():
            break
        stride[uphill] /= 2
    return stride


def _losses(z: np.ndarray, y: np.ndarray) -> np.ndarray:
    """-y log sigmoid(z) - (1 - y) log sigmoid(-z), without overflow or cancellation: (b, n)."""
    return y * np.logaddexp(0.0, -z) + (1 - y) * np.logaddexp(0.0, z)


def _sigmoid(z: np.ndarray) -> np.ndarray:
    return np.exp(-np.logaddexp(0.0, -z))
