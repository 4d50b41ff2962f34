"""What a judge has to answer: the form as a JSON schema and in plain text, read strictly.

Reading invents nothing: "Rating: high", "7.5" and the quoted "8" of a JSON object are no scores, and two letters no
verdict. What cannot be read raises ValueError, and who asked asks again.
"""

import re
from dataclasses import dataclass
from typing import Any

import orjson

A, B, NEITHER = "A", "B", "C"
# Reasoning that a server leaves in the text; where the model's template opened it, its end alone, which begins a line.
THOUGHTS = re.compile(r"\A(?:\s*<think>.*?</think>)+|\A(?!\s*<think>).*^</think>", re.DOTALL | re.MULTILINE)
# The fence that some put around JSON.
FENCE = re.compile(r"\A```(?:json)?[^\S\n]*\n(.*)\n[^\S\n]*```\Z", re.DOTALL)
Parts = dict[str, str | int]  # of an answer, by name: {"verdict": "A"}, {"score": 8}, ...
NAMED = r"(?i:answer|verdict|better|more helpful|more harmless):\s*"


@dataclass(frozen=True)
class AnswerForm:
    """What an answer has to look like: as JSON its `parts`, as plain text a `pattern`.

    Each part, by name, is JSON Schema, {"enum": [...]} or a string. The pattern's named groups are the parts; `options`
    are the plain texts there are, () where it is free text.
    """

    parts: dict[str, dict[str, Any]]
    pattern: str
    options: tuple[str, ...] = ()

    def read(self, text: str) -> Parts:
        """The parts of an answer, each as its schema has it. Raises ValueError."""
        text = THOUGHTS.sub("", text).strip()
        if text.startswith("<think>"):
            raise ValueError("cut in its reasoning")  # which may name an answer that it then takes back
        if fenced := FENCE.match(text):
            text = fenced[1].strip()
        parts = self._json(text) if text.startswith("{") else self._plain(text)
        for name, schema in self.parts.items():
            value = parts.get(name)
            texts = [value.strip()] if isinstance(value, str) and value.strip() else []
            choices = [choice for choice in schema["enum"] if matches(choice, value)] if "enum" in schema else texts
            if not choices:
                raise ValueError(f"{name}: not one that there is")
            parts[name] = choices[0]
        return {name: parts[name] for name in self.parts}

    def _json(self, text: str) -> dict[str, Any]:
        return dict(orjson.loads(text))  # its error is a ValueError too

    def _plain(self, text: str) -> dict[str, Any]:
        match = re.fullmatch(self.pattern, text, re.DOTALL)
        if not match:
            raise ValueError("not in the form asked for")
        parts = match.groupdict()
        whole = (name for name, schema in self.parts.items() if type(schema.get("enum", [""])[0]) is int)
        return parts | {name: int(parts[name]) for name in whole}

    @property
    def response_format(self) -> dict[str, Any]:
        """What asks a server for nothing but this."""
        schema = {"type": "object", "properties": self.parts, "required": list(self.parts),
                  "additionalProperties": False}
        return {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}}

    @property
    def as_json(self) -> str:
        """The words that ask for it as JSON."""
        return f"Write the answer as a JSON object with {', '.join(self.parts)} and nothing else."


def matches(choice: str | int, value: object) -> bool:
    """Whether a value is a choice: of its type, so that true is not 1; categories in any case."""
    if isinstance(choice, str) and isinstance(value, str):
        return choice.casefold() == value.casefold()
    return type(value) is type(choice) and value == choice


def verdict_form() -> AnswerForm:
    """A, B or C (neither): alone, or named in the last line ("More helpful: A") after a comparison."""
    pattern = rf"""(?:(?:.*\n)?[^\S\n]*{NAMED}|Answer\s+)?["'*(\[]*(?P<verdict>[{A}{B}{NEITHER}])["'*)\]]*\.?"""
    choices = [A, B, NEITHER]
    return AnswerForm({"verdict": {"type": "string", "enum": choices}}, pattern, tuple(choices))


def out_of(most: int) -> str:
    """The pattern of what may follow a score, the most that it can be: "8/10", "3 out of 3".

    Of another most it is a score on another scale, and none of ours: "3 out of 3" is no 3 of 10, nor made to be a 10.
    """
    return rf"(?:[ \t]*/[ \t]*{most}|[ \t]+(?i:out[ \t]+of)[ \t]+{most})?"


def score_form(least: int, most: int) -> AnswerForm:
    """A whole number: "8", "8/10", "Score: 8", "8 out of 10"."""
    choices = list(range(least, most + 1))
    pattern = rf"(?:(?i:score|rating):\s*)?(?P<score>[0-9]{{1,3}}){out_of(most)}\.?"
    return AnswerForm({"score": {"type": "integer", "enum": choices}}, pattern, tuple(map(str, choices)))


def two_scores_form(least: int, most: int) -> AnswerForm:
    """Two whole numbers in the first line, "8 7", "8 7." or "8/10 7/10"; an explanation may follow."""
    whole = {"type": "integer", "enum": list(range(least, most + 1))}
    first, second = (rf"(?P<{name}>[0-9]{{1,3}}){out_of(most)}" for name in (A, B))
    return AnswerForm({A: whole, B: whole}, rf"{first}[ \t]+{second}\.?[ \t]*(?:[\r\n].*)?")


def category_form(names: list[str]) -> AnswerForm:
    """The name of a category, in any case."""
    either = "|".join(map(re.escape, names))
    pattern = rf"""(?:(?i:category):\s*)?["'*]*(?P<category>(?i:{either}))["'*]*\.?"""
    return AnswerForm({"category": {"type": "string", "enum": names}}, pattern, tuple(names))


def review_form() -> AnswerForm:
    """Analysis, feedback and a score from 0 to 3, each named once, in this order."""
    rest = r"((?!Analysis:|Feedback:|Score:).)+?(?<!\s)"
    pattern = (rf"Analysis:(?P<analysis>{rest})\s+Feedback:(?P<feedback>{rest})\s+"
               rf"Score:\s*(?P<score>[0-9]){out_of(3)}\.?")
    return AnswerForm({"analysis": {"type": "string"}, "feedback": {"type": "string"},
                       "score": {"type": "integer", "enum": [0, 1, 2, 3]}}, pattern)


def preference(parts: Parts) -> int:
    """Of a verdict or two scores: 1 where the first shown is preferred, -1 where the second is, 0 where neither."""
    if "verdict" in parts:
        return (parts["verdict"] == A) - (parts["verdict"] == B)
    first, second = int(parts[A]), int(parts[B])
    return (first > second) - (first < second)
