"""What al-sample puts before prompts: a text, or a condition that the policy was trained under, as its run.json has it.

    best        the best one
    tag:2       the second of the tags, the best first
    exemplars   one a prompt, drawn from the feedbacks that the best completions had
"""

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import click

from alignlib.records.conversations import CONDITION_ROLES
from alignlib.records.jsonl import Record, kind
from alignlib.records.prompts import prompt_of


class TrainedConditions(TypedDict):
    """What al-train-alt keeps as `conditions` in a policy's run.json."""

    best: str
    tags: list[str]  # the best first; [] where feedbacks are free text
    exemplars: list[str]  # the most frequent first; [] where there are tags
    role: str  # in whose turn of a conversation they stood


@dataclass(frozen=True)
class Condition:
    """Texts to put before prompts, of which each prompt gets one: the same one in any company."""

    texts: tuple[str, ...]
    seed: int = 0
    role: str = "user"  # in whose turn of a conversation it stands: "user" or "system"

    def text_for(self, record: Record) -> str:
        if len(self.texts) == 1:
            return self.texts[0]
        name = repr((self.seed, prompt_of(record)))
        digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        return self.texts[int.from_bytes(digest) % len(self.texts)]


def condition_for(name: str, model: str, seed: int, role: str | None = None) -> Condition:
    """The Condition that `--condition name` means: "best", "tag:N", "exemplars", or else the text itself.

    It stands in the turn of `role`; None: where the model was trained under it, or in the user's. Raises UsageError
    where the model keeps none of that name.
    """
    option = f"--condition {name}"
    tag = re.fullmatch("tag:([0-9]+)", name)
    if re.fullmatch(r"tag:\S*", name) and tag is None:
        raise click.UsageError(f"{option}: expected the tag's number, tag:1 is the best")
    if tag is None and name not in ("best", "exemplars"):
        return Condition((name,), role=role or "user")
    trained = read_conditions(model, option)
    tags, exemplars, role = trained["tags"], trained["exemplars"], role or trained["role"]
    if name == "best":
        return Condition((trained["best"],), role=role)
    if tag is None:
        if not exemplars:
            raise click.UsageError(f"{option}: {model} has none; there are best and tag:1 to tag:{len(tags)}")
        return Condition(tuple(exemplars), seed, role)
    if not 1 <= int(tag[1]) <= len(tags):
        others = f"tags 1 to {len(tags)}" if tags else "no tags, but exemplars"
        raise click.UsageError(f"{option}: {model} has {others}")
    return Condition((tags[int(tag[1]) - 1],), role=role)


def read_conditions(model: str, option: str) -> TrainedConditions:
    """The `conditions` of MODEL/run.json, which an option needs. Raises UsageError."""
    file = Path(model) / "run.json"
    try:
        kept = json.loads(file.read_text())["conditions"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise click.UsageError(f"{option}: {file} keeps no conditions; al-train-alt's do") from error
    kept = kept if isinstance(kept, dict) else {}
    for name, wanted in (("best", str), ("tags", list), ("exemplars", list)):
        value = kept.get(name)
        if not isinstance(value, wanted) or not all(isinstance(text, str) for text in value):
            raise click.UsageError(f"{file}: conditions.{name}: not what al-train-alt writes, but {kind(value)}")
    role = kept.get("role", "user")  # older ones are of plain prompts
    if role not in CONDITION_ROLES:
        raise click.UsageError(f"{file}: conditions.role: expected {' or '.join(CONDITION_ROLES)}, got {role!r}")
    return TrainedConditions(best=kept["best"], tags=kept["tags"], exemplars=kept["exemplars"], role=role)
