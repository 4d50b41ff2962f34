"""Dialogues of rows -> prompts: one text in HH's form, or with --chat messages.

A row function makes a `Dialogue` of its turns, once. It is the prompt as one text; `as_chat` makes messages of it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Self

from alignlib.records.jsonl import Record, Skip

SPEAKERS = {"user": "Human", "assistant": "Assistant"}
ROLES = {speaker: role for role, speaker in SPEAKERS.items()}
_TURN = re.compile(r"\n\n(Human|Assistant)s?:")
_ANSWERS = ("chosen", "rejected", "completions")


class Dialogue(str):
    """A prompt as one text in HH's form, which keeps its messages: the last one is what is answered.

    >>> Dialogue([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}])
    "\\n\\nHuman: Hi\\n\\nAssistant:"

    text: where it is not what the messages would make; it has no turns of a system or a tool.
    """

    messages: list[Record]

    def __new__(cls, messages: list[Record], text: str | None = None) -> Self:
        spoken = ((SPEAKERS[turn["role"]], turn.get("content") or "") for turn in messages if turn["role"] in SPEAKERS)
        made = "".join(f"\n\n{speaker}: {words}" for speaker, words in spoken) + "\n\nAssistant:"
        dialogue = super().__new__(cls, made if text is None else text)
        dialogue.messages = messages
        return dialogue


def alternate(*texts: str, system: Iterable[str] = ()) -> Dialogue:
    """The prompt of user and assistant by turns, the user's last."""
    before = [{"role": "system", "content": text} for text in system]
    turns = [{"role": ("user", "assistant")[place % 2], "content": text} for place, text in enumerate(texts)]
    return Dialogue(before + turns)


def turns(dialogue: str) -> list[Record]:
    """The messages of a text in HH's form, their contents right from the colon. Skip for what does not start so."""
    start, *parts = _TURN.split(dialogue)
    if start.strip() or not parts or not dialogue.startswith("\n\n"):
        raise Skip("not a dialogue")
    return [{"role": ROLES[speaker], "content": text} for speaker, text in zip(parts[::2], parts[1::2], strict=True)]


def read(prompt: str) -> Dialogue:
    """The dialogue that a prompt is; any other text than one in HH's form is one turn of the user."""
    if isinstance(prompt, Dialogue):
        return prompt
    begun = prompt.startswith("\n\n")
    try:
        if not begun and "\n\nAssistant:" not in prompt:
            raise Skip("not a dialogue")  # "Human: ..." alone is a text that begins so
        messages = turns(prompt if begun else f"\n\n{prompt}")
    except Skip:
        return Dialogue([{"role": "user", "content": prompt}], prompt)
    if messages[-1]["role"] == "assistant" and not messages[-1]["content"].strip():
        messages.pop()  # the answer's beginning
    return Dialogue(stripped(messages), prompt)


def stripped(messages: Iterable[Record]) -> list[Record]:
    """The messages without the white space at their ends."""
    return [{**turn, "content": turn["content"].strip()} for turn in messages]


# ------------------------------------------------------------------------------------- two dialogues


def same(turn: Record, other: Record) -> bool:
    """Whether two turns of one role say the same, but for white space, and call the same tools."""
    words, other_words = ((message.get("content") or "").strip() for message in (turn, other))
    return bool(words == other_words and turn.get("tool_calls") == other.get("tool_calls"))


def first_difference(chosen: Sequence[Record], rejected: Sequence[Record]) -> int:
    """The place of the first turn that differs, which must be the assistant's. Raises Skip where none does, or another.

    What follows in either dialogue is no answer to the same prompt.
    """
    for place, (turn, other) in enumerate(zip(chosen, rejected, strict=False)):
        if turn["role"] != other["role"]:
            raise Skip("the speakers differ")
        if same(turn, other):
            continue
        if turn["role"] != "assistant":
            raise Skip(f"the {turn['role']}'s turns differ")
        if not all((message.get("content") or "").strip() or message.get("tool_calls") for message in (turn, other)):
            raise Skip("an empty answer")
        return place
    raise Skip("no answer differs by more than white space")


# -------------------------------------------------------------------------------------------- messages


def must_ask(messages: Sequence[Record]) -> None:
    """Raises Skip for messages that no answer can follow: the user begins, no turn is empty, no answer comes last."""
    if not all((turn.get("content") or "").strip() or turn.get("tool_calls") for turn in messages):
        raise Skip("an empty turn")
    spoken = [turn["role"] for turn in messages if turn["role"] != "system"]
    if not spoken:
        raise Skip("no question")
    if spoken[0] != "user":
        raise Skip(f"begins with the {spoken[0]}")
    if messages[-1]["role"] not in ("user", "tool"):
        raise Skip("no question before the answer")


def as_chat(record: Record) -> Record:
    """The record with `messages` in the place of its prompt, and texts without the space before them."""
    if "messages" in record:
        return record
    messages = read(record["prompt"]).messages
    must_ask(messages)
    return {"messages" if name == "prompt" else name:
            messages if name == "prompt" else bare(value) if name in _ANSWERS else value
            for name, value in record.items()}


def bare(answers: object) -> object:
    """An answer, or a list of them, without the one space that lies between a prompt of text and it."""
    if isinstance(answers, list):
        return [bare(answer) for answer in answers]
    return answers.removeprefix(" ") if isinstance(answers, str) else answers


def as_chats(records: Iterable[Record], dropped: Counter[str]) -> Iterator[Record]:
    """The records as `as_chat` makes them; those that have no messages are counted."""
    for record in records:
        try:
            yield as_chat(record)
        except Skip as reason:
            dropped[str(reason)] += 1


def question(record: Record) -> str:
    """The record's prompt as one text, in either form; "" where it has none."""
    return Dialogue(record["messages"]) if "messages" in record else record.get("prompt", "")
