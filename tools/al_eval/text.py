"""The part of al-eval about texts: how they repeat themselves, differ from each other, how long they are, how coherent.

    in    {"prompt": "Hi", "completions": ["Hello there, hello there.", "What?"], "finish_reasons": ["stop", "length"]}
    out   {"what": "text", "records": 1, "rep_2": {"mean": 0.17, ...}, ..., "cut": {"mean": 0.5, ...}, ...}

    al-sample sft prompts.jsonl | al-eval text
    al-sample sft prompts.jsonl | al-eval text --coherence princeton-nlp/sup-simcse-bert-base-uncased --pool cls
"""

from typing import TYPE_CHECKING

import click

from al_eval import results
from al_eval.results import Bootstrap, Sample, bootstrap_options, label_option, record_files
from alignlib.cli import options, shells
from alignlib.records import conversations, fields, jsonl
from alignlib.records.jsonl import Line, Record
from alignlib.records.prompts import prompt_text

if TYPE_CHECKING:  # it loads torch
    from al_eval.embeddings import Embedder

EMBED = 64  # texts embedded at once
REPETITION = ("rep_2", "rep_3", "rep_4", "diversity")
PER_RECORD = ("dist_1_per_record", "dist_2_per_record", "dist_3_per_record")
TOGETHER = ("dist_1", "dist_2", "dist_3")
EXTRA = {"seconds": "seconds", "perplexity": "perplexities"}  # figures of fields that may be there


@results.command("prompt", "completions")
@record_files
@label_option
@click.option("--coherence", metavar="MODEL", shell_complete=shells.files,
              help="An encoder: adds the mean cosine of prompt and completion.")
@click.option("--pool", type=click.Choice(["mean", "cls"]), default="mean", help="How its last layer becomes a vector.")
@bootstrap_options
def text(files: tuple[str, ...], coherence: str | None, pool: str, resamples: int, seed: int, labels: Record,
         output: str | None, as_json: bool | None) -> None:
    """Repetition, diversity, lengths, share cut. Streams, keeps numbers and a hash of each distinct n-gram.

    rep_n (0 to 1) and diversity, the product of 1 - rep_n, are means over completions of at least 4 tokens; shorter
    ones are counted as too_short. Tokens there are words (inner apostrophes and hyphens included) and single marks.
    dist_n: distinct n-grams over tokens cut at spaces, of all completions together and as the mean of the records'.
    Of records with `seconds` (--time) or `perplexities` (al-score --perplexity) their means, too.
    """
    summary = options.Summary()
    summary.count(records=0)
    texts = TextFigures()
    results.check_labels(labels, ["records", *texts.figures(None, Bootstrap(resamples=resamples, seed=seed)),
                                  *(["coherence"] if coherence else [])])
    cosines = Cosines(load_embedder(coherence, pool)) if coherence else None
    for line in conversations.read_all(files, _must_measure):
        summary.count(records=1, completions=len(line.record["completions"]))
        texts.add(line)
        if cosines:
            cosines.add(line)
    figures = texts.figures(cosines, Bootstrap(resamples=resamples, seed=seed))
    results.write("text", {"records": summary.counts["records"], **figures}, labels, output, as_json)
    if cosines:
        summary.count(texts_cut_for_coherence=cosines.embed.cut)
    summary.close()


def _must_measure(record: Record) -> None:
    fields.require_completions(record)
    if "seconds" in record:
        fields.require(record, "seconds")
        if len(record["seconds"]) != len(record["completions"]):
            raise ValueError(f"seconds: {len(record['seconds'])} entries for {len(record['completions'])} completions")


class TextFigures:
    """What is kept of the records: numbers, each under the name of its figure, and hashes of n-grams."""

    def __init__(self) -> None:
        from al_eval.metrics import Distinct

        repetition, per_record, words = Sample(), Sample(), Sample("I")
        self.samples = {name: Sample(beside=repetition) for name in REPETITION}
        self.samples |= {name: Sample(beside=per_record) for name in PER_RECORD}
        self.samples |= {REPETITION[0]: repetition, PER_RECORD[0]: per_record, "words": words,
                         "chars": Sample("I", beside=words), "tokens": Sample("I"), "cut": Sample("B")}
        self.extra: dict[str, Sample] = {}
        self.together, self.too_short = Distinct(), 0

    def add(self, line: Line) -> None:
        """Measure the completions of one record."""
        from al_eval import metrics

        record, samples, completions = line.record, self.samples, line.record["completions"]
        for completion in completions:
            self.together.add(completion)
            figures = metrics.repetition(metrics.words(completion))
            self.too_short += figures is None
            for name, value in (figures or {}).items():
                samples[name].add(line.index, [value])
        for name, value in zip(PER_RECORD, metrics.distinct(completions) or (), strict=True):
            samples[name].add(line.index, [value])
        samples["words"].add(line.index, (len(completion.split()) for completion in completions))
        samples["chars"].add(line.index, map(len, completions))
        samples["tokens"].add(line.index, map(len, record.get("completion_ids", [])))
        samples["cut"].add(line.index, (reason == "length" for reason in record.get("finish_reasons", [])))
        for name, field in EXTRA.items():
            if field in record:
                self.extra.setdefault(name, Sample()).add(line.index, record[field])

    def figures(self, cosines: "Cosines | None", bootstrap: Bootstrap) -> Record:
        """All means with their intervals, then what is of all completions together."""
        samples = self.samples | ({"coherence": cosines.sample()} if cosines else {}) | self.extra
        means = {name: sample.mean(bootstrap) for name, sample in samples.items()}
        shares = self.together.shares() or (None, None, None)
        return {**means, "too_short": self.too_short, **dict(zip(TOGETHER, shares, strict=True))}


def load_embedder(model: str, pool: str) -> "Embedder":
    """The encoder of --coherence. Raises UsageError for what is none."""
    from al_eval.embeddings import Embedder

    try:
        return Embedder(model, pool)
    except (OSError, ValueError) as error:  # transformers raises either for what is no model
        raise click.UsageError(f"{model}: not a model: {str(error).splitlines()[0]}") from error


class Cosines:
    """The cosine of each completion with its prompt, their vectors made EMBED texts at once."""

    def __init__(self, embed: "Embedder") -> None:
        self.embed = embed
        self.cosines = Sample()
        self.waiting: list[tuple[int, str, str]] = []  # record, prompt, completion

    def add(self, line: Line) -> None:
        """The completions of one record, some of which may wait for more to be embedded with."""
        prompt = prompt_text(line.record)
        try:
            for text in (prompt, *line.record["completions"]):
                self.embed.must_know(text)
        except ValueError as error:
            raise jsonl.DataError(f"{line.where}: {error}") from error
        self.waiting += [(line.index, prompt, completion) for completion in line.record["completions"]]
        while len(self.waiting) >= EMBED:
            self._measure(self.waiting[:EMBED])
            del self.waiting[:EMBED]

    def sample(self) -> Sample:
        """The cosines of all that was added."""
        self._measure(self.waiting)
        self.waiting = []
        return self.cosines

    def _measure(self, rows: list[tuple[int, str, str]]) -> None:
        """One cosine a row; an empty text has no direction and is left out."""
        from al_eval.metrics import cosine

        rows = [row for row in rows if row[1].strip() and row[2].strip()]
        if not rows:
            return
        prompts, completions = self.embed([row[1] for row in rows]), self.embed([row[2] for row in rows])
        for (record, _, _), a, b in zip(rows, prompts, completions, strict=True):
            value = cosine(a, b)
            self.cosines.add(record, [] if value is None else [value])
