"""How each mode of al-label-ai asks a judge, and what it makes of the answers.

    pair      which of two is better, in both orders: winner, orders_agree, chosen, rejected
    together  two scores in one answer, in both orders: the same, and scores (their means)
    rate      a score of each: scores
    lmc       a category of each: feedbacks (steerlm: its attributes)
    lmu       a review of each: analyses, feedbacks, scores

`queries(record)` are what to ask, `label(record, answers)` is the labelled record; a judge of any kind answers between.
"""

import hashlib
from collections.abc import Generator, Sequence
from typing import NamedTuple, Protocol

from al_label_ai.answers import (
    A,
    AnswerForm,
    B,
    Parts,
    category_form,
    preference,
    review_form,
    score_form,
    two_scores_form,
    verdict_form,
)
from al_label_ai.questions import Category, Query, Template, packaged_text
from alignlib.records.fields import require_completions
from alignlib.records.jsonl import Line, Record
from alignlib.records.prompts import prompt_text
from alignlib.records.stream import Stream

PAIR = {"first": "answer A", "second": "answer B"}
ONE = {"completion": "answer"}
SCORES = (1, 10)
# Those of two completions, whoever gave them; a score of each is another matter, and goes beside them.
VERDICT = ("winner", "win_probability", "orders_agree", "unparsed")


class Answer(NamedTuple):
    """What was read of a judge's answer to one query; None, and the raw text, where it could not be read."""

    parts: Parts | None
    raw: str | None = None


class Judge(Protocol):
    """Whoever answers queries. A Line's data is (record, what `prepare` made of the queries about it)."""

    def prepare(self, queries: list[Query]) -> Sequence[object]:
        """What the judge needs of a record's queries. Raises ValueError for one that cannot be asked."""

    def answers(self, stream: Stream) -> Generator[tuple[Line, list[Answer]], None, None]:
        """Every line, in order, with the answers to its queries, in theirs."""

    def counts(self) -> dict[str, float]:
        """What answering took, for the summary: tokens, calls, ..."""


class Comparison:
    """Two completions compared: a verdict holds if it is the same in both orders.

    one_order   ask once, the sides drawn by the seed from the texts
    ties        "random": a tie (no verdict that could not be read) gets chosen and rejected by a coin
    """

    compares = True

    def __init__(self, template: Template, *, one_order: bool = False, ties: str = "keep", seed: int = 0,
                 sides: bool = True):
        self.template, self.one_order, self.ties, self.seed = template, one_order, ties, seed
        self.sides = sides  # False: the judge sees no order, so there is none to draw

    def queries(self, record: Record) -> list[Query]:
        """Raises ValueError for a record without two completions."""
        require_completions(record)
        texts = record["completions"]
        if len(texts) != 2:
            raise ValueError(f"completions: expected 2, got {len(texts)}")
        shown = texts[::-1] if self.one_order and self.swapped(record) else texts
        orders = [shown] if self.one_order else [shown, shown[::-1]]
        return [self.template.fill(record, *order) for order in orders]

    def swapped(self, record: Record) -> bool:
        """Whether the one order shows the second completion first."""
        return self.sides and coin(self.seed, "side", record)

    def label(self, record: Record, answers: Sequence[Answer]) -> Record:
        """The record with the verdict of both orders; with `unparsed` and no verdict where one could not be read."""
        scores = () if "verdict" in self.template.form.parts else ("scores",)  # else they are another run's
        labelled = without(record, "chosen", "rejected", *VERDICT, *scores)
        parts = [answer.parts for answer in answers if answer.parts is not None]
        if len(parts) < len(answers):
            return labelled | {"winner": None, "orders_agree": None, "unparsed": [answer.raw for answer in answers]}
        turns = [self.swapped(record)] if self.one_order else [False, True]
        verdicts = {preference(shown) * (-1 if turned else 1) for shown, turned in zip(parts, turns, strict=True)}
        agree = len(verdicts) == 1
        winner = {1: 0, -1: 1}.get(min(verdicts)) if agree else None
        labelled |= {"winner": winner, "orders_agree": None if self.one_order else agree}
        if scores:
            labelled["scores"] = mean_scores(parts, turns)
        best = int(coin(self.seed, "tie", record)) if winner is None and self.ties == "random" else winner
        if best is not None:
            labelled |= {"chosen": record["completions"][best], "rejected": record["completions"][1 - best]}
        return labelled


def mean_scores(parts: Sequence[Parts], turns: Sequence[bool]) -> list[float]:
    """The mean score of each of two completions over the orders; in one that is turned, the second is shown first."""
    rows = [[int(scores[name]) for name in ((B, A) if turned else (A, B))]
            for scores, turned in zip(parts, turns, strict=True)]
    return [sum(column) / len(rows) for column in zip(*rows, strict=True)]


class Single:
    """Every completion judged alone.

    fields      for each field to write, the part of the answer it takes
    attributes  what to write instead of a part: a category's attributes
    """

    compares = False

    def __init__(self, template: Template, fields: dict[str, str],
                 attributes: dict[str | int, str | None] | None = None):
        self.template, self.fields, self.attributes = template, fields, attributes or {}

    def queries(self, record: Record) -> list[Query]:
        """Raises ValueError for a record without completions."""
        # Labels it had are replaced, whatever they are.
        require_completions(without(record, *self.fields))
        return [self.template.fill(record, text) for text in record["completions"]]

    def label(self, record: Record, answers: Sequence[Answer]) -> Record:
        """The record with its fields, null for a completion whose answer could not be read: see `unparsed_each`."""
        labelled = without(record, *self.fields, "unparsed_each")
        for field, part in self.fields.items():
            labelled[field] = [answer.parts and self.attributes.get(answer.parts[part], answer.parts[part])
                               for answer in answers]
        if any(answer.parts is None for answer in answers):
            labelled["unparsed_each"] = [answer.raw for answer in answers]
        return labelled


Mode = Comparison | Single


def build_mode(name: str, question: str, template: str | None, *, categories: Sequence[Category] = (),
               as_json: bool = False, one_order: bool = False, ties: str = "keep", seed: int = 0,
               sides: bool = True) -> Mode:
    """The mode `name` with the text of its question, and of a template of the user's own, if there is one."""

    def fill_in(file: str, form: AnswerForm, shown: dict[str, str], kinds: Sequence[Category] = ()) -> Template:
        return Template(template or packaged_text(file), question, form, shown, kinds, as_json)

    def compare(file: str, form: AnswerForm) -> Comparison:
        return Comparison(fill_in(file, form, PAIR), one_order=one_order, ties=ties, seed=seed, sides=sides)

    if name == "pair":
        return compare("pair", verdict_form())
    if name == "together":
        return compare("rate-together", two_scores_form(*SCORES))
    if name == "rate":
        return Single(fill_in("rate", score_form(*SCORES), ONE), {"scores": "score"})
    if name == "lmu":
        parts = {"analyses": "analysis", "feedbacks": "feedback", "scores": "score"}
        return Single(fill_in("lmu", review_form(), ONE), parts)
    attributes: dict[str | int, str | None] = {}
    if name == "steerlm":
        attributes = {category.name: category.attributes for category in categories}
    form = category_form([category.name for category in categories])
    return Single(fill_in("category", form, ONE, categories), {"feedbacks": "category"}, attributes)


def coin(seed: int, what: str, record: Record) -> bool:
    """A coin that falls the same way for the same texts, wherever the record stands."""
    text = repr((seed, what, prompt_text(record), record["completions"]))
    return bool(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=1).digest()[0] & 1)


def without(record: Record, *names: str) -> Record:
    """The record less some of its fields."""
    return {name: value for name, value in record.items() if name not in names}
