"""al-eval: records -> figures, as JSON in a pipe, a table on a terminal, a plot with --plot.

    in    {"prompt": "Hi", "completions": ["Hello.", "What?"], "rewards": [1.5, -0.5]}
    out   {"what": "reward", "records": 1, "reward": {"mean": 0.5, "low": null, "high": null, "n": 2}, ...}

    al-sample sft prompts.jsonl | al-score rm | al-eval reward

A mean is {mean, low, high, n}: low and high bound its 95 % bootstrap interval, n is how many numbers went in.
Completions of one record are drawn together, since they resemble each other. The subcommands that compare such
results are in al_eval_compare.py, reward models in al_eval_rm.py, win rates in al_eval_winrate.py, conditions and
toxicity in al_eval_alt.py.
"""

from array import array
from collections.abc import Callable, Iterable, Iterator

import click

from al_eval import results
from al_eval.compare import curve, frontier, table
from al_eval.results import READABLE, bootstrap_options, label_option, prompt_key, record_files
from al_eval.reward_model import rm
from al_eval.steering import conditions, toxicity
from al_eval.winrate import winrate
from alignlib.cli import options
from alignlib.records import fields, jsonl

EMBED = 64  # texts embedded at once
REPETITION = ("rep_2", "rep_3", "rep_4", "diversity")
PER_RECORD = ("dist_1_per_record", "dist_2_per_record", "dist_3_per_record")
EXTRA = {"seconds": "seconds", "perplexity": "perplexities"}  # figures of fields that may be there
READS = ("prompt", "completions", "rewards", "logps", "ref_logps", "completion_ids", "finish_reasons", "winner",
         "win_probability", "orders_agree", "unparsed", "human_winner", "condition", "domain")


@options.group(may=READS, writes=options.FIGURES)
def main() -> None:
    """Figures about records, with intervals: JSON in a pipe, a table on a terminal, --plot FILE for a picture.

    Each mean is {mean, low, high, n}, with its 95 % bootstrap interval over records.
    """


class Sample:
    """Numbers, each with the record it came from: all that is kept of the input."""

    def __init__(self) -> None:
        self.values, self.groups = array("d"), array("q")

    def add(self, record: int, values: Iterable[float]) -> None:
        for value in values:
            self.values.append(value)
            self.groups.append(record)

    def mean(self, bootstrap: dict) -> dict:
        from alignlib.stats.metrics import mean_interval

        return mean_interval(self.values, self.groups, **bootstrap)


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
    other = first_rewards(against) if against else {}
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


def first_rewards(file: str) -> dict[bytes, list[float]]:
    """Prompt -> the rewards of the first completions of its records."""
    found: dict[bytes, list[float]] = {}
    for line in jsonl.read_all((file,), lambda record: fields.require_completions(record, "rewards")):
        found.setdefault(prompt_key(line.record), []).append(line.record["rewards"][0])
    return found


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


@results.command("prompt", "completions")
@record_files
@label_option
@click.option("--coherence", metavar="MODEL", help="An encoder: adds the mean cosine of prompt and completion.")
@click.option("--pool", type=click.Choice(["mean", "cls"]), default="mean", help="How its last layer becomes a vector.")
@bootstrap_options
def text(files, coherence, pool, resamples, seed, labels, output, as_json) -> None:
    """Repetition, diversity, lengths, share cut. Streams, keeps numbers and a hash of each distinct n-gram.

    rep_n (0 to 1) and diversity, the product of 1 - rep_n, are means over completions of at least 4 tokens; shorter
    ones are counted as too_short. Tokens there are words (inner apostrophes and hyphens included) and single marks.
    dist_n: distinct n-grams over tokens cut at spaces, of all completions together and as the mean of the records'.
    Of records with `seconds` (--time) or `perplexities` (al-score --perplexity) their means, too.
    """
    from alignlib.stats import metrics

    summary, bootstrap = options.Summary(), {"resamples": resamples, "seed": seed}
    summary.count(records=0)
    embed = embedder(coherence, pool) if coherence else None
    samples = {name: Sample() for name in (*REPETITION, *PER_RECORD, "words", "chars", "tokens", "cut", "coherence")}
    together, short, pending = metrics.Distinct(), 0, []
    for line in jsonl.read_all(files, fields.require_completions):
        record, completions = line.record, line.record["completions"]
        summary.count(records=1, completions=len(completions))
        for completion in completions:
            together.add(completion)
            figures = metrics.repetition(metrics.words(completion))
            short += figures is None
            for name, value in (figures or {}).items():
                samples[name].add(line.index, [value])
        for name, value in zip(PER_RECORD, metrics.distinct(completions), strict=True):
            samples[name].add(line.index, [value])
        samples["words"].add(line.index, (len(completion.split()) for completion in completions))
        samples["chars"].add(line.index, map(len, completions))
        samples["tokens"].add(line.index, map(len, record.get("completion_ids", [])))
        samples["cut"].add(line.index, (reason == "length" for reason in record.get("finish_reasons", [])))
        for name, field in EXTRA.items():
            if field in record:
                samples.setdefault(name, Sample()).add(line.index, record[field])
        if embed:
            pending += [(line.index, prompt_text(record), completion) for completion in completions]
            while len(pending) >= EMBED:
                add_cosines(embed, pending[:EMBED], samples["coherence"])
                del pending[:EMBED]
    if pending:
        add_cosines(embed, pending, samples["coherence"])
    if not embed:
        del samples["coherence"]
    means = {name: sample.mean(bootstrap) for name, sample in samples.items()}
    shares = dict(zip(("dist_1", "dist_2", "dist_3"), together.shares() or [None] * 3, strict=True))
    figures = {"records": summary.counts["records"], **means, "too_short": short, **shares}
    results.write("text", figures, labels, output, as_json)
    if embed:
        summary.count(texts_cut_for_coherence=embed.cut)
    summary.close()


def embedder(model: str, pool: str):
    from al_eval.embeddings import Embedder

    try:
        return Embedder(model, pool)
    except (OSError, ValueError) as error:  # transformers raises either for what is no model
        raise click.UsageError(f"{model}: not a model: {str(error).splitlines()[0]}") from error


def prompt_text(record: dict) -> str:
    if "messages" in record:
        return "\n".join(message["content"] for message in record["messages"])
    return record["prompt"]


def add_cosines(embed: Callable, rows: list[tuple[int, str, str]], sample: Sample) -> None:
    """One cosine a row (record, prompt, completion); an empty text has no direction and is left out."""
    from alignlib.stats.metrics import cosine

    rows = [row for row in rows if row[1].strip() and row[2].strip()]
    if not rows:
        return
    prompts, completions = embed([row[1] for row in rows]), embed([row[2] for row in rows])
    for (record, _, _), a, b in zip(rows, prompts, completions, strict=True):
        value = cosine(a, b)
        sample.add(record, [] if value is None else [value])


for part in (reward, rm, winrate, kl, text, conditions, toxicity, frontier, curve, table):
    main.add_command(part)
