"""The part of al-eval that subtracts: what one method's answers to the same prompts are worth more than another's.

    in    {"prompt": "Hi", "completions": ["Hello."], "rewards": [1.5], "logps": [-2.5], "ref_logps": [-4.0]}
    out   {"what": "difference", "of": "exo - dpo", "difference": {"mean": 0.1, "low": 0.0, "high": 0.2, "n": 200}, ...}

    al-eval difference exo=0/exo.jsonl dpo=0/dpo.jsonl exo=1/exo.jsonl dpo=1/dpo.jsonl --at-equal-kl
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from al_eval import results
from al_eval.results import Bootstrap, NamedFile, bootstrap_options, label_option, result_files
from al_eval.reward import require_two_logps
from alignlib.cli import options
from alignlib.records import conversations, fields, jsonl
from alignlib.records.jsonl import Record
from alignlib.records.prompts import prompt_key
from alignlib.records.shown import say

if TYPE_CHECKING:  # it takes a while to load
    import numpy as np

PLACES = 5  # KLs at which two methods are compared


@results.command("prompt", "completions", "rewards", may=("logps", "ref_logps"))
@result_files
@click.option("--at-equal-kl", is_flag=True, help="Compare checkpoints, records with a `step`, by straight lines "
              "between them: the mean difference over the KLs that both methods reach.")
@bootstrap_options
@label_option
def difference(files: list[NamedFile], at_equal_kl: bool, resamples: int, seed: int, labels: Record,
               output: str | None, as_json: bool | None) -> None:
    """How much more reward one method has than another on the same prompts. Reads all input first, keeps only numbers.

    Reads the rewarded records of two methods, FIRST=FILE SECOND=FILE; of several runs (seeds) a file each, in the
    same order. The interval is of the difference, prompt by prompt, and so narrower than the two methods' own: prompts
    are drawn; of several runs, what other runs would have given is added, Student's t by their spread: two or three
    say little. Without --at-equal-kl the last `step` counts, where there are steps; with it a run whose methods reach
    no KL in common has no difference, and is left out of the mean.
    """
    summary = options.Summary()
    names = list(dict.fromkeys(name for name, _ in files))
    if len(names) != 2 or None in names:
        raise click.UsageError("two methods are compared: FIRST=FILE SECOND=FILE")
    results.check_labels(labels, ("of", "difference", "runs", *(["kls"] if at_equal_kl else [])))
    first, second = ([path for name, path in files if name == wanted] for wanted in names)
    if len(first) != len(second):
        raise click.UsageError(f"{names[0]} has {len(first)} runs, {names[1]} {len(second)}: a file of each a run")
    prompts: dict[bytes, int] = {}
    runs = []
    for paths in zip(first, second, strict=True):
        runs.append(tuple(_policies(path, prompts, at_equal_kl, summary) for path in paths))
    summary.count(runs=len(runs))
    figures = compared(runs, at_equal_kl, Bootstrap(resamples=resamples, seed=seed))
    results.write("difference", {"of": f"{names[0]} - {names[1]}", **figures}, labels, output, as_json)
    summary.close()


Points = tuple["np.ndarray", "np.ndarray"]  # of a method's checkpoints KLs and rewards of each prompt: (s, p), (s, p)


def _policies(path: str, prompts: dict[bytes, int], with_kl: bool, summary: options.Summary) -> Points:
    """What a file's policies, in order of `step`, get and cost on each prompt; `prompts` numbers those of all files.

    A prompt's answers at a step, of one record or several, count by their mean, however many another file has. Raises
    DataError for a prompt that another file, or another step, does not have.
    """
    import numpy as np

    known = bool(prompts)
    sums: dict[float, dict[int, tuple[int, float, float]]] = {}  # step -> prompt -> answers, rewards, KLs
    for line in conversations.read_all((path,), _require_kl if with_kl else _require):
        record, step = line.record, line.record.get("step", 0)
        key = prompt_key(record)
        if known and key not in prompts:
            raise jsonl.DataError(f"{line.where}: the files before do not have this prompt")
        count, reward, kl = sums.setdefault(step, {}).get(place := prompts.setdefault(key, len(prompts)), (0, 0.0, 0.0))
        gaps = [p - r for p, r in zip(record["logps"], record["ref_logps"], strict=True)] if with_kl else []
        rewards = record["rewards"]
        sums[step][place] = count + len(rewards), reward + sum(rewards), kl + sum(gaps)
        summary.count(records=1, completions=len(rewards))
    if not sums:
        raise jsonl.DataError(f"{path}: no records")
    for step, totals in sums.items():
        if len(totals) < len(prompts):
            raise jsonl.DataError(f"{path}: step {step} lacks {len(prompts) - len(totals)} of the prompts")
    table = np.array([[sums[step][place] for place in range(len(prompts))] for step in sorted(sums)])  # (s, p, 3)
    return table[..., 2] / table[..., 0], table[..., 1] / table[..., 0]


def _require(record: Record) -> None:
    fields.require_completions(record, "rewards")
    if type(step := record.get("step", 0)) not in (int, float):
        raise ValueError(f"step: expected a number, got {jsonl.kind(step)}")
    if not record["rewards"]:
        raise ValueError("completions: none here, to be compared")


def _require_kl(record: Record) -> None:
    _require(record)
    require_two_logps(record)


def compared(runs: "list[tuple[Points, ...]]", at_equal_kl: bool, bootstrap: Bootstrap) -> Record:
    """{difference, runs, kls}: the mean over runs with its interval, each run's, and the KLs compared at.

    runs: the two methods' Points of each, all of the same prompts. A run of one prompt has no interval, nor has the
    mean of one such run.
    """
    import numpy as np

    from al_eval.means import mean_interval

    nothing = mean_interval([])
    common = [_common_kls(*run) if at_equal_kl else [] for run in runs]
    kls: Record = {"kls": common} if at_equal_kl else {}
    of_all: list[Any] = [nothing for _ in runs]
    places = [place for place, at in enumerate(common) if at or not at_equal_kl]
    if not places:
        return {"difference": nothing, "runs": of_all, **kls}
    runs = [runs[place] for place in places]
    ats = [common[place] for place in places]
    prompts = runs[0][0][0].shape[1]
    rng = np.random.default_rng(bootstrap["seed"])
    draws = rng.multinomial(prompts, np.full(prompts, 1 / prompts), size=bootstrap["resamples"]) / prompts  # (b, p)
    whole = np.full((1, prompts), 1 / prompts)
    means = [float(_gaps(run, whole, at)[0]) for run, at in zip(runs, ats, strict=True)]
    drawn = np.stack([_gaps(run, draws, at) for run, at in zip(runs, ats, strict=True)])  # (runs, b)
    for place, mean, gaps in zip(places, means, drawn, strict=True):
        of_all[place] = _mean(mean, gaps, prompts)
    together = drawn.mean(0) + _of_other_runs(means, bootstrap["resamples"], rng)
    return {"difference": _mean(float(np.mean(means)), together, prompts * len(runs)), "runs": of_all, **kls}


def _of_other_runs(means: list[float], resamples: int, rng: "np.random.Generator") -> "np.ndarray":
    """How far off other runs' mean may lie: (r,) -> (b,), Student's t by these runs' spread; of one run nothing."""
    import numpy as np
    from scipy.stats import t

    if len(means) < 2:
        return np.zeros(resamples)
    quantiles = t.ppf((np.arange(resamples) + 0.5) / resamples, len(means) - 1)
    far: np.ndarray = rng.permutation(quantiles) * np.std(means, ddof=1) / len(means) ** 0.5
    return far


def _mean(mean: float, drawn: "np.ndarray", n: int) -> Record:
    """The mean of n numbers, with the interval of what was drawn of them: None of one, which has no spread."""
    import numpy as np

    low, high = np.quantile(drawn, [0.025, 0.975]).tolist() if n > 1 else (None, None)
    return {"mean": mean, "low": low, "high": high, "n": n}


def _common_kls(first: Points, second: Points) -> list[float]:
    means = [kls.mean(1) for kls, _ in (first, second)]
    low, high = max(of.min() for of in means), min(of.max() for of in means)
    if low > high:
        say(f"warning: no KL is reached by both: {', '.join(_range(of) for of in means)}")
        return []
    return [float(low + (high - low) * place / (PLACES - 1)) for place in range(PLACES)]


def _range(kls: Iterable[float]) -> str:
    return f"{min(kls):.3g} to {max(kls):.3g}"


def _gaps(run: tuple[Points, ...], weights: "np.ndarray", at: list[float]) -> "np.ndarray":
    """The difference of rewards under each weighting of the prompts: (b, p) -> (b,)."""
    import numpy as np

    from al_eval.metrics import reward_at

    first, second = ([weights @ figures.T for figures in points] for points in run)  # KLs and rewards: (b, s) each
    if not at:
        gaps: np.ndarray = first[1][:, -1] - second[1][:, -1]
        return gaps
    lines = [np.array([reward_at(kls, rewards, at).mean() for kls, rewards in zip(*points, strict=True)])
             for points in (first, second)]
    return lines[0] - lines[1]
