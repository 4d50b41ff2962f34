"""The toy world: a small seeded language of dialogues, posts and film reviews, with an oracle that scores any text.

It runs where nothing can be downloaded. Three tasks, each a grammar of about two hundred words:

    dialogue   "\\n\\nHuman: How do I paint the old door?\\n\\nAssistant:" -> " Sure, I am glad to help. Use a brush."
    summary    "SUBREDDIT: r/..\\nTITLE: ..\\nPOST: ..\\nTL;DR:"           -> " My sister lost my bike at the park."
    review     "Last Friday I watched a western called Silent River and"   -> " the plot was dull. The hero was warm."

Answers are drawn at random, good and bad parts alike, so that a model trained on them is mediocre and alignment has
room. Preferences follow the oracle through a Bradley-Terry coin: P(a over b) = sigmoid((score a - score b) / T).
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from itertools import count
from random import Random
from typing import Protocol

from alignlib.toy import dialogue, review, summary


class Language(Protocol):
    """What each task's module has beside its oracles."""

    def facts(self, rng: Random, /) -> dict[str, str]:
        """Draw a question: what it is about, and its `prompt`."""

    def answer(self, drawn: dict[str, str], rng: Random, /) -> str:
        """A random answer to it, perhaps a good one."""


TASKS = ("dialogue", "summary", "review")
SPLITS = ("train", "test")
_LANGUAGES: dict[str, Language] = {"dialogue": dialogue, "summary": summary, "review": review}
_SCORES = {
    "overall": dialogue.overall,
    "helpful": dialogue.helpful,
    "harmless": dialogue.harmless,
    "polite": dialogue.polite,
    "concise": dialogue.concise,
    "thorough": dialogue.thorough,
    "toxicity": dialogue.toxicity,
    "summary": summary.summary,
    "sentiment": review.sentiment,
}
ORACLES = tuple(_SCORES)
LABELS = {"review": ("positive", "negative"), "dialogue": ("toxic", "clean")}
# What each task's preferences follow, and the coin's temperature: with these the better answer wins 80 to 85 % of the
# pairs that differ. A negative one prefers the lower score.
PREFERRED_BY = {"dialogue": "overall", "summary": "summary", "review": "sentiment"}
_TEMPERATURE = {"overall": 0.5, "helpful": 0.4, "harmless": 0.5, "polite": 0.4, "concise": 0.15, "thorough": 0.15,
                "toxicity": -0.35, "summary": 0.5, "sentiment": 1.0}


def score(name: str, prompt: str, completion: str) -> float:
    """The oracle `name` (one of ORACLES) of one completion; higher is more of what the name says.

    Deterministic, and defined for every text: what is not of the world (unknown words, nothing at all) scores low.
    Raises ValueError for an unknown name.
    """
    return _SCORES[_one_of(name, ORACLES, "oracle")](prompt, completion)


def records(task: str, split: str = "train", seed: int = 0, limit: int | None = None, by: str = "",
            best_of: int = 0) -> Iterator[dict[str, str]]:
    """Yield `limit` (None: endless) preference records {id, prompt, chosen, rejected} of a task.

    `by` is the oracle the preferences follow: the task's own unless given; then the record's `domain` is its name.
    `best_of` (0: off) makes the best of so many random answers chosen, and another one rejected; the prompts stay.
    No prompt is in both splits; within one call prompts repeat only once the world has hardly any left.
    """
    language = _LANGUAGES[_one_of(task, TASKS, "task")]
    oracle = _one_of(by or PREFERRED_BY[task], ORACLES, "oracle")
    rng = Random(f"{task} {_one_of(split, SPLITS, 'split')} {seed} pairs")  # seeded by text: the same on every machine
    for number, facts in _numbered(language, split, rng, limit):
        prompt = facts["prompt"]
        chosen, rejected = _two_answers(language, facts, rng)
        margin = score(oracle, prompt, chosen) - score(oracle, prompt, rejected)
        if rng.random() > _sigmoid(margin / _TEMPERATURE[oracle]):
            chosen, rejected = rejected, chosen
        if best_of:
            more = Random(f"{task} {split} {seed} {number} best of")  # apart, so that the prompts stay as they are
            answers = [language.answer(facts, more) for _ in range(best_of)]
            best = max(answers, key=lambda text: score(oracle, prompt, text) / _TEMPERATURE[oracle])
            chosen, rejected = best, chosen if rejected == best else rejected
        record = {"id": f"toy-{task}-{split}-{seed}-{number}", "prompt": prompt, "chosen": chosen, "rejected": rejected}
        yield {**record, "domain": by} if by else record


def labelled(task: str, split: str = "train", seed: int = 0, limit: int | None = None) -> Iterator[dict[str, str]]:
    """Yield {id, text, label} for a classifier: reviews, positive | negative, or answers of dialogues, toxic | clean.

    Labels are coins of the oracle's own probability (sigmoid(sentiment); toxicity), so a calibrated classifier's
    log-odds find the oracle again. Raises ValueError for a task without labels.
    """
    language = _LANGUAGES[_one_of(task, tuple(LABELS), "labelled task")]
    rng = Random(f"{task} {_one_of(split, SPLITS, 'split')} {seed} labels")
    for number, facts in _numbered(language, split, rng, limit):
        prompt, answer = facts["prompt"], language.answer(facts, rng)
        if task == "review":
            text, chance = prompt + answer, _sigmoid(score("sentiment", prompt, answer))
        else:
            text, chance = answer.lstrip(), score("toxicity", prompt, answer)
        label = LABELS[task][0 if rng.random() < chance else 1]
        yield {"id": f"toy-{task}-{split}-{seed}-{number}", "text": text, "label": label}


def split_of(prompt: str) -> str:
    """The split a prompt belongs to, by a hash of its text: one in ten is test."""
    return "test" if zlib.crc32(prompt.encode()) % 10 == 0 else "train"


def _numbered(language: Language, split: str, rng: Random, limit: int | None) -> Iterator[tuple[int, dict[str, str]]]:
    """Numbered facts of prompts that belong to the split and were not seen yet."""
    seen: set[str] = set()
    for number in count() if limit is None else range(limit):
        for tries in count():
            facts = language.facts(rng)
            prompt = facts["prompt"]
            if split_of(prompt) != split:
                continue
            if tries > 500:  # nearly every prompt of the split has been used: begin again
                seen.clear()
            if prompt not in seen:
                break
        seen.add(prompt)
        yield number, facts


def _two_answers(language: Language, facts: dict[str, str], rng: Random) -> tuple[str, str]:
    """Two different random answers to one prompt."""
    first = second = language.answer(facts, rng)
    while second == first:
        second = language.answer(facts, rng)
    return first, second


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def _one_of(name: str, choices: tuple[str, ...], what: str) -> str:
    if name not in choices:
        raise ValueError(f"no {what} {name!r}: one of {', '.join(choices)}")
    return name
