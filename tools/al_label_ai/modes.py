"""How each mode of al-label-ai asks a judge, and what it makes of the answers.

    pair      which of two is better, in both orders: winner, orders_agree, chosen, rejected
    together  two scores in one answer, in both orders: the same, and scores (their means)
    rate      a score of each: scores
    lmc       a category of each: feedbacks (steerlm: its attributes)
    lmu       a review of each: analyses, feedbacks, scores

`calls(record)` are the questions, `label(record, answers)` the labelled record. An answer is (parts, raw): what a
Form read, or None and the text that could not be read.
"""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

from al_label_ai import answers as forms
from al_label_ai.questions import Call, Category, Question, packaged
from alignlib.records import fields as records
from alignlib.records.prompts import prompt_text

PAIR = {"first": "answer A", "second": "answer B"}
ONE = {"completion": "answer"}
SCORES, REVIEWS = (1, 10), (0, 3)


class Answer(NamedTuple):
    parts: dict[str, str | int] | None
    raw: str | None = None  # where there are no parts


class Pair:
    """Two completions compared: a verdict holds if it is the same in both orders.

    one_order   ask once, the sides drawn by the seed from the texts
    ties        "random": a tie (no verdict that could not be read) gets chosen and rejected by a coin
    """

    def __init__(self, question: Question, *, one_order: bool = False, ties: str = "keep", seed: int = 0,
                 sides: bool = True):
        self.question, self.one_order, self.ties, self.seed = question, one_order, ties, seed
        self.sides = sides  # False: the judge sees no order, so there is none to draw

    def calls(self, record: dict) -> list[Call]:
        """Raises ValueError for a record without two completions."""
        records.require_completions(record)
        texts = record["completions"]
        if len(texts) != 2:
            raise ValueError(f"completions: expected 2, got {len(texts)}")
        shown = texts[::-1] if self.one_order and self.swapped(record) else texts
        orders = [shown] if self.one_order else [shown, shown[::-1]]
        return [self.question.ask(record, *order) for order in orders]

    def swapped(self, record: dict) -> bool:
        return self.sides and coin(self.seed, "side", record)

    def label(self, record: dict, answers: Sequence[Answer]) -> dict:
        scores = () if "verdict" in self.question.form.parts else ("scores",)  # else they are another run's
        made = without(record, "chosen", "rejected", "winner", "orders_agree", "unparsed", *scores)
        if any(answer.parts is None for answer in answers):
            return made | {"winner": None, "orders_agree": None, "unparsed": [answer.raw for answer in answers]}
        turns = [self.swapped(record)] if self.one_order else [False, True]
        told = [forms.preference(answer.parts) * (-1 if turned else 1)
                for answer, turned in zip(answers, turns, strict=True)]
        winner = {(1,): 0, (-1,): 1}.get(tuple(set(told)))
        made |= {"winner": winner, "orders_agree": None if self.one_order else told[0] == told[1]}
        if "verdict" not in answers[0].parts:
            made["scores"] = self.means(answers, turns)
        best = int(coin(self.seed, "tie", record)) if winner is None and self.ties == "random" else winner
        if best is not None:
            made |= {"chosen": record["completions"][best], "rejected": record["completions"][1 - best]}
        return made

    def means(self, answers: Sequence[Answer], turns: Sequence[bool]) -> list[float]:
        """The mean score of each completion over the orders."""
        rows = [[answer.parts[name] for name in ((forms.B, forms.A) if turned else (forms.A, forms.B))]
                for answer, turned in zip(answers, turns, strict=True)]
        return [sum(column) / len(rows) for column in zip(*rows, strict=True)]


class Each:
    """Every completion judged alone; `fields` names, for each field to write, the part of the answer it takes."""

    def __init__(self, question: Question, fields: dict[str, str], told: dict[str, str] | None = None):
        self.question, self.fields, self.told = question, fields, told or {}

    def calls(self, record: dict) -> list[Call]:
        """Raises ValueError for a record without completions."""
        # Labels it had are replaced, whatever they are.
        records.require_completions(without(record, *self.fields))
        return [self.question.ask(record, text) for text in record["completions"]]

    def label(self, record: dict, answers: Sequence[Answer]) -> dict:
        made = without(record, *self.fields, "unparsed")
        for field, part in self.fields.items():
            made[field] = [answer.parts and self.value(answer.parts[part]) for answer in answers]
        if any(answer.parts is None for answer in answers):
            made["unparsed"] = [answer.raw for answer in answers]
        return made

    def value(self, part: str | int) -> str | int:
        return self.told.get(part, part)


def mode_of(name: str, question: str, template: str | None, *, categories: Sequence[Category], as_json: bool,
            **pair) -> Pair | Each:
    """The mode `name` with the text of its question, and of a template of the user's own, if there is one."""
    def asked(file: str, form: forms.Form, shown: dict[str, str], kinds: Sequence[Category] = ()) -> Question:
        return Question(template or packaged(file), question, form, shown, kinds, as_json)

    if name == "pair":
        return Pair(asked("pair", forms.letters(), PAIR), **pair)
    if name == "together":
        return Pair(asked("rate-together", forms.two_scores(*SCORES), PAIR), **pair)
    if name == "rate":
        return Each(asked("rate", forms.score(*SCORES), ONE), {"scores": "score"})
    if name == "lmu":
        parts = {"analyses": "analysis", "feedbacks": "feedback", "scores": "score"}
        return Each(asked("lmu", forms.review(), ONE), parts)
    told = {category.name: category.attributes for category in categories} if name == "steerlm" else None
    form = forms.category([category.name for category in categories])
    return Each(asked("category", form, ONE, categories), {"feedbacks": "category"}, told)


def coin(seed: int, what: str, record: dict) -> bool:
    """A coin that falls the same way for the same texts, wherever the record stands."""
    text = repr((seed, what, prompt_text(record), record["completions"]))
    return bool(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=1).digest()[0] & 1)


def without(record: dict, *names: str) -> dict:
    return {name: value for name, value in record.items() if name not in names}
