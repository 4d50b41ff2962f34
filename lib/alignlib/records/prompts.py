"""The prompt of a record, as `prompt` or as `messages`: by what it is known again, and how it reads."""

from hashlib import blake2b

import orjson

from alignlib.records.conversations import canonical
from alignlib.records.jsonl import Record


def prompt_of(record: Record) -> object:
    """The prompt: the conversation before the answer, else the text, else None."""
    record = canonical(record)
    return record.get("messages", record.get("prompt"))


def prompt_key(record: Record) -> bytes:
    """16 bytes that stand for the prompt, whatever the order of its turns' keys: long prompts need not be kept."""
    return blake2b(orjson.dumps(prompt_of(record), option=orjson.OPT_SORT_KEYS), digest_size=16).digest()


def prompt_text(record: Record) -> str:
    """The prompt as one text; messages become a dialogue, each under its role."""
    record = canonical(record)
    if "messages" not in record:
        return record["prompt"]
    return "\n\n".join(f"[{message['role']}]\n{message.get('content') or ''}" for message in record["messages"])
