"""What the toy world's three languages share: splitting text into words, and how foreign a text is to a language."""

from __future__ import annotations

import re
from collections.abc import Iterable
from random import Random
from string import ascii_lowercase

_WORD = re.compile(r"[a-z]+")
_NAME = re.compile(r"\{[a-z0-9]+\}")  # of a template
_LOWER = bytes(ord(char) if (char := chr(code).lower()) in ascii_lowercase else ord(" ") for code in range(256))


def words(text: str) -> list[str]:
    """The lower-case words of a text: maximal runs of a to z."""
    if text.isascii():  # a quicker way to the same words
        return text.encode().translate(_LOWER).decode().split()
    return _WORD.findall(text.lower())


def vocabulary(*texts: str | Iterable[str]) -> frozenset[str]:
    """Every word that the given texts, or collections of texts, hold; {names} to be filled in are none."""
    joined = " ".join(text if isinstance(text, str) else " ".join(text) for text in texts)
    return frozenset(words(_NAME.sub(" ", joined)))


def foreign(tokens: list[str], text: str, known: frozenset[str]) -> float:
    """How foreign a text is to a language, 0 to 1: the share of its words that are not known; 1 for one without words.

    Letters outside a to z count as an unknown word each, so that text in another script is foreign too.
    """
    strange = sum(1 for char in text if not char.isascii()) if not text.isascii() else 0
    total = len(tokens) + strange
    return (len(tokens) - sum(map(known.__contains__, tokens)) + strange) / total if total else 1.0


def fill(rng: Random, templates: tuple[str, ...], facts: dict[str, str]) -> str:
    """One of the templates, its {names} filled in from the facts."""
    return rng.choice(templates).format_map(facts)
