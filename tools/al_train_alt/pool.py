"""ALT's data pool: completions with feedback, sorted into classes, drawn evenly, each under the condition of its class.

    {"prompt": "Q", "completions": [" a", " b"], "rewards": [0.2, 1.5]}        two quantiles, --mode rm
      -> {"prompt": "Q", "condition": "Excellent. input: ", "completions": [" b"], ...}
         {"prompt": "Q", "condition": "Horrible. input: ", "completions": [" a"], ...}

The classes, best first, are quantiles of the rewards (rm, quark), a judge's categories (lmc, steerlm) or its scores
(lmu). Source: ALT (arXiv 2407.16970) and Quark (arXiv 2205.13636). Where the authors' code is otherwise:

- A prompt with fewer completions than quantiles is left out and counted; there all of them got the worst tag.
- Draws and drops are keyed by seed and record, not by the order of the world, and what fills a shortfall is drawn as
  the rest is; there it was the first in the pool.
- A feedback that is no category is an error; there it was drawn where others fell short, and trained on.
- Adding to a pool that holds a prompt already works; there it crashed for some pools.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, TypeVar

import orjson

from al_train_alt.tags import BY_REWARD, CONDITIONS, names
from alignlib.records import fields
from alignlib.records.jsonl import DataError, Record

NEEDS = {"rm": ("rewards",), "quark": ("rewards",), "lmc": ("feedbacks",), "steerlm": ("feedbacks",),
         "lmu": ("feedbacks", "scores")}
BEST_SCORE = 3  # of lmu's 0 to 3
ASKED = ("prompt", "messages", "tools")  # a prompt's fields
EXEMPLARS = 1000  # kept of the best feedbacks, the most frequent first

Key = TypeVar("Key")
Placed = tuple[str, Record]  # where a record stands ("scored.jsonl:17"), and the record


@dataclass(frozen=True)
class Selection:
    """How a pool is sorted into classes and drawn from. Raises ValueError for what cannot be.

    tags          best first; () the mode's own, ("toxicity",) those of that name in tags.TAGS
    scope         quantiles of each "prompt"'s completions, or of the whole "pool"'s
    per_quantile  completions drawn of each class of a prompt, as many as there are
    per_prompt    completions drawn of a prompt, in even shares of its classes; what a class lacks the others fill
    drop          the share of each class of the old pool that leaves it
    seed          of the draws; one of its own for each iteration, so that the same ones do not stay for ever
    role          in whose turn of a conversation conditions stand
    tokens        counts a completion's tokens; with `limit`, for the guess whether one was cut
    """

    mode: str
    quantiles: int = 5
    tags: tuple[str, ...] = ()
    scope: str = "prompt"
    per_quantile: int | None = None
    per_prompt: int | None = None
    drop: float = 1.0
    seed: int = 0
    role: str = "user"
    tokens: Callable[[str], int] | None = field(default=None, compare=False)
    limit: int | None = None

    def __post_init__(self) -> None:
        if self.mode in ("quark", "lmu") and self.tags:
            raise ValueError(f"tags: those of mode {self.mode} are its own")
        if self.mode in BY_REWARD and len(self.names) != self.quantiles:
            raise ValueError(f"tags: {len(self.names)} for {self.quantiles} quantiles; give one for each")
        if self.mode != "lmu" and len(self.names) < 2:
            raise ValueError("tags: at least two, the best first")
        if self.per_quantile and self.per_prompt:
            raise ValueError("per_quantile or per_prompt: give one of the two")
        if not all(map(str.strip, self.names)):
            raise ValueError("tags: one is blank")
        for one, other in pairwise(sorted(self.names, key=str.casefold)):  # what a text begins comes right after it
            if other.casefold().startswith(one.casefold()):
                raise ValueError(f"tags: {one!r} is the beginning of {other!r}")

    @property
    def names(self) -> tuple[str, ...]:
        """The tags, best first; () for lmu, whose feedbacks are free text."""
        return names(self.mode, self.tags, self.quantiles)

    @property
    def mark(self) -> dict[str, Any]:
        """What a pool's records say of themselves."""
        return {"mode": self.mode, "tags": list(self.names)}

    def condition(self, tag: str) -> str:
        """The text that goes before a prompt: "Good. input: "."""
        return CONDITIONS[self.mode].format(tag.strip() if self.mode == "lmu" else tag)

    def check(self, record: Record) -> None:
        """Raises ValueError for a record that does not hold what the mode needs, or is of another pool."""
        if record.get("pool", self.mark) != self.mark:
            fields.check(record, "pool")
            raise ValueError(f"pool: made with {_shown(record['pool'])}, not {_shown(self.mark)}")
        fields.require_completions(record, *NEEDS[self.mode])
        if self.mode == "lmu":
            for i, score in enumerate(record["scores"]):
                if score is not None and not 0 <= score <= BEST_SCORE:
                    raise ValueError(f"scores[{i}]: expected 0 to {BEST_SCORE}, got {score}")
        elif self.mode not in BY_REWARD:
            for i, feedback in enumerate(record["feedbacks"]):
                if (feedback or "").strip() and self.category(feedback) is None:
                    raise ValueError(f"feedbacks[{i}]: {feedback!r} is none of the tags: {', '.join(self.names)}")

    def category(self, feedback: str) -> int | None:
        """The number of the tag that a feedback is, in any case."""
        known = {name.strip().casefold(): i for i, name in enumerate(self.names)}
        return known.get(feedback.strip().casefold())


def _shown(mark: dict[str, Any]) -> str:
    tags = mark.get("tags")
    return f"mode {mark.get('mode')}" + (f" and tags {', '.join(map(str, tags))}" if tags else "")


@dataclass(slots=True)
class Entry:
    """A completion in the pool; `kind` is its class, 0 the best, None where its prompt has too few to be sorted."""

    prompt: str  # as a text: itself, or its conversation as JSON
    text: str
    asked: Record  # the record's fields that say the prompt
    reason: str
    ids: bytes | None  # as JSON: a list takes eight times as much
    end: tuple[int | None] | None  # what ended it; None where nobody knows
    reward: float | None
    feedback: str | None
    score: float | None
    again: int  # how many entries of this prompt had this text before
    where: str  # its record stands
    kind: int | None = None

    def class_number(self) -> int:
        """Its class, of an entry that has been sorted."""
        assert self.kind is not None
        return self.kind

    def key(self, seed: int, what: str) -> bytes:
        """A place in a random order that is the entry's own, in any company."""
        name = repr((seed, what, self.prompt, self.text, self.again))
        return hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest()


@dataclass
class Pool:
    """What `gather` returns: the entries that stayed, and counts of what happened to the others."""

    selection: Selection
    entries: list[Entry]
    counts: dict[str, int]

    def training(self) -> list[Placed]:
        """Conditioned records: one for each prompt and condition, with the completions drawn under it.

        Where it stands is said of the first completion's record.
        """
        groups: dict[tuple[str, str], list[Entry]] = defaultdict(list)
        for prompt, entries in _grouped(self.entries, lambda entry: entry.prompt).items():
            drawn = _draw([entry for entry in entries if entry.kind is not None], self.selection)
            for entry in sorted(drawn, key=Entry.class_number):
                groups[prompt, self.condition(entry)].append(entry)
        return [(entries[0].where, {**entries[0].asked, "condition": condition, **_columns(entries)})
                for (_, condition), entries in groups.items()]

    def condition(self, entry: Entry) -> str:
        tags = self.selection.names
        return self.selection.condition(tags[entry.class_number()] if tags else entry.feedback or "")

    def records(self) -> list[Record]:
        """The pool, one record a prompt: what the next iteration reads as the old one."""
        return [{**entries[0].asked, **_columns(entries), "pool": self.selection.mark}
                for entries in _grouped(self.entries, lambda entry: entry.prompt).values()]

    @property
    def conditions(self) -> dict[str, Any]:
        """What al-sample --condition reads: the best one, all of the tags, best first, and lmu's exemplars."""
        tags = [self.selection.condition(name) for name in self.selection.names]
        exemplars = [] if tags else self.exemplars()
        return {"best": (tags or exemplars)[0], "tags": tags, "exemplars": exemplars, "role": self.selection.role}

    def exemplars(self) -> list[str]:
        """The conditions of the feedbacks with the highest score there is, the most frequent first."""
        best = max(entry.score or 0 for entry in self.entries)
        seen = Counter(self.condition(entry) for entry in self.entries if entry.score == best)
        return sorted(seen, key=lambda text: (-seen[text], text))[:EXEMPLARS]


def gather(new: Iterable[Placed], old: Iterable[Placed], selection: Selection) -> Pool:
    """The old pool, less what is dropped, and the new records, all of them checked (`Selection.check`).

    Raises DataError where nothing is left that could be sorted into classes.
    """
    counts: Counter[str] = Counter()
    seen: Counter[tuple[str, str]] = Counter()
    before, added = _entries(old, selection, counts, seen), _entries(new, selection, counts, seen)
    _sort(before, selection)
    kept = _keep(before, selection)
    counts["old completions dropped"] = len(before) - len(kept)
    entries = kept + added
    _sort(entries, selection)
    few = [entry for entry in entries if entry.kind is None]
    counts["prompts with too few completions"] = len({entry.prompt for entry in few})
    if not entries:
        raise DataError("no completions with feedback to learn from")
    if len(few) == len(entries):
        by_prompt = selection.scope == "prompt"
        which, cure = ("every prompt has", ", or --scope pool") if by_prompt else ("the pool has", "")
        raise DataError(f"{which} fewer completions than there are quantiles ({selection.quantiles}): more of them "
                        f"(al-sample -n), fewer --quantiles{cure}")
    return Pool(selection, entries, dict(counts))


def _entries(records: Iterable[Placed], selection: Selection, counts: Counter[str],
             seen: Counter[tuple[str, str]]) -> list[Entry]:
    """The completions of records that have feedback; the others are counted."""
    entries = []
    for where, record in records:
        rows = {name: record.get(name) or [None] * len(record["completions"])
                for name in ("finish_reasons", "completion_ids", "rewards", "feedbacks", "scores")}
        asked = {name: record[name] for name in ASKED if name in record}
        key = record["prompt"] if "messages" not in record else orjson.dumps(asked).decode()
        ends = record.get("end_ids")
        for i, text in enumerate(record["completions"]):
            reason, ids, reward, feedback, score = (rows[name][i] for name in rows)
            lacks = None in [rows[name][i] for name in NEEDS[selection.mode]]
            if lacks or feedback is not None and not feedback.strip():
                counts["completions without feedback"] += 1
                continue
            if reason is None:
                counts["finish reasons guessed"] += 1
                reason = "length" if was_cut(text, selection) else "stop"
            entries.append(Entry(key, text, asked, reason, ids and orjson.dumps(ids), (ends[i],) if ends else None,
                                 reward, feedback, score, seen[key, text], where))
            seen[key, text] += 1
    return entries


def was_cut(text: str, selection: Selection) -> bool:
    """The authors' guess where no finish reason is known: as long as the limit, and no final mark."""
    if selection.tokens is None or selection.limit is None or text.rstrip().endswith((".", "?", "!")):
        return False
    return selection.tokens(text) == selection.limit


def _sort(entries: Sequence[Entry], selection: Selection) -> None:
    """Set every entry's class. Quantiles hold n // quantiles each, the last also the rest; ties keep their order."""
    if selection.mode not in BY_REWARD:
        for entry in entries:
            by_score = selection.mode == "lmu"
            entry.kind = BEST_SCORE - int(entry.score or 0) if by_score else selection.category(entry.feedback or "")
        return
    for group in _grouped(entries, lambda entry: entry.prompt if selection.scope == "prompt" else "").values():
        size = len(group) // selection.quantiles
        for place, entry in enumerate(sorted(group, key=lambda entry: -(entry.reward or 0))):
            entry.kind = min(place // size, selection.quantiles - 1) if size else None


def _keep(entries: Sequence[Entry], selection: Selection) -> list[Entry]:
    """What stays of the old pool: of each class (of a prompt, or of the pool) the share 1 - drop, rounded down."""
    kept: set[int] = set()

    def pool_and_class(entry: Entry) -> tuple[str, int | None]:
        return entry.prompt if selection.scope == "prompt" else "", entry.kind

    for group in _grouped(entries, pool_and_class).values():
        order = sorted(group, key=lambda entry: entry.key(selection.seed, "keep"))
        kept.update(map(id, order[:math.floor(len(order) * (1 - selection.drop) + 1e-9)]))
    return [entry for entry in entries if id(entry) in kept]


def _draw(entries: Sequence[Entry], selection: Selection) -> list[Entry]:
    """Some of one prompt's entries, none twice; those that were cut come after all others of their class."""
    if not (selection.per_quantile or selection.per_prompt):
        return list(entries)
    order = sorted(entries, key=lambda entry: (entry.reason == "length", entry.key(selection.seed, "draw")))
    classes = len(selection.names) or BEST_SCORE + 1
    share = selection.per_quantile or (selection.per_prompt or 0) // classes
    drawn: list[Entry] = []
    left: list[Entry] = []
    taken: Counter[int | None] = Counter()
    for entry in order:
        (drawn if taken[entry.kind] < share else left).append(entry)
        taken[entry.kind] += 1
    return drawn + left[:selection.per_prompt - len(drawn)] if selection.per_prompt else drawn


def _columns(entries: Sequence[Entry]) -> Record:
    """The lists of a record, one entry a completion; those that some of the entries lack stay out."""
    rows: dict[str, list[Any]] = {
        "completions": [entry.text for entry in entries], "finish_reasons": [entry.reason for entry in entries],
        "completion_ids": [entry.ids and orjson.loads(entry.ids) for entry in entries],
        "rewards": [entry.reward for entry in entries],
        "feedbacks": [entry.feedback for entry in entries], "scores": [entry.score for entry in entries]}
    ends = [entry.end[0] for entry in entries if entry.end]
    rows = {name: row for name, row in rows.items() if None not in row}
    return rows | ({"end_ids": ends} if len(ends) == len(entries) else {})


def _grouped(entries: Iterable[Entry], by: Callable[[Entry], Key]) -> dict[Key, list[Entry]]:
    groups: dict[Key, list[Entry]] = defaultdict(list)
    for entry in entries:
        groups[by(entry)].append(entry)
    return groups
