"""The part of al-eval about rewards and what they cost: the mean reward, wins over chosen answers, KL.

    in    {"prompt": "Hi", "completions": ["Hello.", "What?"], "rewards": [1.5, -0.5]}
    out   {"what": "reward", "records": 1, "reward": {"mean": 0.5, "low": null, "high": null, "n": 2}, ...}

    in    {"prompt": "Hi", "completions": ["Hello."], "logps": [-2.5], "ref_logps": [-4.0]}
    out   {"what": "kl", "records": 1, "kl": {"mean": 1.5, "low": null, "high": null, "n": 1}, "kl_per_token": null}

    al-sample exo prompts.jsonl | al-score rm | al-eval reward --against chosen.jsonl
    al-sample exo prompts.jsonl | al-score exo --logps | al-score sft --as-field ref_logps | al-eval kl
"""

from array import array
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import click

from al_eval import results
from al_eval.results import READABLE, Bootstrap, Sample, bootstrap_options, label_option, record_files
from alignlib.cli import options
from alignlib.records import conversations, fields, jsonl
from alignlib.records.jsonl import Line, Record
from alignlib.records.prompts import prompt_key

T = TypeVar("T")


@results.command("prompt", "completions", "rewards")
@record_files
@label_option
@click.option("--as", "name", default="reward", help="The figure's name in the result, e.g. learned_reward.")
@click.option("--against", type=READABLE,
              help="Records with the same prompts, the chosen answer first and rewarded: adds the win rate over it.")
@click.option("--buckets", default=4, type=click.IntRange(1), help="Groups by length, about equally full.")
@bootstrap_options
def reward(files: tuple[str, ...], name: str, against: str | None, buckets: int, resamples: int, seed: int,
           labels: Record, output: str | None, as_json: bool | None) -> None:
    """Mean reward, also by length of the completion in words. Streams, keeps only numbers.

    --against adds `winrate`: how often a completion's reward is above that of the first completion of the record
    with the same prompt (of each, if there are several); a tie counts half. --as NAME calls both figures after it:
    NAME, NAME_winrate.
    """
    if name in ("what", "records", "words", "by_length"):
        raise click.UsageError(f"--as {name}: the result has another {name}")
    summary, bootstrap = options.Summary(), Bootstrap(resamples=resamples, seed=seed)
    summary.count(records=0)  # said even of an empty input
    rewards = Sample()
    words, won = Sample("I", beside=rewards), Sample(beside=rewards) if against else None
    results.check_labels(labels, ["records", *figures(name, rewards, words, won, buckets, bootstrap)])
    rivals = read_by_prompt(against, first_reward) if against else {}
    for line in conversations.read_all(files, lambda record: fields.require_completions(record, "rewards")):
        summary.count(records=1, completions=len(line.record["rewards"]))
        rewards.add(line.index, line.record["rewards"])
        words.add(line.index, (len(text.split()) for text in line.record["completions"]))
        if against and won:
            won.add(line.index, win_shares(line, rivals, against))
    result = {"records": summary.counts["records"], **figures(name, rewards, words, won, buckets, bootstrap)}
    results.write("reward", result, labels, output, as_json)
    summary.close()


def figures(name: str, rewards: Sample, words: Sample, won: Sample | None, buckets: int,
            bootstrap: Bootstrap) -> Record:
    """The figures of the rewards, called `name`, of their completions' words and, where asked for, of their wins."""
    from al_eval import metrics

    return {
        name: rewards.mean(bootstrap),
        **({"winrate" if name == "reward" else f"{name}_winrate": won.mean(bootstrap)} if won else {}),
        "words": words.mean(bootstrap),
        f"{name}_length_pearson": metrics.pearson(words.values, rewards.values),
        f"{name}_length_spearman": metrics.spearman(words.values, rewards.values),
        "by_length": by_length(words, rewards, name, buckets, bootstrap),
    }


def first_reward(record: Record) -> float:
    """The reward of the record's first completion. Raises ValueError."""
    fields.require_completions(record, "rewards")
    reward: float = record["rewards"][0]
    return reward


def win_shares(line: Line, rivals: dict[bytes, list[float]], against: str) -> list[float]:
    """Of each completion of a record, which share of its prompt's rivals it beats, a tie being half a win.

    Raises DataError where the file `against`, which the rivals are from, has none of this prompt.
    """
    from al_eval.metrics import wins

    others = rivals.get(prompt_key(line.record))
    if others is None:
        raise jsonl.DataError(f"{line.where}: no record of {against} has this prompt")
    return [float(wins([reward - other for other in others]).mean()) for reward in line.record["rewards"]]


def by_length(words: Sample, rewards: Sample, name: str, buckets: int, bootstrap: Bootstrap) -> list[dict[str, Any]]:
    """The mean reward, called `name`, of about equally many completions each, the shortest first."""
    import numpy as np

    from al_eval.means import mean_interval
    from al_eval.metrics import quantile_buckets

    rows = []
    for members in quantile_buckets(words.values, buckets):
        lengths, values, groups = (np.asarray(column)[members]
                                   for column in (words.values, rewards.values, rewards.groups))
        rows.append({"words": [int(lengths.min()), int(lengths.max())],
                     name: mean_interval(values, groups, **bootstrap)})
    return rows


@results.command("prompt", "completions", "logps", "ref_logps")
@record_files
@label_option
@bootstrap_options
def kl(files: tuple[str, ...], resamples: int, seed: int, labels: Record, output: str | None,
       as_json: bool | None) -> None:
    """KL(policy || reference) in nats on the policy's samples: mean of logps - ref_logps. Streams, keeps only numbers.

    `kl` is per completion; `kl_per_token` their sum over all tokens, where every record has `completion_ids` (and
    one token more for the end-of-sequence of a completion that was not cut). Samples are the policy's own if they
    were drawn at the temperature of the log-probabilities, without top-p or top-k.
    """
    from al_eval.means import mean_interval

    results.check_labels(labels, ("records", "kl", "kl_per_token"))
    summary, bootstrap = options.Summary(), Bootstrap(resamples=resamples, seed=seed)
    summary.count(records=0)
    ratios, tokens, counted = Sample(), array("I"), True
    for line in conversations.read_all(files, require_two_logps):
        record = line.record
        summary.count(records=1, completions=len(record["logps"]))
        ratios.add(line.index, (p - r for p, r in zip(record["logps"], record["ref_logps"], strict=True)))
        tokens.extend(token_counts(record))
        counted = counted and "completion_ids" in record
    per_token = mean_interval(ratios.values, ratios.groups, weights=tokens, **bootstrap) if counted else None
    figures = {"records": summary.counts["records"], "kl": ratios.mean(bootstrap), "kl_per_token": per_token}
    results.write("kl", figures, labels, output, as_json)
    summary.close()


def require_two_logps(record: Record) -> None:
    """Check that a record has both log-probabilities, at one temperature. Raises ValueError."""
    fields.require_completions(record, "logps", "ref_logps")
    policy, reference = (record.get(f"{name}_temperature", 1) for name in ("logps", "ref_logps"))
    if policy != reference:
        raise ValueError(f"logps_temperature: {policy}, but ref_logps_temperature: {reference}")


def token_counts(record: Record) -> Iterator[int]:
    """Tokens that a completion's log-probability is a sum over, for each completion with known ids."""
    ids = record.get("completion_ids")
    if ids is None:
        return
    for row, reason in zip(ids, record.get("finish_reasons", ["stop"] * len(ids)), strict=True):
        yield len(row) + (reason == "stop")


def read_by_prompt(path: str, prepare: Callable[[Record], T]) -> dict[bytes, list[T]]:
    """What `prepare` makes of a file's records, in lists by `prompt_key`: to join another file's records with.

    Raises DataError for a bad line.
    """
    by_prompt: dict[bytes, list[T]] = {}
    for line in jsonl.read_all([path], conversations.reader(prepare)):
        by_prompt.setdefault(prompt_key(line.record), []).append(line.data)
    return by_prompt
