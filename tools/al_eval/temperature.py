"""One temperature for a reward model, fitted to pairs: its rewards over it have log-odds as gaps."""

import math

import numpy as np

from al_eval.means import Integers, Mean, Numbers, group_numbers, mean_interval

FINEST = 4 * np.finfo(np.float64).eps  # the least relative error that the root finder promises


def log_loss(gaps: Numbers, groups: Integers | None = None, *, resamples: int = 1000, seed: int = 0) -> Mean:
    """The mean of -log sigmoid(gap), in nats a pair, with its interval: log 2 for a model that knows nothing."""
    losses = np.logaddexp(0.0, -np.asarray(gaps, dtype=np.float64))
    return mean_interval(losses, groups, resamples=resamples, seed=seed)


def fit(gaps: Numbers, groups: Integers, z: float = 1.959964) -> Mean:
    """The temperature T of the lowest mean of -log sigmoid(gap / T), with its 95 % interval: {mean, low, high, n}.

    gaps: (n,) reward(preferred) - reward(other); groups: (n,), the same for pairs of one prompt. The loss is convex in
    1/T, with one minimum where some pair is wrong and the mean gap is above 0. Raises ValueError where it has none.
    The interval is the normal one of log T from the sandwich of the loss's derivatives, summed over groups.
    Source: Guo et al. 2017 (arXiv 1706.04599), section 4.2; Huber 1967 (the sandwich).
    """
    from scipy.optimize import brentq

    d = np.asarray(gaps, dtype=np.float64)
    if not d.astype(np.float32).any():  # nor one whose square would be 0
        raise ValueError("no pair has two different rewards")
    if d.mean() <= 0:
        raise ValueError(f"the mean gap is {d.mean():.3g}: the rewards do not order these pairs")
    if d.min() >= 0:
        raise ValueError("every pair is right: the smaller the temperature, the better")
    low, high = 0.0, 1 / float(np.abs(d).max())  # of s = 1/T: the sum of slopes is below 0, then above
    while _slopes(d, high).sum() < 0:
        low, high = high, 2 * high
    s = brentq(lambda s: _slopes(d, s).sum(), low, high, xtol=FINEST * high, rtol=FINEST)
    wrong = np.exp(-np.logaddexp(0.0, s * d))  # sigmoid(-s d)
    group = group_numbers(groups)
    per_group = np.bincount(group, weights=_slopes(d, s))
    deviation = math.sqrt((per_group**2).sum()) / (s * (d * d * wrong * (1 - wrong)).sum())  # of log s
    with np.errstate(over="ignore"):  # of a few pairs that say nothing the upper end is inf
        low, high = np.exp(z * deviation * np.array([-1, 1])) / s
    known = len(per_group) > 1
    return {"mean": float(1 / s), "low": float(low) if known else None, "high": float(high) if known else None,
            "n": int(d.size)}


def _slopes(d: np.ndarray, s: float) -> np.ndarray:
    """The derivatives of log(1 + exp(-s d)) by s: (n,) -> (n,)."""
    return -d * np.exp(-np.logaddexp(0.0, s * d))
