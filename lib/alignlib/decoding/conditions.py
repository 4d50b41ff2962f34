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

import click

from alignlib.records.jsonl import kind
from alignlib.records.prompts import prompt_of


@dataclass(frozen=True)
class Condition:
    """Texts to put before prompts, of which each prompt gets one: the same one in any company."""

    texts: tuple[str, ...]
    seed: int = 0

    def text_for(self, record: dict) -> str:
        if len(self.texts) == 1:
            return self.texts[0]
        name = repr((self.seed, prompt_of(record)))
        digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        return self.texts[int.from_bytes(digest) % len(self.texts)]


def condition_for(said: str, model: str, seed: int) -> Condition:
    """The Condition that --condition says. Raises UsageError where the model keeps none of that name."""
    tag = re.fullmatch("tag:([0-9]+)", said)
    if re.fullmatch(r"tag:\S*", said) and tag is None:
        raise click.UsageError(f"--condition {said}: expected the tag's number, tag:1 is the best")
    if tag is None and said not in ("best", "exemplars"):
        return Condition((said,))
    kept = read_conditions(model, f"--condition {said}")
    if said == "best":
        return Condition((kept["best"],))
    if said == "exemplars":
        if not kept["exemplars"]:
            raise click.UsageError(f"--condition exemplars: {model} has none; there are best and tag:1 to "
                                   f"tag:{len(kept['tags'])}")
        return Condition(tuple(kept["exemplars"]), seed)
    if not 1 <= int(tag[1]) <= len(kept["tags"]):
        told = f"tags 1 to {len(kept['tags'])}" if kept["tags"] else "no tags, but exemplars"
        raise click.UsageError(f"--condition {said}: {model} has {told}")
    return Condition((kept["tags"][int(tag[1]) - 1],))


def read_conditions(model: str, option: str) -> dict:
    """The `conditions` of MODEL/run.json, which an option asks for. Raises UsageError."""
    file = Path(model) / "run.json"
    try:
        kept = json.loads(file.read_text())["conditions"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise click.UsageError(f"{option}: {file} keeps no conditions; al-train-alt's do") from error
    for name, wanted in (("best", str), ("tags", list), ("exemplars", list)):
        value = kept.get(name) if isinstance(kept, dict) else None
        if not isinstance(value, wanted) or not all(isinstance(text, str) for text in value):
            raise click.UsageError(f"{file}: conditions.{name}: not what al-train-alt writes, but {kind(value)}")
    return kept
