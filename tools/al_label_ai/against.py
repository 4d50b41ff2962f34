"""The second completions of `--mode pair --against FILE`: another file's, joined by the prompt."""

from alignlib.records import fields
from alignlib.records.jsonl import Record
from alignlib.records.prompts import prompt_key, read_by_prompt


class Partners:
    """The second completions: of another file, which has each prompt once. Raises DataError where it has not."""

    def __init__(self, path: str) -> None:
        self.completions = read_by_prompt(path, only_completion, once=True)
        self.met: set[bytes] = set()  # the prompts that a record of the first file has, too

    def join(self, record: Record) -> Record:
        """The record with its one completion and that of the same prompt's record. Raises ValueError."""
        first, prompt = only_completion(record), prompt_key(record)
        if prompt not in self.completions:
            raise ValueError("prompt: --against has no record with it")
        self.met.add(prompt)
        return {**fields.without_completions(record), "completions": [first, *self.completions[prompt]]}

    def left_over(self) -> int:
        """How many of the prompts no record has had."""
        return len(self.completions.keys() - self.met)


def only_completion(record: Record) -> str:
    """The one completion of a record, or what it has as chosen. Raises ValueError."""
    name = "completions" if "completions" in record else "chosen"
    fields.require(record, "prompt", name)
    texts = record[name] if name == "completions" else [record[name]]
    if len(texts) != 1:
        raise ValueError(f"completions: expected 1 with --against, got {len(texts)}")
    return texts[0]
