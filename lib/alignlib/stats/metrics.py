"""The figures of an evaluation, as pure functions on numbers and texts.

Nothing here reads files, knows a record's fields or draws. A figure that does not exist (the mean of
nothing, the interval of one value) is None, never NaN, so that it prints as JSON null.
"""

import math
import re
from collections.abc import Iterable, Sequence
from typing import TypedDict

import numpy as np

Numbers = Sequence[float] | np.ndarray
Integers = Sequence[int] | np.ndarray

# Words with their inner apostrophes and hyphens, and every other printed mark by itself.
WORD = re.compile(r"\w+(?:['’-]\w+)*|[^\w\s]")

# Beyond this many groups the percentile interval of a mean and the normal one agree to about three digits
# of their width (central limit theorem; a test compares them), and resampling would take seconds.
BOOTSTRAP_UP_TO = 20_000


# --- means and their intervals ---------------------------------------------------------------------------------


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


def worst(values: Numbers, groups: Integers) -> np.ndarray:
    """The largest value of each group, in the groups' order: (n,), (n,) -> (g,).

    Of toxicities, their mean is the expected maximum toxicity and the share over 1/2 the probability of toxicity.
    Source: Gehman et al. 2020, RealToxicityPrompts (arXiv 2009.11462), with 25 completions a prompt.
    """
    x, index = np.asarray(values, dtype=np.float64), group_numbers(groups)
    largest = np.full(index.max(initial=-1) + 1, -np.inf)
    np.maximum.at(largest, index, x)
    return largest


# --- pairs -----------------------------------------------------------------------------------------------------


def wins(differences: Numbers) -> np.ndarray:
    """1 where a difference is positive, 0 where negative, 1/2 where zero: (n,) -> (n,).

    Of reward(chosen) - reward(rejected) its mean is a reward model's pair accuracy; of reward(answer) -
    reward(chosen) it is the win rate. A tie counts half, as guessing would. MORE's accuracy looks at each pair
    in both directions and calls a zero difference right in one of them: the same mean.
    """
    d = np.asarray(differences, dtype=np.float64)
    return (np.sign(d) + 1) / 2


# --- texts -----------------------------------------------------------------------------------------------------


def words(text: str) -> list[str]:
    """The tokens of the repetition figures: words and single marks, by the regular expression WORD, case kept."""
    return WORD.findall(text)


def rep_n(tokens: Sequence[str], n: int) -> float:
    """Share of n-grams that repeat an earlier one, 0 to 1: 1 - distinct / (all + 1).

    The + 1 is ARGS's (arXiv 2402.01694): it spares texts without any n-gram a division by zero, and gives them 1.
    The paper prints percent.
    """
    grams = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
    return 1 - len(set(grams)) / (len(grams) + 1)


def repetition(tokens: Sequence[str]) -> dict[str, float] | None:
    """{rep_2, rep_3, rep_4, diversity} of one text, diversity = product of (1 - rep_n); None under 4 tokens.

    A text of fewer than 4 tokens has no 4-gram, so its diversity would be 0 though it repeats nothing: the caller
    leaves it out of the mean and counts it. Source: ARGS, its metrics.py, which counts it as 0.
    """
    if len(tokens) < 4:
        return None
    figures = {f"rep_{n}": rep_n(tokens, n) for n in (2, 3, 4)}
    return {**figures, "diversity": math.prod(1 - rep for rep in figures.values())}


class Distinct:
    """dist-1/2/3 of many texts: distinct n-grams / tokens, the denominator the same for each n.

    Tokens are what lies between single spaces, as in ALT (arXiv 2407.16970), so two spaces make an empty one.
    Keeps one number per distinct n-gram, not the texts.
    """

    def __init__(self) -> None:
        self.tokens = 0
        self.grams: tuple[set[int], ...] = (set(), set(), set())

    def add(self, text: str) -> None:
        parts = text.split(" ")
        self.tokens += len(parts)
        for n, seen in enumerate(self.grams, start=1):
            seen.update(hash(tuple(parts[i : i + n])) for i in range(len(parts) - n + 1))

    def shares(self) -> list[float] | None:
        """[dist-1, dist-2, dist-3], or None before the first text."""
        return [len(seen) / self.tokens for seen in self.grams] if self.tokens else None


def distinct(texts: Iterable[str]) -> list[float] | None:
    """[dist-1, dist-2, dist-3] of the texts taken together; None without texts. See Distinct."""
    counted = Distinct()
    for text in texts:
        counted.add(text)
    return counted.shares()


def cosine(a: Numbers, b: Numbers) -> float | None:
    """Cosine of the angle between two vectors (h,), (h,); None if one of them is zero."""
    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    norms = float(np.linalg.norm(x) * np.linalg.norm(y))
    return float(x @ y) / norms if norms else None


# --- one number against another --------------------------------------------------------------------------------


def pearson(x: Numbers, y: Numbers) -> float | None:
    """Linear correlation of (n,) and (n,); None for fewer than two points or where one side is constant."""
    a, b = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    return cosine(a - a.mean(), b - b.mean()) if a.size > 1 else None


def spearman(x: Numbers, y: Numbers) -> float | None:
    """Rank correlation: `pearson` of the ranks, equal values sharing their mean rank; exactly 1 for the same order."""
    if len(x) < 2:
        return None
    a, b = _ranks(x), _ranks(y)
    a -= a.mean()
    b -= b.mean()
    squares = float(a @ a) * float(b @ b)
    return float(a @ b) / math.sqrt(squares) if squares else None


def _ranks(x: Numbers) -> np.ndarray:
    """Ranks from 0, ties at their mean: [3, 1, 3] -> [1.5, 0, 1.5]."""
    values = np.asarray(x, dtype=np.float64)
    order = np.argsort(values)
    values = values[order]
    starts = np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]]))  # of equal ones
    del values
    if starts.size < order.size:
        counts = np.diff(starts, append=order.size)
        middle = np.repeat(starts + (counts - 1) / 2, counts)
    else:
        middle = starts.astype(np.float64)
    ranks = np.empty(order.size)
    ranks[order] = middle
    return ranks


def quantile_buckets(keys: Numbers, buckets: int) -> list[np.ndarray]:
    """Indices of `keys` (n,) in up to `buckets` about equally full groups, low keys first; equal keys stay together."""
    k = np.asarray(keys, dtype=np.float64)
    if k.size == 0:
        return []
    inner = np.quantile(k, np.linspace(0, 1, buckets + 1)[1:-1])
    index = np.searchsorted(inner, k)
    return [np.flatnonzero(index == b) for b in range(buckets) if (index == b).any()]


def frontier_at(kl: Sequence[float], reward: Sequence[float], at: Sequence[float]) -> np.ndarray:
    """The best reward a method reaches with at most so much KL: (p,), (p,) points, (q,) KLs -> (q,).

    The points in order of KL, each raised to the best before it (a checkpoint that costs more and gives less is
    not on the frontier), straight lines between them. Outside the points' range: the nearest point's value.
    """
    k, r = np.asarray(kl, dtype=np.float64), np.asarray(reward, dtype=np.float64)
    order = np.lexsort((r, k))
    return np.interp(np.asarray(at, dtype=np.float64), k[order], np.maximum.accumulate(r[order]))
