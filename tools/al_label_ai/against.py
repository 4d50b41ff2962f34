"""The second completions of `--mode pair --against FILE`: another file's, joined by the id or else by the prompt."""

from typing import NamedTuple

import orjson

from alignlib.records import conversations, fields
from alignlib.records.jsonl import Record
from alignlib.records.prompts import prompt_key


class Partner(NamedTuple):
    """What is kept of a record of the other file; its `name` is its id, None where it has none."""

    name: bytes | None
    prompt: bytes
    completion: str


class Partners:
    """The second completions: of another file, whose records have an id or a prompt of their own.

    A record is joined to the one with its id. Where none has it, it is the prompt that tells: files that were numbered
    apart are still joined. The prompts of records with one id may differ, for each model may have been asked in its own
    form. Raises DataError where two records of the file cannot be told apart.
    """

    def __init__(self, path: str) -> None:
        self.partners: list[Partner] = []
        self.by_id: dict[bytes, int] = {}  # where in `partners`
        self.by_prompt: dict[bytes, list[int]] = {}
        self.met: set[int] = set()  # those that a record of the first file has been joined to
        for _ in conversations.read_all([path], self.add):
            pass

    def add(self, record: Record) -> None:
        """Keep what is needed of a record. Raises ValueError for one that cannot be told from another."""
        partner = Partner(id_key(record), prompt_key(record), only_completion(record))
        alike = self.by_prompt.setdefault(partner.prompt, [])
        if partner.name in self.by_id:
            raise ValueError("id: a second time")
        if alike and None in (partner.name, self.partners[alike[0]].name):
            raise ValueError("prompt: a second time")
        alike.append(len(self.partners))
        if partner.name is not None:
            self.by_id[partner.name] = len(self.partners)
        self.partners.append(partner)

    def join(self, record: Record) -> Record:
        """The record with its one completion and that of its partner. Raises ValueError."""
        first, number = only_completion(record), self.find(id_key(record), prompt_key(record))
        self.met.add(number)
        return {**fields.without_completions(record), "completions": [first, self.partners[number].completion]}

    def find(self, name: bytes | None, prompt: bytes) -> int:
        """Where in `partners` the one of a record with this id and this prompt is. Raises ValueError."""
        alike = self.by_prompt.get(prompt, [])
        if name in self.by_id:
            number = self.by_id[name]
            if alike and number not in alike:
                raise ValueError("id: --against has it with another prompt, and this prompt with another id")
            return number
        if not alike:
            raise ValueError(f"prompt: --against has no record with it{', nor with the id' if name else ''}")
        if len(alike) > 1:
            raise ValueError(f"prompt: --against has {len(alike)} records with it, and none with the id")
        return alike[0]

    def left_over(self) -> int:
        """How many of the other file's records no record has been joined to."""
        return len(self.partners) - len(self.met)


def id_key(record: Record) -> bytes | None:
    """The record's id, of whatever type; None for none."""
    return None if record.get("id") is None else orjson.dumps(record["id"])


def only_completion(record: Record) -> str:
    """The one completion of a record, or what it has as chosen. Raises ValueError."""
    name = "completions" if "completions" in record else "chosen"
    fields.require(record, "prompt", name)
    texts = record[name] if name == "completions" else [record[name]]
    if len(texts) != 1:
        raise ValueError(f"completions: expected 1 with --against, got {len(texts)}")
    return texts[0]
