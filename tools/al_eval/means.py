"""Means and their intervals, as pure functions on numbers.

A figure that does not exist (the mean of nothing, the interval of one value) is None, never NaN, so that it prints as
JSON null.
"""

import math
from collections.abc import Sequence
from typing import TypedDict

import numpy as np

Numbers = Sequence[float] | np.ndarray
Integers = Sequence[int] | np.ndarray

# Beyond this many groups the percentile interval of a mean and the normal one agree to about three digits
# of their width (central limit theorem; a test compares them), and resampling would take seconds.
BOOTSTRAP_UP_TO = 20_000

class Mean(TypedDict):
    """A figure as it is printed: `low` and `high` bound its interval, `n` is how many numbers went in."""

    mean: float | None
    low: float | None
    high: float | None
    n: int


def mean_interval(
    values: Numbers,
    groups: Integers | None = None,
    weights: Numbers | None = None,
    *,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Mean:
    """The mean of `values` with its percentile bootstrap interval: {mean, low, high, n}.

    values: (n,) numbers; groups: (n,) integers, or None for n groups of one. Whole groups are drawn, since the
    completions of one prompt resemble each other: counted as independent, they would make the interval too
    narrow. Over more than BOOTSTRAP_UP_TO groups the interval is the normal one of the same estimate.
    weights: (n,) what each value is a sum over, say its tokens: the mean is then sum(values) / sum(weights).
    Nothing to divide by: mean, low and high are None. One group: low and high are None, as one draw has no spread.
    Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.
    """
    x = np.asarray(values, dtype=np.float64)
    w = None if weights is None else np.asarray(weights, dtype=np.float64)
    if not (x.size if w is None else w.any()):
        return {"mean": None, "low": None, "high": None, "n": int(x.size)}
    sums, counts = _per_group(x, w, groups)
    mean = float(sums.sum() / counts.sum())
    low: float | None
    high: float | None
    if sums.size == 1:
        low = high = None
    elif sums.size > BOOTSTRAP_UP_TO:
        low, high = _normal_interval(sums, counts, mean, confidence)
    else:
        low, high = _percentile_interval(sums, counts, confidence, resamples, seed)
    return {"mean": mean, "low": low, "high": high, "n": int(x.size)}


def _per_group(x: np.ndarray, w: np.ndarray | None, groups: Integers | None) -> tuple[np.ndarray, np.ndarray]:
    """Sums of values and weights (None: 1 each) in each group with a weight: (n,), (n,), (n,) -> (g,), (g,)."""
    if groups is not None:
        index = group_numbers(groups)
        x, w = np.bincount(index, weights=x), np.bincount(index, weights=w).astype(np.float64)
    elif w is None:
        w = np.ones_like(x)
    return x[w > 0], w[w > 0]  # else a resample could divide by zero


def group_numbers(groups: Integers) -> np.ndarray:
    """The groups' numbers made 0, 1, ... in their order: (n,) -> (n,). [7, 2, 2] -> [1, 0, 0].

    Those of records as they come rise already: then nothing is sorted, which would take five times the memory.
    """
    g = np.asarray(groups)
    if not (g[1:] >= g[:-1]).all():
        return np.unique(g, return_inverse=True)[1]
    index = np.zeros(g.size, dtype=np.intp)
    np.cumsum(g[1:] != g[:-1], out=index[1:])
    return index


def _percentile_interval(
    sums: np.ndarray, counts: np.ndarray, confidence: float, resamples: int, seed: int
) -> tuple[float, float]:
    rng, g = np.random.default_rng(seed), sums.size
    means = np.empty(resamples)
    rows = max(1, 2_000_000 // g)  # so many resamples at once: about 50 MB, however large g is
    for start in range(0, resamples, rows):
        drawn = rng.integers(0, g, size=(min(rows, resamples - start), g), dtype=np.int32)  # (rows, g)
        means[start : start + rows] = sums[drawn].sum(1) / counts[drawn].sum(1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def _normal_interval(sums: np.ndarray, counts: np.ndarray, mean: float, confidence: float) -> tuple[float, float]:
    """Of the ratio sum / count, linearised: its error is the mean of (sum_i - mean * count_i) / mean count."""
    from statistics import NormalDist

    error = (sums - mean * counts).std(ddof=1) / counts.mean() / math.sqrt(sums.size)
    half = float(error) * NormalDist().inv_cdf((1 + confidence) / 2)
    return mean - half, mean + half
