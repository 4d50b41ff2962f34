"""The prompt of a record, as `prompt` or as `messages`: by what it is known again, and how it reads."""

from collections.abc import Callable
from hashlib import blake2b
from typing import TypeVar

import orjson

from alignlib.records.conversations import canonical, reader
from alignlib.records.jsonl import Record, read_all

T = TypeVar("T")


def prompt_of(record: Record) -> object:
    """The prompt: the conversation before the answer, else the text, else None."""
    record = canonical(record)
    return record.get("messages", record.get("prompt"))


def prompt_key(record: Record) -> bytes:
    """16 bytes that stand for the prompt, so that long prompts need not be kept."""
    return blake2b(orjson.dumps(prompt_of(record)), digest_size=16).digest()


def prompt_text(record: Record) -> str:
    """The prompt as one text; messages become a dialogue, each under its role."""
    record = canonical(record)
    if "messages" not in record:
        return record["prompt"]
    return "\n\n".join(f"[{message['role']}]\n{message['content'] or ''}" for message in record["messages"])


def read_by_prompt(path: str, prepare: Callable[[Record], T]) -> dict[bytes, list[T]]:
    """What `prepare` makes of a file's records, in lists by `prompt_key`: to join another file's records with.

    Raises DataError for a bad line.
    """
    by_prompt: dict[bytes, list[T]] = {}
    for line in read_all([path], reader(prepare)):
        by_prompt.setdefault(prompt_key(line.record), []).append(line.data)
    return by_prompt
