"""The public data sets of al-data, one command a set, from the Hub or from files as published.

    in:   {"id": "x", "conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello."}]}
    out:  {"id": "x", "prompt": "\\n\\nHuman: Hi\\n\\nAssistant:", "chosen": " Hello."}

    al-data sharegpt --fraction 0.1 | al-sft base -o sft

A set is declared here, once: its name, the options of its own, the fields it writes, its --help, its place, its domain.
What its rows become is a function in the file of its kind: preferences.py, chats.py, texts.py, conversations.py.
"""

from __future__ import annotations

import os
import re
from functools import partial

import click

from al_data import chats, conversations, preferences, texts
from al_data.data_set import DataSet, Hub, data_set
from al_data.sources import SUFFIXES, from_object
from alignlib.cli import options, rules, shells

PAIR = ("id", "prompt", "chosen", "rejected", "domain")
RANKED = (*PAIR, "completions", "rewards")
RLAIF = "TRI-ML/dpo-rlaif-data"  # the AI-feedback study's files
SHAREGPT = "ShareGPT_V3_unfiltered_cleaned_split_no_imsorry.json"
AS_PARQUET = {"revision": "refs/convert/parquet"}  # of sets whose own branch is a script, which `datasets` runs no more

turns_option = click.option("--turns", type=click.IntRange(1), default=1,
                            help="A record for each of the first so many answers; the turns before it are its prompt.")
every_option = click.option("--all-answers", "every", is_flag=True,
                            help="All answers as completions and rewards, not the best and the worst.")


# --------------------------------------------------------------------------------- conversations


@data_set("chat",
          click.option("--kind", help="Of a set or folder with several: what the names of its parts end in, e.g. sft "
                       "of train_sft."),
          click.option("--config", help="Which configuration of the Hub's set."),
          source=click.argument("source", metavar="[FILE|NAME]", default="-", shell_complete=shells.files),
          writes=("id", "messages", "chosen", "rejected", "completions", "rewards", "domain"))
def chat(kind: str | None, config: str | None) -> DataSet:
    """Conversations in the common public shapes, told apart row by row -> messages, chosen, rejected.

    FILE is .jsonl, .jsonl.gz, .json, .csv or .parquet, a folder of such, or - for stdin; NAME is a set on the Hub.
    Streams. The shapes are those of TRL, OpenAI's fine-tuning, ShareGPT, Alpaca, prompt or question and answer, also
    as ultrachat_200k and ultrafeedback_binarized have them. The last answer is chosen, the turns before it are the
    messages. Other fields (tools, ...) stay.

    \b
        in:   {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello."}]}
        out:  {"messages": [{"role": "user", "content": "Hi"}], "chosen": "Hello."}
        al-data chat HuggingFaceH4/ultrafeedback_binarized --kind prefs | al-train-rm sft -o rm
    """
    source: str = click.get_current_context().params["source"]
    if source == "-" or os.path.exists(source):
        if config:
            raise click.UsageError("--config is of a set on the Hub")
        return DataSet(conversations.conversation, Hub("", kind_of=kind or ""), mixed=True)
    if source.endswith(SUFFIXES) or source.startswith((".", "/", "~")):
        raise click.UsageError(f"{source}: no such file")
    hub = Hub(source, kind_of=kind or "", where={"name": config} if config else {})
    return DataSet(conversations.conversation, hub, mixed=True)


# ----------------------------------------------------------------------------------- preferences


@data_set("hh",
          click.option("--part", type=click.Choice(preferences.HH_PARTS), default="harmless-base",
                       help="Which folder of the Hub's set."),
          reads=("chosen", "rejected"), writes=("prompt", "domain"), dialogues=True)
def hh(part: str) -> DataSet:
    """Anthropic's HH dialogues: the prompt ends where chosen and rejected first differ in an Assistant turn.

    The domain is helpful or harmless, by the part, or as the path given with --from has it.
    """
    source: str | None = click.get_current_context().params["source"]
    domains = re.findall("helpful|harmless", part if source is None else source)
    return DataSet(preferences.hh, Hub("Anthropic/hh-rlhf", where={"data_dir": part}),
                   domain=domains[-1] if domains else None)


@data_set("tldr-pref", writes=PAIR)
def tldr_pref() -> DataSet:
    """Human comparisons of two summaries of a post: info, summaries, choice -> prompt, chosen, rejected."""
    hub = Hub("openai/summarize_from_feedback", where={"data_dir": "comparisons", **AS_PARQUET})
    return DataSet(preferences.tldr_pref, hub, domain="summarisation")


@data_set("ultrafeedback", every_option, writes=RANKED, dialogues=True)
def ultrafeedback(every: bool) -> DataSet:
    """Instructions with answers that GPT-4 scored; also its binarized forms."""
    return DataSet(partial(preferences.ultrafeedback, every=every),
                   Hub("HuggingFaceH4/ultrafeedback_binarized", kind_of="prefs"))


@data_set("shp",
          click.option("--min-ratio", type=options.Finite(1), default=2,
                       help="Leave out pairs whose votes' ratio is below."),
          writes=PAIR, dialogues=True)
def shp(min_ratio: float) -> DataSet:
    """Reddit posts and two comments, the more voted one preferred."""
    return DataSet(partial(preferences.shp, least=min_ratio), Hub("stanfordnlp/SHP"))


@data_set("stackexchange", every_option, writes=RANKED, dialogues=True)
def stackexchange(every: bool) -> DataSet:
    """StackExchange's questions and voted answers, made plain text."""
    return DataSet(partial(preferences.stackexchange, every=every),
                   Hub("HuggingFaceH4/stack-exchange-preferences", one_part=True))


@data_set("webgpt", every_option, writes=RANKED, dialogues=True)
def webgpt(every: bool) -> DataSet:
    """Human comparisons of two answers written with a browser. Ties are left out."""
    return DataSet(partial(preferences.webgpt, every=every),
                   Hub("openai/webgpt_comparisons", one_part=True, where=AS_PARQUET), domain="webgpt")


@data_set("oasst1", click.option("--lang", help="Only conversations in this language, e.g. en."), every_option,
          writes=RANKED, dialogues=True)
def oasst1(lang: str | None, every: bool) -> DataSet:
    """OpenAssistant's trees of messages, or the messages alone: a record for each question with ranked answers."""
    return DataSet(partial(preferences.oasst, every=every, lang=lang), Hub("OpenAssistant/oasst1"), domain="oasst1",
                   gather=preferences.trees)


# -------------------------------------------------------------------------- instructions and answers


@data_set("sharegpt",
          click.option("--teacher", type=click.Choice(["chatgpt", "gpt4", "claude"]), default="chatgpt",
                       help="Whose answers: those in the chats, or GPT-4's or Claude's to their first turns, each a "
                       "file of its own."),
          turns_option, writes=("id", "prompt", "chosen"), dialogues=True)
def sharegpt(teacher: str, turns: int) -> DataSet:
    """Chats with ChatGPT: conversations -> prompt, chosen; or other teachers' answers to the same first questions.

    --fraction takes whole conversations, by their order in the file.
    """
    if teacher == "chatgpt":
        return DataSet(partial(chats.sharegpt, turns=turns), Hub(RLAIF, SHAREGPT))
    if turns > 1:
        raise click.UsageError(f"--teacher {teacher} answered first turns only")
    return DataSet(chats.teacher, Hub(RLAIF, f"sharegpt1turn_df1.0_ff0_{teacher}_completions.json", from_object))


@data_set("ultrachat", turns_option, writes=("id", "prompt", "chosen"), dialogues=True)
def ultrachat(turns: int) -> DataSet:
    """Chats of two models: messages, or data -> prompt, chosen."""
    return DataSet(partial(chats.ultrachat, turns=turns), Hub("HuggingFaceH4/ultrachat_200k", kind_of="sft"))


@data_set("gsm8k", writes=("prompt", "chosen", "answer"), dialogues=True)
def gsm8k() -> DataSet:
    """Grade school mathematics: question, answer -> prompt, chosen (the worked solution), answer (its number).

    What the reward `math` reads: al-score math, al-args LM math --method best-of-n.
    """
    return DataSet(chats.gsm8k, Hub("openai/gsm8k", where={"name": "main"}))


@data_set("alpaca-eval", writes=(*PAIR, "completions", "winner", "win_probability"), dialogues=True)
def alpaca_eval() -> DataSet:
    """AlpacaEval: instructions -> prompt and the reference's completion; or annotations.json -> labelled pairs.

    Of annotations, the completions are output_2 and output_1, the reference's: what al-eval winrate reads; --only
    pref makes preferences of them. Ids count from alpaca-eval-0 in the file's order, as AlpacaEval itself does.
    """
    return DataSet(chats.alpaca_eval, Hub("tatsu-lab/alpaca_eval", "alpaca_eval.json"), gather=chats.numbered)


# ------------------------------------------------------------------------- texts, to continue or to classify


@data_set("tldr", writes=("prompt", "chosen"))
def tldr() -> DataSet:
    """Reddit posts and their authors' summaries: subreddit, title, post, summary -> prompt, chosen."""
    return DataSet(texts.tldr, Hub("vwxyzjn/summarize_from_feedback_tldr_3_filtered"))


@data_set("scitldr", writes=("id", "prompt", "chosen"))
def scitldr() -> DataSet:
    """Papers' abstracts and their summaries in a sentence: source, target -> prompt, chosen, the first one."""
    return DataSet(texts.scitldr, Hub("allenai/scitldr", where={"data_dir": "Abstract", **AS_PARQUET}))


@data_set("imdb",
          rules.one_of("--labels", "--only"),
          click.option("--labels", is_flag=True, help="Write text and label (positive, negative), for a classifier."),
          click.option("--prompt-words", type=click.IntRange(1), default=10,
                       help="How many words of a review are its prompt."),
          reads=("text",), writes=("prompt", "chosen", "label"))
def imdb(labels: bool, prompt_words: int) -> DataSet:
    """Film reviews: the first words are the prompt, the rest is the completion. Also reads the folder aclImdb."""
    records = texts.imdb_labels if labels else partial(texts.imdb, words=prompt_words)
    return DataSet(records, Hub("stanfordnlp/imdb"))


@data_set("rtp", writes=("prompt", "completions", "rewards"))
def rtp() -> DataSet:
    """RealToxicityPrompts: prompt, and what followed on the web with its reward, 1 - toxicity."""
    return DataSet(texts.rtp, Hub("allenai/real-toxicity-prompts", one_part=True))


@data_set("writing-prompts", writes=("prompt", "chosen"))
def writing_prompts() -> DataSet:
    """WritingPrompts: prompt and story -> prompt, chosen; or the prompts alone, lines of test.wp_source."""
    return DataSet(texts.writing, Hub("euclaise/writingprompts"))
