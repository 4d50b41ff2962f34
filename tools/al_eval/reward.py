"""al-eval reward and kl."""

from collections.abc import Iterator

import click

from al_eval import results
from al_eval.results import READABLE, Sample, bootstrap_options, label_option, record_files
from alignlib.cli import options
from alignlib.records import fields, jsonl
from alignlib.records.jsonl import Record
from alignlib.records.prompts import prompt_key, read_by_prompt


@results.command("prompt", "completions", "rewards")
@record_files
@label_option
@click.option("--as", "name", default="reward", help="The figure's name in the result, e.g. learned_reward.")
@click.option("--against", type=READABLE,
              help="Records with the same prompts, the chosen answer first and rewarded: adds the win rate over it.")
@click.option("--buckets", default=4, type=click.IntRange(1), help="Groups by length, about equally full.")
@bootstrap_options
def reward(files, name, against, buckets, resamples, seed, labels, output, as_json) -> None:
    """Mean reward, also by length of the completion in words. Streams, keeps only numbers.

    --against adds `winrate`: how often a completion's reward is above that of the first completion of the record
    with the same prompt (of each, if there are several); a tie counts half. --as NAME calls both figures after it:
    NAME, NAME_winrate.
    """
    from alignlib.stats import metrics

    if name in ("what", "records", "words", "by_length"):
        raise click.UsageError(f"--as {name}: the result has another {name}")
    summary, bootstrap = options.Summary(), {"resamples": resamples, "seed": seed}
    summary.count(records=0)  # said even of an empty input
    other = read_by_prompt(against, first_reward) if against else {}
    rewards, words, won = Sample(), Sample(), Sample()
    for line in jsonl.read_all(files, lambda record: fields.require_completions(record, "rewards")):
        summary.count(records=1, completions=len(line.record["rewards"]))
        rewards.add(line.index, line.record["rewards"])
        words.add(line.index, (len(text.split()) for text in line.record["completions"]))
        if against:
            rivals = other.get(prompt_key(line.record))
            if rivals is None:
                raise jsonl.DataError(f"{line.where}: no record of {against} has this prompt")
            won.add(line.index, (metrics.wins([r - rival for rival in rivals]).mean() for r in line.record["rewards"]))
    by_length = []
    for members in metrics.quantile_buckets(words.values, buckets):
        lengths, scores = ([column[i] for i in members] for column in (words.values, rewards.values))
        groups = [rewards.groups[i] for i in members]
        by_length.append({"words": [int(min(lengths)), int(max(lengths))],
                          name: metrics.mean_interval(scores, groups, **bootstrap)})
    figures = {"records": summary.counts["records"], name: rewards.mean(bootstrap)}
    if against:
        figures["winrate" if name == "reward" else f"{name}_winrate"] = won.mean(bootstrap)
    figures |= {
        "words": words.mean(bootstrap),
        f"{name}_length_pearson": metrics.pearson(words.values, rewards.values),
        f"{name}_length_spearman": metrics.spearman(words.values, rewards.values),
        "by_length": by_length,
    }
    results.write("reward", figures, labels, output, as_json)
    summary.close()


def first_reward(record: Record) -> float:
    """The reward of the record's first completion. Raises ValueError."""
    fields.require_completions(record, "rewards")
    return record["rewards"][0]


@results.command("prompt", "completions", "logps", "ref_logps")
@record_files
@label_option
@bootstrap_options
def kl(files, resamples, seed, labels, output, as_json) -> None:
    """KL(policy || reference) in nats on the policy's samples: mean of logps - ref_logps. Streams, keeps only numbers.

    `kl` is per completion; `kl_per_token` their sum over all tokens, where every record has `completion_ids` (and
    one token more for the end-of-sequence of a completion that was not cut). Samples are the policy's own if they
    were drawn at the temperature of the log-probabilities, without top-p or top-k.
    """
    from alignlib.stats.metrics import mean_interval

    summary, bootstrap = options.Summary(), {"resamples": resamples, "seed": seed}
    summary.count(records=0)
    ratios, tokens, counted = Sample(), Sample(), True
    for line in jsonl.read_all(files, two_logps):
        record = line.record
        summary.count(records=1, completions=len(record["logps"]))
        ratios.add(line.index, (p - r for p, r in zip(record["logps"], record["ref_logps"], strict=True)))
        tokens.add(line.index, token_counts(record))
        counted = counted and "completion_ids" in record
    per_token = mean_interval(ratios.values, ratios.groups, weights=tokens.values, **bootstrap) if counted else None
    figures = {"records": summary.counts["records"], "kl": ratios.mean(bootstrap), "kl_per_token": per_token}
    results.write("kl", figures, labels, output, as_json)
    summary.close()


def two_logps(record: dict) -> None:
    fields.require_completions(record, "logps", "ref_logps")
    policy, reference = (record.get(f"{name}_temperature", 1) for name in ("logps", "ref_logps"))
    if policy != reference:
        raise ValueError(f"logps_temperature: {policy}, but ref_logps_temperature: {reference}")


def token_counts(record: dict) -> Iterator[int]:
    """Tokens that a completion's log-probability is a sum over, for each completion with known ids."""
    ids = record.get("completion_ids")
    if ids is None:
        return
    for row, reason in zip(ids, record.get("finish_reasons", ["stop"] * len(ids)), strict=True):
        yield len(row) + (reason == "stop")
