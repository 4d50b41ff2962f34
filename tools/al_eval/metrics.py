"""The figures of an evaluation beside means, as pure functions on numbers and texts.

Nothing here reads files, knows a record's fields or draws. A figure that does not exist (the correlation of one value)
is None, never NaN, so that it prints as JSON null.
"""

import math
import re
from collections.abc import Iterable, Sequence

import numpy as np

from al_eval.means import Integers, Numbers, group_numbers

# Words with their inner apostrophes and hyphens, and every other printed mark by itself.
WORD = re.compile(r"\w+(?:['’-]\w+)*|[^\w\s]")


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


def reward_at(kl: Sequence[float], reward: Sequence[float], at: Sequence[float]) -> np.ndarray:
    """A method's reward at a KL: (p,), (p,) points, (q,) KLs -> (q,).

    Straight lines between the points, in order of KL: where a policy goes further for less, its over-optimisation, the
    line falls. Outside the points' range: the nearest point's value.
    """
    k, r = np.asarray(kl, dtype=np.float64), np.asarray(reward, dtype=np.float64)
    order = np.lexsort((r, k))
    return np.interp(np.asarray(at, dtype=np.float64), k[order], r[order])
