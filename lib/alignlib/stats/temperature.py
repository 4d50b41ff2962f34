"""One temperature for a reward model: the number that its rewards are divided by so that their gaps are log-odds.

It stands in the model's folder, temperature.json, with a hash of the weights it was fitted for.
"""

import math
import os
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
import orjson

from alignlib.cli.paths import fingerprint
from alignlib.stats.metrics import mean_interval

NAME = "temperature.json"
WEIGHTS = (".safetensors", ".bin")


def log_loss(gaps: Sequence[float], groups: Sequence[int] | None = None, **bootstrap) -> dict:
    """The mean of -log sigmoid(gap), in nats a pair, with its interval: log 2 for a model that knows nothing."""
    return mean_interval(np.logaddexp(0.0, -np.asarray(gaps, dtype=np.float64)), groups, **bootstrap)


def fit(gaps: Sequence[float], groups: Sequence[int], z: float = 1.959964) -> dict:
    """The temperature T of the lowest mean of -log sigmoid(gap / T), with its 95 % interval: {mean, low, high, n}.

    gaps: (n,) reward(preferred) - reward(other); groups: (n,), the same for pairs of one prompt. The loss is convex in
    1/T, with one minimum where some pair is wrong and the mean gap is above 0. Raises ValueError where it has none.
    The interval is the normal one of log T from the sandwich of the loss's derivatives, summed over groups.
    Source: Guo et al. 2017 (arXiv 1706.04599), section 4.2; Huber 1967 (the sandwich).
    """
    d = np.asarray(gaps, dtype=np.float64)
    if not d.astype(np.float32).any():  # nor one whose square would be 0
        raise ValueError("no pair has two different rewards")
    if d.mean() <= 0:
        raise ValueError(f"the mean gap is {d.mean():.3g}: the rewards do not order these pairs")
    if d.min() >= 0:
        raise ValueError("every pair is right: the smaller the temperature, the better")
    low, high = 0.0, 1 / np.abs(d).max()  # of s = 1/T: the slope of sum log(1 + exp(-s d)) is below 0, then above
    while _slopes(d, high).sum() < 0:
        low, high = high, 2 * high
    while low < (s := (low + high) / 2) < high:  # until no number lies between
        low, high = (s, high) if _slopes(d, s).sum() < 0 else (low, s)
    wrong = np.exp(-np.logaddexp(0.0, s * d))  # sigmoid(-s d)
    _, group = np.unique(np.asarray(groups, dtype=np.int64), return_inverse=True)
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


# --- in the model's folder -------------------------------------------------------------------------------------


def save(folder: str, found: dict) -> None:
    """Write what `fit` found, and which weights it is for."""
    told = {"temperature": found["mean"], "low": found["low"], "high": found["high"], "pairs": found["n"],
            "weights": fingerprint(folder, WEIGHTS)}
    beside = Path(folder) / f"{NAME}.tmp"
    beside.write_bytes(orjson.dumps(told, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    os.replace(beside, Path(folder) / NAME)


def load(folder: str) -> float:
    """The temperature of the model in the folder. Raises UsageError where it has none, or that of other weights."""
    file = Path(folder) / NAME
    if not file.is_file():
        raise click.UsageError(f"{folder}: no {NAME}; al-eval rm --fit-temperature {folder} writes it")
    try:
        told = orjson.loads(file.read_bytes())
        value, weights = told["temperature"], told["weights"]
        good = type(value) in (int, float) and value > 0
    except (ValueError, KeyError, TypeError) as error:
        raise click.UsageError(f"{file}: not what al-eval rm --fit-temperature writes") from error
    if not good:
        raise click.UsageError(f"{file}: temperature: expected a number above 0")
    if weights != fingerprint(folder, WEIGHTS):
        raise click.UsageError(f"{file}: fitted for other weights than this folder's; fit it again")
    return value
