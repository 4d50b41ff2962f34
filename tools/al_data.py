"""A public data set, or the toy world -> records; and a new small model to begin with.

    in:   {"chosen": "\\n\\nHuman: Hi\\n\\nAssistant: Hello.", "rejected": "\\n\\nHuman: Hi\\n\\nAssistant: Go."}
    out:  {"prompt": "\\n\\nHuman: Hi\\n\\nAssistant:", "chosen": " Hello.", "rejected": " Go."}

    al-data hh --from harmless-base/train.jsonl.gz | al-sft base -o sft
"""

from __future__ import annotations

import os
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import click

from alignlib import new_model as fresh
from alignlib import options, toy
from alignlib.datasets import HH_PARTS, convert, hh, imdb, imdb_labels, tldr, tldr_pref
from alignlib.jsonl import DataError, dumps, read_all
from alignlib.records import check
from alignlib.rows import Row, Unreachable, files_of, from_file, from_hub

ONLY = {"prompts": ("prompt",), "sft": ("prompt", "chosen"), "pref": ("prompt", "chosen", "rejected")}
KEPT = ("id", "domain")  # stay with --only, where a record has them


@options.group(writes=("id", "prompt", "chosen", "rejected", "domain", "text", "label"))
def main() -> None:
    """Write records of a public data set, or of the toy world; or make a new small model.

    The sets come from the Hugging Face Hub, or from local files in the form they are published in (--from). Rows that
    hold nothing to learn from are left out and counted. All commands stream; --shuffle reads all input first.
    """


def source_options(function: Callable) -> Callable:
    """--from, --split and what all sets share."""
    path = click.Path(exists=True, allow_dash=True)
    where = "A file (.jsonl, .jsonl.gz, .json, .csv, .parquet; - is stdin), or a folder of such; else the Hub."
    which = "Which part. A file, or a folder that names none, is split 90 to 10 by a hash of the prompt."
    function = click.option("--split", type=click.Choice(toy.SPLITS), show_default="train; of a file all",
                            help=which)(function)
    return sink_options(click.option("--from", "source", type=path, help=where)(function))


def sink_options(function: Callable) -> Callable:
    """What is done with the records: --limit, --shuffle, --seed, --only, -o."""
    for option in (
        options.output_option,
        click.option("--only", type=click.Choice(list(ONLY)), help="Keep only these fields (and id, domain)."),
        click.option("--seed", type=options.Seed(), default=0, help="Of the shuffle; of the toy world's draws."),
        click.option("--shuffle", is_flag=True, help="In random order. Reads all input first."),
        click.option("--limit", type=click.IntRange(0), help="At most this many records."),
    ):
        function = option(function)
    return function


@options.command(writes=("id", "prompt", "chosen", "rejected", "domain", "text", "label"), name="toy")
@click.option("--task", type=click.Choice(toy.TASKS), default="dialogue", help="Help or harm, posts, or film reviews.")
@click.option("--by", type=click.Choice(toy.ORACLES), help="Prefer by this oracle instead of the task's own; also "
              "written as the domain.")
@click.option("--labels", is_flag=True, help="Write text and label, for a classifier, instead of pairs.")
@click.option("--split", type=click.Choice(toy.SPLITS), default="train", help="Which part; no prompt is in both.")
@click.option("--serve-judge", type=click.IntRange(0, 65535), metavar="PORT",
              help="Write no records but serve the oracles as judges for al-label-ai until interrupted; 0: any port.")
@sink_options
def toy_command(task, by, labels, split, serve_judge, seed, limit, shuffle, only, output) -> None:
    """Records of the toy world: a small seeded language whose quality `al-score toy:NAME` measures exactly.

    Preferences are noisy: of two random answers the better one is chosen in 80 to 85 % of pairs. Without --limit 2000
    records are written.
    """
    if serve_judge is not None:
        return serve(serve_judge)
    if labels and (by or only):
        raise click.UsageError("--labels goes with neither --by nor --only")
    if labels and task == "summary":
        raise click.UsageError("--labels is for the tasks review and dialogue")
    limit = 2000 if limit is None else limit
    made = toy.labelled(task, split, seed, limit) if labels else toy.records(task, split, seed, limit, by or "")
    write(made, Counter(), seed, limit, shuffle, only, output)


def serve(port: int) -> None:
    """Serve the oracles, and say where on standard output."""
    from alignlib import toy_judge

    try:
        server = toy_judge.server(port)
    except OSError as error:
        raise click.ClickException(f"--serve-judge {port}: {error.strerror}") from error
    with server:
        click.echo(f"http://127.0.0.1:{server.server_port}/v1")
        sys.stdout.flush()
        server.serve_forever()


@options.command(reads=("chosen", "rejected"), writes=("prompt",), name="hh")
@click.option("--part", type=click.Choice(HH_PARTS), default="harmless-base", help="Which folder of the Hub's set.")
@source_options
def hh_command(part, source, split, **sink) -> None:
    """Anthropic's HH dialogues: the prompt ends where chosen and rejected first differ in an Assistant turn."""
    write_set(hh, source, split, sink, name="Anthropic/hh-rlhf", data_dir=part)


@options.command(writes=("prompt", "chosen"), name="tldr")
@source_options
def tldr_command(source, split, **sink) -> None:
    """Reddit posts and their authors' summaries: subreddit, title, post, summary -> prompt, chosen."""
    write_set(tldr, source, split, sink, name="vwxyzjn/summarize_from_feedback_tldr_3_filtered")


@options.command(writes=("prompt", "chosen", "rejected"), name="tldr-pref")
@source_options
def tldr_pref_command(source, split, **sink) -> None:
    """Human comparisons of two summaries of a post: info, summaries, choice -> prompt, chosen, rejected."""
    # The set's own branch holds a script, which `datasets` no longer runs: this one has the same rows as parquet.
    write_set(tldr_pref, source, split, sink, name="openai/summarize_from_feedback", data_dir="comparisons",
              revision="refs/convert/parquet")


@options.command(reads=("text",), writes=("prompt", "chosen", "label"), name="imdb")
@click.option("--labels", is_flag=True, help="Write text and label (positive, negative), for a classifier.")
@click.option("--prompt-words", type=click.IntRange(1), default=10, help="How many words of a review are its prompt.")
@source_options
def imdb_command(labels, prompt_words, source, split, only, **sink) -> None:
    """Film reviews: the first words are the prompt, the rest is the completion. Also reads the folder aclImdb."""
    if labels and only:
        raise click.UsageError("--labels does not go with --only")
    function = imdb_labels if labels else partial(imdb, words=prompt_words)
    write_set(function, source, split, {**sink, "only": only}, name="stanfordnlp/imdb")


@options.command(may=("prompt", "chosen", "rejected", "completions", "text"), writes="a model folder; nothing else",
                 name="new-model")
@click.argument("folder", type=click.Path())
@options.files
@click.option("--size", type=click.Choice(list(fresh.SHAPES)), default="2m",
              help="All parameters, embeddings included, within 15 % at 2048 tokens.")
@click.option("--vocab-size", type=click.IntRange(fresh.LEAST_VOCABULARY), default=2048, help="Tokens, at most.")
@click.option("--context", type=click.IntRange(1), default=512, help="The longest text, in tokens.")
@click.option("--seed", type=options.Seed(), default=0, help="Of the weights.")
def new_model_command(folder, files, size, vocab_size, context, seed) -> None:
    """Make an untrained Llama in FOLDER, its byte-level BPE tokenizer trained on the texts of the records in FILES.

    Reads all input first. The same records, options and seed make the same bytes.
    """
    target = options.new_folder(folder)
    summary = options.Summary()

    def texts(record: dict) -> list[str]:
        check(record, "prompt", "messages", "chosen", "rejected", "completions", "text")
        return list(fresh.texts(record))

    options.must_exist(files)
    corpus = []
    for line in read_all(files, prepare=texts):
        corpus += line.data
        summary.count(records=1)
    if not corpus:
        raise DataError(f"{' '.join(files) or '<stdin>'}: no texts to train a tokenizer on")
    parameters, tokens = fresh.create(target, corpus, size, vocab_size, context, seed)
    summary.count(parameters=parameters, **{"tokens in the vocabulary": tokens})
    summary.close()


for command in (toy_command, hh_command, tldr_command, tldr_pref_command, imdb_command, new_model_command):
    main.add_command(command)


# --------------------------------------------------------------------------- what they share


def write_set(function: Callable[[dict], dict], source: str | None, split: str | None, sink: dict, **hub: str) -> None:
    """Write the records that `function` makes of a set's rows."""
    dropped: Counter[str] = Counter()
    rows, hashed = rows_of(source, split, **hub)
    records = convert(rows, function, dropped)
    if hashed:
        records = (record for record in records if toy.split_of(record.get("prompt", record.get("text", ""))) == split)
    try:
        write(records, dropped, **sink)
    except Unreachable as error:
        raise click.ClickException(f"cannot reach the Hub for {error}, and it is not in the cache: "
                                   "download it elsewhere and give its files with --from PATH") from error


def rows_of(source: str | None, split: str | None, **hub: str) -> tuple[Iterator[Row], bool]:
    """The rows to read, and whether they are still to be split by a hash."""
    if source is None:
        return from_hub(split=split or "train", **hub), False
    if not Path(source).is_dir():
        return from_file(source), split is not None
    try:
        files, told = files_of(source, split or "train")
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    return (row for file in files for row in from_file(file)), not told and split is not None


def write(records: Iterable[dict], dropped: Counter[str], seed: int, limit: int | None, shuffle: bool,
          only: str | None, output: str | None) -> None:
    """Write the records as asked, and say how many there were."""
    summary = options.Summary()
    summary.count(records=0)
    if shuffle:
        records = list(records)
        random.Random(seed).shuffle(records)
    with opened(output) as handle:
        for record in islice(records, limit):
            handle.write(dumps(narrow(record, only) if only else record))
            handle.flush()  # the next command of the pipe starts at once
            summary.count(records=1)
    summary.count(**{f"dropped ({reason})": count for reason, count in dropped.items()})
    summary.close()


def narrow(record: dict, only: str) -> dict:
    """The fields that `--only` keeps. Raises DataError where one is missing."""
    for name in ONLY[only]:
        if name not in record:
            raise DataError(f"--only {only}: the records of this set have no {name}")
    return {name: value for name, value in record.items() if name in (*ONLY[only], *KEPT)}


@contextmanager
def opened(output: str | None) -> Iterator[BinaryIO]:
    """Standard output, or a file that gets its name once it is whole, so that Make never takes a torn one for done."""
    if output in (None, "-"):
        yield sys.stdout.buffer
    elif os.path.exists(output) and not os.path.isfile(output):  # a device or a pipe
        with open(output, "wb") as handle:
            yield handle
    elif not Path(output).resolve().parent.is_dir():
        raise click.UsageError(f"{output}: no such folder")
    else:
        partial_file = Path(f"{output}.partial")
        try:
            with partial_file.open("wb") as handle:
                yield handle
            partial_file.replace(output)
        finally:
            partial_file.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
