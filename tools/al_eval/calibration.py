"""How far a reward model's probabilities are from the truth: reliability curves and calibration errors, pure functions.

A gap is reward(preferred) - reward(other), and sigmoid(gap) the probability that the model gives the preference.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, TypedDict

import numpy as np

from al_eval.means import BOOTSTRAP_UP_TO, Integers, Mean, Numbers, group_numbers

ERRORS = ("ECE", "ACE", "MCE")


class Interval(TypedDict):
    """The ends of a share's 95 % interval."""

    low: float
    high: float


class Bin(Interval):
    """A point of a reliability curve; see `reliability`."""

    n: int
    predicted: float
    observed: float


def both_directions(differences: Numbers) -> tuple[np.ndarray, np.ndarray]:
    """Pairs as a calibrator sees them: (n,) differences, preferred minus other -> truth (2n,), probability (2n,).

    probability = sigmoid(difference) that the first of a pair is the preferred one. Asked in one direction only
    the truth would always be 1, and no bin below 1/2 could be calibrated; so each pair is asked both ways.
    Source: MORE (arXiv 2312.07401), its compute_metrics.
    """
    d = np.asarray(differences, dtype=np.float64)
    p = np.exp(-np.logaddexp(0.0, -d))  # sigmoid without overflow
    q = np.exp(-np.logaddexp(0.0, d))  # not 1 - p, which is 0 already at d = 40
    return np.concatenate([np.ones_like(d), np.zeros_like(d)]), np.concatenate([p, q])


def reliability(truth: Numbers, probability: Numbers, bins: int, strategy: str = "uniform") -> list[Bin]:
    """The reliability curve: [{n, predicted, observed, low, high}] of the bins that are not empty, from low to high.

    truth: (n,) of 0 and 1; probability: (n,) in [0, 1]. `uniform` bins are equally wide, `quantile` bins equally
    full as far as ties allow; both are closed on the right. predicted: mean probability; observed: share of 1s,
    between low and high, its 95 % interval.
    """
    t, p = np.asarray(truth, dtype=np.float64), np.asarray(probability, dtype=np.float64)
    if t.size == 0:
        return []
    index = bin_of(p, bins, strategy)
    n = np.bincount(index, minlength=bins)
    full = n > 0
    predicted = np.bincount(index, weights=p, minlength=bins)[full] / n[full]
    ones = np.bincount(index[t == 1], minlength=bins)[full]
    return [
        {"n": k, "predicted": mean, "observed": one / k, **share_interval(one, k)}
        for k, mean, one in zip(n[full].tolist(), predicted.tolist(), ones.tolist(), strict=True)
    ]


def bin_of(probability: Numbers, bins: int, strategy: str) -> np.ndarray:
    """The bin of each probability, (n,) > 0 of them -> (n,) in 0..bins-1; see `reliability` for the strategies."""
    p, grid = np.asarray(probability, dtype=np.float64), np.linspace(0.0, 1.0, bins + 1)
    if strategy == "uniform":
        edges = grid
    elif strategy == "quantile":
        edges = np.quantile(p, grid)
    else:
        raise ValueError(f"strategy must be 'uniform' or 'quantile', not {strategy!r}")
    return np.searchsorted(edges[1:-1], p)


def share_interval(ones: int, n: int) -> Interval:
    """Wilson's 95 % interval {low, high} of the share ones / n, n > 0.

    Unlike the bootstrap's it has a width at shares 0 and 1, which small bins often have.
    Source: Wilson 1927, J. Am. Stat. Assoc. 22.
    """
    from scipy.stats import binomtest

    interval = binomtest(ones, n).proportion_ci(0.95, method="wilson")
    return {"low": float(interval.low), "high": float(interval.high)}


def calibration_errors(curve: Sequence[Bin]) -> dict[str, float | None]:
    """Distance of a `reliability` curve from the diagonal: {ECE, ACE, MCE}.

    With gap = |predicted - observed| of a bin: ECE is its mean over the answers (bins weighted by n), ACE over
    the bins, MCE its maximum. None without any answer.
    Source: Naeini et al. 2015 (ECE, MCE); Neumann et al. 2018 (ACE, here with the bins that are not empty).
    """
    if not curve:
        return {"ECE": None, "ACE": None, "MCE": None}
    sums = np.array([[(bin["predicted"] - bin["observed"]) * bin["n"], bin["n"]] for bin in curve])
    return {name: float(error[0]) for name, error in _errors(sums[None]).items()}


# --- intervals -------------------------------------------------------------------------------------------------


class Binning(NamedTuple):
    """How probabilities are binned (`reliability`)."""

    strategy: str
    bins: int


def errors(gaps: Numbers, groups: Integers, binnings: Sequence[Binning], *, confidence: float = 0.95,
           resamples: int = 1000, seed: int = 0) -> list[dict[str, Any]]:
    """ECE, ACE and MCE of pairs under each binning, with intervals: [{strategy, bins, ECE: {mean, low, high, n}, ...}].

    gaps: (n,); groups: (n,) integers, the same for pairs of one prompt, which are drawn together. Bins stay where the
    whole sample puts them. The interval is the basic bootstrap's, [2 e - q(97.5 %), 2 e - q(2.5 %)] cut at 0, and
    always holds the estimate e: noise alone makes an error (that of a perfect model on 100 pairs in 10 bins is .07 on
    average), a resample's twice, so that percentiles would lie above the truth by as much as the estimate does already;
    of well calibrated models they nearly never hold it (a test counts both). One group: no interval.
    Source: Davison and Hinkley, Bootstrap Methods and their Application (1997), section 5.2.
    """
    if not len(gaps):
        return [{**binning._asdict(), **{name: _interval(None, None, 0, confidence) for name in ERRORS}}
                for binning in binnings]
    truth, probability = both_directions(gaps)
    rows = []
    for binning in binnings:
        sums = _bin_sums(truth, probability, groups, *binning)
        estimates = _errors(sums.sum(0, keepdims=True))
        resampled = _errors(_drawn(sums, resamples, seed)) if len(sums) > 1 else {}
        rows.append({**binning._asdict(), **{
            name: _interval(float(estimates[name][0]), resampled.get(name), len(gaps), confidence)
            for name in ERRORS}})
    return rows


def _bin_sums(truth: np.ndarray, probability: np.ndarray, groups: Integers, strategy: str,
              bins: int) -> np.ndarray:
    """For each group and bin the sum of probability - truth, and how many: (2n,), (2n,), (n,) -> [G, bins, 2]."""
    group = group_numbers(groups)
    cell = np.tile(group, 2) * bins + bin_of(probability, bins, strategy)
    size = (group.max() + 1) * bins
    columns = [np.bincount(cell, weights=weights, minlength=size) for weights in (probability - truth, None)]
    return np.stack(columns, axis=-1).reshape(-1, bins, 2)


def _drawn(sums: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Bootstrap sums over groups: [G, bins, 2] -> [R, bins, 2]; over many groups from the normal law they tend to."""
    rng, (g, *shape) = np.random.default_rng(seed), sums.shape
    flat = sums.reshape(g, -1)
    if g > BOOTSTRAP_UP_TO:
        total = flat.sum(0)
        spread = flat.T @ flat - np.outer(total, total) / g  # g times the covariance of a group's sums
        return rng.multivariate_normal(total, spread, resamples, method="eigh").reshape(-1, *shape)
    parts, rows = [], max(1, 2_000_000 // g)  # so many resamples at once: about 50 MB
    for start in range(0, resamples, rows):
        picked = rng.integers(0, g, size=(min(rows, resamples - start), g))
        times = np.stack([np.bincount(row, minlength=g) for row in picked])  # how often each group is drawn
        parts.append(times @ flat)
    return np.concatenate(parts).reshape(-1, *shape)


def _errors(sums: np.ndarray) -> dict[str, np.ndarray]:
    """[R, bins, 2] of `_bin_sums`, added up -> {ECE, ACE, MCE}, each (R,)."""
    off, n = np.abs(sums[..., 0]), sums[..., 1]
    full = n > 0.5  # sums from the normal law are no whole numbers
    gap = np.where(full, off / np.where(full, n, 1), 0)
    return {"ECE": (gap * n).sum(1) / (n * full).sum(1), "ACE": gap.sum(1) / full.sum(1), "MCE": gap.max(1)}


def _interval(estimate: float | None, drawn: np.ndarray | None, n: int, confidence: float) -> Mean:
    """{mean, low, high, n}: the basic bootstrap interval of an error that cannot be below 0; see `errors`."""
    if estimate is None or drawn is None:
        return {"mean": estimate, "low": None, "high": None, "n": n}
    tail = (1 - confidence) / 2
    high, low = (2 * estimate - np.quantile(drawn, [tail, 1 - tail])).tolist()
    return {"mean": estimate, "low": max(0.0, min(low, estimate)), "high": max(high, estimate), "n": n}
