"""Sets of texts, to continue or to classify: posts and their summaries, film reviews, stories, toxic beginnings."""

from __future__ import annotations

import re

from al_data.row import number, own, string, strings
from alignlib.records.jsonl import Record, Skip

# ------------------------------------------------------------------------------------- TL;DR


def tldr(row: Record) -> Record:
    """{subreddit, title, post, summary} -> {prompt, chosen}, the summary as it was written."""
    if "prompt" in row:
        return own(row, "prompt", "chosen")
    return {"prompt": tldr_prompt(row), "chosen": string(row, "summary")}


def tldr_prompt(post: Record) -> str:
    """The prompt made of a post's subreddit, title and text."""
    subreddit, title, text = (string(post, name) for name in ("subreddit", "title", "post"))
    return f"SUBREDDIT: r/{subreddit}\nTITLE: {title}\nPOST: {text}\nTL;DR:"


# ----------------------------------------------------------------------------------- SciTLDR


def scitldr(row: Record) -> Record:
    """{paper_id, source: sentences, target: summaries} -> {id, prompt, chosen}: the first summary.

    Source: Cachola et al. 2020, TLDR: Extreme Summarization of Scientific Documents, and its published files.
    """
    if "prompt" in row:
        return own(row, "prompt", "chosen")
    prompt = " ".join(sentence.strip() for sentence in strings(row, "source"))
    summaries = strings(row, "target")
    if not prompt or not summaries:
        raise Skip("no text")
    named = {"id": string(row, "paper_id")} if "paper_id" in row else {}
    return {**named, "prompt": f"{prompt}\n\nTL;DR:", "chosen": f" {summaries[0].strip()}"}


# -------------------------------------------------------------------------------------- IMDB

_LABELS = {0: "negative", 1: "positive", "0": "negative", "1": "positive", "neg": "negative", "pos": "positive"}


def imdb(row: Record, words: int = 10) -> Record:
    """{text} -> {prompt, chosen}: the first `words` words, and the rest with the white space before it."""
    if "prompt" in row:
        return own(row, "prompt", "chosen")
    text = string(row, "text").strip()
    start = re.match(rf"(?:\S+\s+){{{words - 1}}}\S+(?=\s)", text)
    if not start:
        raise Skip("not longer than the prompt")
    return {"prompt": start.group(), "chosen": text[start.end():]}


def imdb_labels(row: Record) -> Record:
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


def writing(row: Record) -> Record:
    """{prompt: "[ WP ] You wake up .", story} -> {prompt, chosen}, the mark left out; of a prompt alone {prompt}.

    Source: Fan et al. 2018, Hierarchical Neural Story Generation.
    """
    prompt = _MARK.sub("", string(row, "prompt")).strip()
    if not prompt:
        raise Skip("no text")
    if "story" not in row:
        return {**row, "prompt": prompt}
    return {"prompt": prompt, "chosen": f" {string(row, 'story').strip()}"}


# ------------------------------------------------------------------------- RealToxicityPrompts


def rtp(row: Record) -> Record:
    """{filename, begin, prompt: {text}, continuation: {text, toxicity}} -> {prompt, completions, rewards}.

    The reward is 1 - the toxicity of what followed on the web.
    """
    if isinstance(row.get("prompt"), str):
        return own(row, "prompt")
    prompt, continuation = row.get("prompt"), row.get("continuation")
    if not isinstance(prompt, dict) or not isinstance(continuation, dict):
        raise ValueError("prompt, continuation: expected objects")
    if continuation.get("toxicity") is None:
        raise Skip("no toxicity")
    toxicity = number(continuation, "toxicity")
    if not 0 <= toxicity <= 1:
        raise ValueError(f"toxicity: expected 0 to 1, got {toxicity:g}")
    return {"prompt": string(prompt, "text"), "completions": [string(continuation, "text")], "rewards": [1 - toxicity]}
