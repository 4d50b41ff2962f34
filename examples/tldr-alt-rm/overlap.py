"""The reward of a summary: how far its words are those of the one in the record (ROUGE-1's F, Lin 2004)."""

import re
from collections import Counter


def words(text: str) -> Counter[str]:
    return Counter(re.findall(r"[a-z0-9]+", text.lower()))


def f1(record: dict, completions: list[str]) -> list[float]:
    """Twice the words in common by the words of both, 0 to 1, for each completion."""
    wanted = words(record["chosen"])
    return [2 * (words(text) & wanted).total() / ((words(text) + wanted).total() or 1) for text in completions]
