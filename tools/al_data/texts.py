"""Public data sets -> records: for each set a pure function on one row of its published form.

A row function returns a record, or a list of them; it raises ValueError for a row that is not of the set, and Skip,
with the reason, for one that has nothing to learn from: such rows are counted, never silently lost. Records that are
already in our own form (they have `prompt`, or `text` and a named `label`) pass through unchanged. Here are the sets of
EXO's experiments and what all share; chats.py has those of instructions, rankings.py those of several answers.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from alignlib.records.jsonl import DataError, Skip, kind

Row = tuple[str, dict]  # where it stands ("test.jsonl.gz:17"), and what it holds
# A tokenizer may read these as its own marks: the AI-feedback study leaves such conversations out.
MARKS = ("<s>", "</s>", "<|endoftext|>")
HH_PARTS = ("harmless-base", "helpful-base", "helpful-online", "helpful-rejection-sampled")

# ------------------------------------------------------------------------------ Anthropic HH

_TURN = re.compile(r"\n\n(Human|Assistant)s?:")


def hh(row: dict) -> dict:
    """{chosen, rejected}, whole dialogues -> {prompt, chosen, rejected}, the first Assistant turns that differ.

    As EXO's preprocessing, less its defects: both sides are stripped alike, so that turns which differ by white space
    alone are equal, and a speaker's name inside a turn stays.
    """
    if "prompt" in row:
        return own(row, "prompt", "chosen")
    texts = [string(row, name) for name in ("chosen", "rejected")]
    chosen, rejected = map(turns, texts)
    prompt = ""
    for (speaker, text), (other_speaker, other_text) in zip(chosen, rejected, strict=False):
        if speaker != other_speaker:
            raise Skip("the speakers differ")
        prompt += f"\n\n{speaker}:"
        if text.strip() == other_text.strip():
            prompt += text
        elif speaker == "Human":
            raise Skip("the Human turns differ")
        elif not text.strip() or not other_text.strip():
            raise Skip("an empty answer")
        else:
            return {"prompt": prompt, "chosen": f" {text.strip()}", "rejected": f" {other_text.strip()}"}
    raise Skip("no answer differs by more than white space")


def turns(dialogue: str) -> list[tuple[str, str]]:
    """(speaker, text) of each turn; the text begins right after the colon. Skip for what does not start with one."""
    start, *parts = _TURN.split(dialogue)
    if start.strip() or not parts or not dialogue.startswith("\n\n"):
        raise Skip("not a dialogue")
    return list(zip(parts[::2], parts[1::2], strict=True))


# ------------------------------------------------------------------------------------- TL;DR


def tldr(row: dict) -> dict:
    """{subreddit, title, post, summary} -> {prompt, chosen}, the summary as it was written."""
    if "prompt" in row:
        return own(row, "prompt", "chosen")
    return {"prompt": tldr_prompt(row), "chosen": string(row, "summary")}


def tldr_pref(row: dict) -> dict:
    """{info: {subreddit, title, post}, summaries: [{text}, {text}], choice: 0 | 1} -> {prompt, chosen, rejected}.

    The set also holds comparisons of news articles, which have no post: they are skipped.
    """
    if "prompt" in row:
        return own(row, "prompt", "chosen", "rejected")
    info, summaries, choice = row.get("info"), row.get("summaries"), row.get("choice")
    if not isinstance(info, dict):
        raise ValueError(f"info: expected an object, got {kind(info)}")
    if not isinstance(summaries, list) or len(summaries) != 2 or not all(isinstance(s, dict) for s in summaries):
        raise ValueError("summaries: expected two objects")
    if choice not in (0, 1) or isinstance(choice, bool):
        raise ValueError(f"choice: expected 0 or 1, got {choice!r}")
    if info.get("post") is None:
        raise Skip("no post")
    texts = [f" {string(summary, 'text').strip()}" for summary in summaries]
    return {"prompt": tldr_prompt(info), "chosen": texts[choice], "rejected": texts[1 - choice]}


def tldr_prompt(post: dict) -> str:
    """The prompt made of a post's subreddit, title and text."""
    subreddit, title, text = (string(post, name) for name in ("subreddit", "title", "post"))
    return f"SUBREDDIT: r/{subreddit}\nTITLE: {title}\nPOST: {text}\nTL;DR:"


# -------------------------------------------------------------------------------------- IMDB

_LABELS = {0: "negative", 1: "positive", "0": "negative", "1": "positive", "neg": "negative", "pos": "positive"}


def imdb(row: dict, words: int = 10) -> dict:
    """{text} -> {prompt, chosen}: the first `words` words, and the rest with the white space before it."""
    if "prompt" in row:
        return own(row, "prompt", "chosen")
    text = string(row, "text").strip()
    start = re.match(rf"(?:\S+\s+){{{words - 1}}}\S+(?=\s)", text)
    if not start:
        raise Skip("not longer than the prompt")
    return {"prompt": start.group(), "chosen": text[start.end():]}


def imdb_labels(row: dict) -> dict:
    """{text, label} -> {text, label} with the labels named: 0 | "neg" is "negative", 1 | "pos" "positive"."""
    text, label = string(row, "text"), row.get("label")
    if label in ("negative", "positive"):
        return row
    if label in (-1, "-1", "unsup"):
        raise Skip("no label")
    if isinstance(label, bool) or not isinstance(label, int | str) or label not in _LABELS:
        raise ValueError(f"label: expected 0, 1, neg or pos, got {label!r}")
    return {"text": text, "label": _LABELS[label]}


# ------------------------------------------------------------------------------ WritingPrompts

_MARK = re.compile(r"\A\s*\[\s*[A-Za-z]{2}\s*\]\s*")  # of the kind of prompt: "[ WP ] "


def writing(row: dict) -> dict:
    """{prompt: "[ WP ] You wake up .", story} -> {prompt, chosen}, the mark left out; of a prompt alone {prompt}.

    Source: Fan et al. 2018, Hierarchical Neural Story Generation.
    """
    prompt = _MARK.sub("", string(row, "prompt")).strip()
    if not prompt:
        raise Skip("no text")
    if "story" not in row:
        return {**row, "prompt": prompt}
    return {"prompt": prompt, "chosen": f" {string(row, 'story').strip()}"}


# ----------------------------------------------------------------------------- row -> record


def convert(rows: Iterable[Row], function: Callable[[dict], dict | list[dict]],
            dropped: Counter[str]) -> Iterator[dict]:
    """The records of the rows; counts those left out in `dropped`, by reason. Raises DataError naming the row."""
    for where, row in rows:
        try:
            made = function(row)
            yield from made if isinstance(made, list) else [made]
        except Skip as reason:
            dropped[str(reason)] += 1
        except ValueError as error:
            raise DataError(f"{where}: {error}") from error


def share(rows: Iterable[Row], first: float, last: float) -> Iterable[Row]:
    """The rows from the share `first` of the set up to the share `last`: (0, .1) is the first tenth, (.1, 1) the rest.

    A row of a set is a whole conversation, post or tree, so that no prompt of its later turns is in another share. As
    in the AI-feedback study, in the set's own order. Holds all rows, unless all are wanted.
    """
    if (first, last) == (0, 1):
        return rows
    rows = list(rows)
    return rows[round_down(len(rows) * first):round_down(len(rows) * last)]


def round_down(number: float) -> int:
    """28 for .29 * 100, which is 28.999999999999996."""
    return int(number + 1e-9)


def asked(*turns: str) -> str:
    """The prompt of a dialogue in HH's form, human and assistant by turns, the human's last.

    >>> asked("Hi", "Hello.", "Who?")
    "\\n\\nHuman: Hi\\n\\nAssistant: Hello.\\n\\nHuman: Who?\\n\\nAssistant:"
    """
    speakers = ("Human", "Assistant")
    return "".join(f"\n\n{speakers[i % 2]}: {text}" for i, text in enumerate(turns)) + "\n\nAssistant:"


def instruction(prompt: str) -> str:
    """What a human asked, of a prompt that is one question in HH's form; any other prompt as it is."""
    first, end = "\n\nHuman: ", "\n\nAssistant:"
    text = prompt.removeprefix(first).removesuffix(end)
    return text if asked(text) == prompt else prompt


def answer(text: str) -> str:
    """A completion: one space lies between the prompt and it."""
    return f" {text.strip()}"


def unmarked(*texts: str) -> None:
    """Raises Skip for a text that holds one of the MARKS."""
    if any(mark in text for text in texts for mark in MARKS):
        raise Skip("a tokenizer's mark in it")


def own(row: dict, *names: str) -> dict:
    """A record that is in our form already, with the fields it must have."""
    for name in names:
        string(row, name)
    return row


def string(row: dict, name: str) -> str:
    """A field that must be text. Raises ValueError that names it."""
    if name not in row:
        raise ValueError(f"{name}: missing")
    if not isinstance(row[name], str):
        raise ValueError(f"{name}: expected a string, got {kind(row[name])}")
    return row[name]


def number(row: dict, name: str) -> float:
    """A field that must be a number. Raises ValueError that names it."""
    if name not in row:
        raise ValueError(f"{name}: missing")
    if type(row[name]) not in (int, float):  # not bool
        raise ValueError(f"{name}: expected a number, got {kind(row[name])}")
    return row[name]


def objects(row: dict, name: str) -> list[dict]:
    """A field that must be a list of objects. Raises ValueError that names it."""
    if name not in row:
        raise ValueError(f"{name}: missing")
    if not isinstance(row[name], list):
        raise ValueError(f"{name}: expected an array, got {kind(row[name])}")
    for place, item in enumerate(row[name]):
        if not isinstance(item, dict):
            raise ValueError(f"{name}[{place}]: expected an object, got {kind(item)}")
    return row[name]
