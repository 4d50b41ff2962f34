"""al-eval text."""

from collections.abc import Callable

import click

from al_eval import results
from al_eval.results import Sample, bootstrap_options, label_option, record_files
from alignlib.cli import options
from alignlib.records import fields, jsonl
from alignlib.records.prompts import prompt_text

EMBED = 64  # texts embedded at once
REPETITION = ("rep_2", "rep_3", "rep_4", "diversity")
PER_RECORD = ("dist_1_per_record", "dist_2_per_record", "dist_3_per_record")
EXTRA = {"seconds": "seconds", "perplexity": "perplexities"}  # figures of fields that may be there


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


