"""How long texts may be, in tokens, and what is cut of those that are longer."""

from collections.abc import Sequence
from dataclasses import replace

from alignlib.models.example import Example
from alignlib.records.jsonl import Skip


class TooLong(ValueError):
    """A record longer than the limits, where --on-long is fail."""


class Limits:
    """What an Encoder cuts to; `cut` counts what was cut.

    max_length      tokens of the prompt and its longest completion together
    max_prompt      tokens of the prompt; None: what the completions leave
    max_completion  tokens of a completion, its end included; None: what the prompt leaves, at least half
    keep            which end of a too long prompt stays
    on_long         "truncate", "skip" or "fail"
    closing         ids that stay at the end of every completion
    """

    closing: Sequence[int] = ()

    def __init__(self, max_length: int, max_prompt: int | None, max_completion: int | None, keep: str, on_long: str):
        self.max_length, self.max_prompt = max_length, max_prompt or max_length
        self.max_completion = max_completion
        self.keep, self.on_long = keep, on_long
        self.cut = {"prompts_cut": 0, "completions_cut": 0}

    def fit(self, example: Example) -> Example:
        """Cut to the limits: completions lose their right end, then the prompt its far one."""
        limit = self.completion_limit(len(example.prompt))
        rows = [self.shorten_completion(row, limit) for row in example.completions]
        room = min(self.max_prompt, self.max_length - max(map(len, rows), default=0))
        prompt = self.shorten(example.prompt, max(room, 1), example.head, example.tail)
        if not prompt and not all(rows or [[]]):
            raise ValueError("an empty text, and the tokenizer has no token to begin one with")
        cut_rows = sum(len(row) < len(whole) for row, whole in zip(rows, example.completions, strict=True))
        cut_prompt = len(prompt) < len(example.prompt)
        if cut_rows or cut_prompt:
            longest = max(map(len, example.completions), default=0)
            self.too_long(f"{len(example.prompt)} prompt and {longest} completion tokens, "
                          f"limits {max(room, 1)} and {limit}")
            self.cut["prompts_cut"] += cut_prompt
            self.cut["completions_cut"] += cut_rows
        given = frozenset(place for place in example.given if place < len(rows[0]))  # of none there is no row
        return replace(example, prompt=prompt, completions=rows, given=given)

    def shorten(self, prompt: list[int], room: int, head: int, tail: int = 0) -> list[int]:
        """At most `room` ids of the prompt, its first `head` and last `tail` among them.

        Raises TooLong or Skip where those are more.
        """
        if len(prompt) <= room:
            return prompt
        if head + tail > room or tail and self.keep == "start":
            turn = " and the turn it stands in" if tail else ""
            what = f"{head + tail} tokens of a condition{turn}, {room} for the prompt"
            self.too_long(what)
            raise TooLong(f"too long: {what}")  # nor is a condition truncated
        if self.keep == "start":
            return prompt[:room]
        return [*prompt[:head], *prompt[len(prompt) - room + head:]]

    def completion_limit(self, prompt: int) -> int:
        """Tokens that a completion may have after a prompt of that many; one of the prompt stays in any case."""
        left = self.max_length - min(prompt, self.max_prompt)
        return min(self.max_completion or max(left, self.max_length // 2, 1), max(self.max_length - 1, 1))

    def shorten_completion(self, row: list[int], limit: int) -> list[int]:
        """The first ids of a completion; what closes an encoder's text stays at its end."""
        return row if len(row) <= limit else [*row[:limit - len(self.closing)], *self.closing]

    def too_long(self, what: str) -> None:
        """Raises Skip or TooLong, as `on_long` has it; goes on where it is "truncate"."""
        if self.on_long == "skip":
            raise Skip(f"too long: {what}")
        if self.on_long == "fail":
            raise TooLong(f"too long: {what}")
