"""The part of al-data that reads public data sets, one command a set, from the Hub or from files as published.

    in:   {"id": "x", "conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello."}]}
    out:  {"id": "x", "prompt": "\\n\\nHuman: Hi\\n\\nAssistant:", "chosen": " Hello."}

    al-data sharegpt --fraction 0.1 | al-sft base -o sft
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import click

from al_data import chats, preferences, row, texts
from al_data.sources import Row, Unreachable, files_of, from_file, from_hub, from_hub_file, from_object
from al_data.write import sink_options, write
from alignlib.cli import options
from alignlib.records import dialogue
from alignlib.toy import world

PAIR = ("id", "prompt", "chosen", "rejected", "domain")
RANKED = (*PAIR, "completions", "rewards")
RLAIF = "TRI-ML/dpo-rlaif-data"  # the AI-feedback study's files
SHAREGPT = "ShareGPT_V3_unfiltered_cleaned_split_no_imsorry.json"
AS_PARQUET = {"revision": "refs/convert/parquet"}  # of sets whose own branch is a script, which `datasets` runs no more


@dataclass(frozen=True)
class Hub:
    """Where a set is on the Hub."""

    name: str
    file: str = ""  # the one file that is the set
    read: Callable[[str], Iterator[Row]] = from_file  # how its files are read, local ones too
    kind_of: str = ""  # what the names of its splits end in: "prefs" of train_prefs
    one_part: bool = False  # it has no test part: split by a hash
    where: Mapping[str, str] = field(default_factory=dict)  # for datasets.load_dataset


def source_options(function: Callable) -> Callable:
    """--from, --split, which of the rows, and what is done with the records."""
    path = click.Path(exists=True, allow_dash=True)
    where = "A file (.jsonl, .jsonl.gz, .json, .csv, .parquet; - is stdin), or a folder of such; else the Hub."
    which = "Which part. A file, or a folder that names none, is split 90 to 10 by a hash of the prompt."
    for option in (
        click.option("--domain", help="Name the records' domain so.  [default: as MORE calls it]"),
        click.option("--max-words", type=click.IntRange(1), help="Leave out questions of so many words or more."),
        click.option("--max-chars", type=click.IntRange(1), help="Leave out questions of so many characters or more "
                     "(the AI-feedback study: 8000, and 2000 words)."),
        click.option("--skip-fraction", type=options.Finite(0, 1), default=0, help="Leave out this share of the set, "
                     "from its start: what --fraction takes."),
        click.option("--fraction", type=options.Finite(0, 1), default=1, help="The set up to this share of it."),
        click.option("--split", type=click.Choice(world.SPLITS), show_default="train; of a file all", help=which),
        click.option("--from", "source", type=path, help=where),
    ):
        function = option(function)
    return sink_options(function)


turns_option = click.option("--turns", type=click.IntRange(1), default=1,
                            help="A record for each of the first so many answers; the turns before it are its prompt.")
every_option = click.option("--all-answers", "every", is_flag=True,
                            help="All answers as completions and rewards, not the best and the worst.")


# ------------------------------------------------------------------------- preferences, posts, reviews


@options.command(reads=("chosen", "rejected"), writes=("prompt", "domain"), name="hh")
@click.option("--part", type=click.Choice(preferences.HH_PARTS), default="harmless-base",
              help="Which folder of the Hub's set.")
@source_options
def hh_command(part, source, **given) -> None:
    """Anthropic's HH dialogues: the prompt ends where chosen and rejected first differ in an Assistant turn.

    The domain is helpful or harmless, by the part, or as the path given with --from has it.
    """
    told = re.findall("helpful|harmless", part if source is None else source)
    hub = Hub("Anthropic/hh-rlhf", where={"data_dir": part})
    write_set(preferences.hh, hub, source=source, called=told[-1] if told else None, **given)


@options.command(writes=("prompt", "chosen"), name="tldr")
@source_options
def tldr_command(**given) -> None:
    """Reddit posts and their authors' summaries: subreddit, title, post, summary -> prompt, chosen."""
    write_set(texts.tldr, Hub("vwxyzjn/summarize_from_feedback_tldr_3_filtered"), **given)


@options.command(writes=PAIR, name="tldr-pref")
@source_options
def tldr_pref_command(**given) -> None:
    """Human comparisons of two summaries of a post: info, summaries, choice -> prompt, chosen, rejected."""
    hub = Hub("openai/summarize_from_feedback", where={"data_dir": "comparisons", **AS_PARQUET})
    write_set(preferences.tldr_pref, hub, called="summarisation", **given)


@options.command(reads=("text",), writes=("prompt", "chosen", "label"), name="imdb")
@click.option("--labels", is_flag=True, help="Write text and label (positive, negative), for a classifier.")
@click.option("--prompt-words", type=click.IntRange(1), default=10, help="How many words of a review are its prompt.")
@source_options
def imdb_command(labels, prompt_words, only, **given) -> None:
    """Film reviews: the first words are the prompt, the rest is the completion. Also reads the folder aclImdb."""
    if labels and only:
        raise click.UsageError("--labels does not go with --only")
    function = texts.imdb_labels if labels else partial(texts.imdb, words=prompt_words)
    write_set(function, Hub("stanfordnlp/imdb"), only=only, **given)


# -------------------------------------------------------------------------- instructions and answers


@options.command(writes=("id", "prompt", "chosen"), name="sharegpt")
@click.option("--teacher", type=click.Choice(["chatgpt", "gpt4", "claude"]), default="chatgpt",
              help="Whose answers: those in the chats, or GPT-4's or Claude's to their first turns, each a file of its "
              "own.")
@turns_option
@source_options
def sharegpt_command(teacher, turns, **given) -> None:
    """Chats with ChatGPT: conversations -> prompt, chosen; or other teachers' answers to the same first questions.

    --fraction takes whole conversations, by their order in the file.
    """
    if teacher == "chatgpt":
        write_set(partial(chats.sharegpt, turns=turns), Hub(RLAIF, SHAREGPT), **given)
        return
    if turns > 1:
        raise click.UsageError(f"--teacher {teacher} answered first turns only")
    file = f"sharegpt1turn_df1.0_ff0_{teacher}_completions.json"
    write_set(chats.teacher, Hub(RLAIF, file, from_object), **given)


@options.command(writes=("id", "prompt", "chosen"), name="ultrachat")
@turns_option
@source_options
def ultrachat_command(turns, **given) -> None:
    """Chats of two models: messages, or data -> prompt, chosen."""
    write_set(partial(chats.ultrachat, turns=turns), Hub("HuggingFaceH4/ultrachat_200k", kind_of="sft"), **given)


@options.command(writes=(*PAIR, "completions", "winner", "win_probability"), name="alpaca-eval")
@source_options
def alpaca_eval_command(**given) -> None:
    """AlpacaEval: instructions -> prompt and the reference's completion; or annotations.json -> labelled pairs.

    Of annotations, the completions are output_2 and output_1, the reference's: what al-eval winrate reads; --only
    pref makes preferences of them. Ids count from alpaca-eval-0 in the file's order, as AlpacaEval itself does.
    """
    write_set(chats.alpaca_eval, Hub("tatsu-lab/alpaca_eval", "alpaca_eval.json"), gather=chats.numbered, **given)


# --------------------------------------------------------------------------------- several answers


@options.command(writes=RANKED, name="ultrafeedback")
@every_option
@source_options
def ultrafeedback_command(every, **given) -> None:
    """Instructions with answers that GPT-4 scored; also its binarized forms."""
    hub = Hub("HuggingFaceH4/ultrafeedback_binarized", kind_of="prefs")
    write_set(partial(preferences.ultrafeedback, every=every), hub, **given)


@options.command(writes=PAIR, name="shp")
@click.option("--min-ratio", type=options.Finite(1), default=2, help="Leave out pairs whose votes' ratio is below.")
@source_options
def shp_command(min_ratio, **given) -> None:
    """Reddit posts and two comments, the more voted one preferred."""
    write_set(partial(preferences.shp, least=min_ratio), Hub("stanfordnlp/SHP"), **given)


@options.command(writes=RANKED, name="stackexchange")
@every_option
@source_options
def stackexchange_command(every, **given) -> None:
    """StackExchange's questions and voted answers, made plain text."""
    hub = Hub("HuggingFaceH4/stack-exchange-preferences", one_part=True)
    write_set(partial(preferences.stackexchange, every=every), hub, **given)


@options.command(writes=RANKED, name="webgpt")
@every_option
@source_options
def webgpt_command(every, **given) -> None:
    """Human comparisons of two answers written with a browser. Ties are left out."""
    hub = Hub("openai/webgpt_comparisons", one_part=True, where=AS_PARQUET)
    write_set(partial(preferences.webgpt, every=every), hub, called="webgpt", **given)


@options.command(writes=RANKED, name="oasst1")
@click.option("--lang", help="Only conversations in this language, e.g. en.")
@every_option
@source_options
def oasst1_command(lang, every, **given) -> None:
    """OpenAssistant's trees of messages, or the messages alone: a record for each question with ranked answers."""
    write_set(partial(preferences.oasst, every=every, lang=lang), Hub("OpenAssistant/oasst1"), called="oasst1",
              gather=preferences.trees, **given)


@options.command(writes=("prompt", "completions", "rewards"), name="rtp")
@source_options
def rtp_command(**given) -> None:
    """RealToxicityPrompts: prompt, and what followed on the web with its reward, 1 - toxicity."""
    write_set(texts.rtp, Hub("allenai/real-toxicity-prompts", one_part=True), **given)


@options.command(writes=("prompt", "chosen"), name="writing-prompts")
@source_options
def writing_prompts_command(**given) -> None:
    """WritingPrompts: prompt and story -> prompt, chosen; or the prompts alone, lines of test.wp_source."""
    write_set(texts.writing, Hub("euclaise/writingprompts"), **given)


COMMANDS = (hh_command, tldr_command, tldr_pref_command, imdb_command, sharegpt_command, ultrachat_command,
            alpaca_eval_command, ultrafeedback_command, shp_command, stackexchange_command, webgpt_command,
            oasst1_command, rtp_command, writing_prompts_command)


# ------------------------------------------------------------------------------- what they share


def write_set(function: Callable[[dict], dict | list[dict]], hub: Hub, *, source: str | None, split: str | None,
              fraction: float, skip_fraction: float, max_chars: int | None, max_words: int | None, domain: str | None,
              gather: Callable[[Iterable[Row]], Iterable[Row]] = iter, called: str | None = None, **sink) -> None:
    """Write the records that `function` makes of a set's rows.

    gather: puts rows together before anything else; called: the domain, unless --domain names it; sink: the options of
    `sink.write`.
    """
    if skip_fraction > fraction:
        raise click.UsageError(f"--skip-fraction {skip_fraction:g} leaves nothing of --fraction {fraction:g}")
    dropped: Counter[str] = Counter()
    rows, hashed = rows_of(hub, source, split)
    records = row.convert(row.share(gather(rows), skip_fraction, fraction), function, dropped)
    if hashed:
        records = (record for record in records
                   if world.split_of(record.get("prompt", record.get("text", ""))) == split)
    if max_chars or max_words:
        records = short(records, max_chars, max_words, dropped)
    if domain or called:
        records = (marked(record, domain, called) for record in records)
    try:
        write(records, dropped, **sink)
    except Unreachable as error:
        raise click.ClickException(f"cannot reach the Hub for {error}, and it is not in the cache: "
                                   "download it elsewhere and give its files with --from PATH") from error


def rows_of(hub: Hub, source: str | None, split: str | None) -> tuple[Iterator[Row], bool]:
    """The rows to read, and whether they are still to be split by a hash."""
    if source is None and hub.file:
        return from_hub_file(hub.name, hub.file, hub.read), split is not None
    if source is None:
        part = "train" if hub.one_part else split or "train"
        return from_hub(hub.name, part, hub.kind_of, **hub.where), hub.one_part and split is not None
    if not Path(source).is_dir():
        return hub.read(source), split is not None
    try:
        files, told = files_of(source, split or "train", hub.kind_of)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    return (row for file in files for row in hub.read(file)), not told and split is not None


def short(records: Iterable[dict], chars: int | None, words: int | None, dropped: Counter[str]) -> Iterator[dict]:
    """The records whose question is shorter than both limits; the others are counted."""
    for record in records:
        text = dialogue.instruction(record.get("prompt", ""))
        if chars and len(text) >= chars or words and len(text.split()) >= words:
            dropped["a long question"] += 1
        else:
            yield record


def marked(record: dict, domain: str | None, called: str | None) -> dict:
    """The record with its domain: as --domain names it, else its own, else as the set is called."""
    return {**record, "domain": domain or record.get("domain") or called}
