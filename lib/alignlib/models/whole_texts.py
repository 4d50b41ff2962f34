"""Others' reward models: what they read is the whole conversation as their template writes it, to its last token.

    prompt       <|im_start|>user\\nHi<|im_end|>\\n<|im_start|>assistant\\n
    completions  Hello.<|im_end|>\\n | Go away.<|im_end|>\\n                    read at the last token of each

Prompt and completion are encoded together, as their makers do it; what the completions of a record begin with alike is
put into the prompt. A plain prompt is a turn of the user's; without a template it is a text, and goes on as one.
"""

import os
from typing import Any

from alignlib.models.encoding import Encoder
from alignlib.models.example import Example
from alignlib.records.jsonl import Record


class WholeTexts(Encoder):
    """The Encoder of reward models that al-train-rm did not make.

    pad  the configuration's padding token: transformers reads such a model before those at a text's end
    """

    def __init__(self, *arguments: Any, pad: int | None, **settings: Any):
        super().__init__(*arguments, eos=False, **settings)
        self.pad = pad

    def begin(self, record: Record, condition: str = "", role: str = "user") -> Example:
        """The prompt alone, for completions that are yet to be written."""
        return super().begin(self.conversation(record), condition, role)

    def encode(self, record: Record, completions: list[str], condition: str = "", role: str = "user") -> Example:
        """The Example of the whole conversations, one a completion; each has at least one token of its own."""
        if condition:
            raise ValueError("a reward model reads no conditions")
        texts = [self.whole(record, text) for text in completions]
        shared = min(len(os.path.commonprefix(texts)), min(map(len, texts)) - 1)
        rows = [self.embedded(ids[shared:]) for ids in texts]
        prompt = texts[0][:shared]
        return self.fit(Example(self.embedded(prompt), rows, head=self.head(prompt)))

    def whole(self, record: Record, text: str) -> list[int]:
        """Ids of a conversation with its answer, down to the token where it is read."""
        record = self.conversation(record)
        if "messages" in record:
            ids = self.chat_template().ids(record["messages"], text, record)
        else:
            ids = [*self.prefix, *self.tokens.begin(record["prompt"] + text, self.control), *self.closing]
        while len(ids) > 1 and ids[-1] == self.pad:
            ids = ids[:-1]
        if not ids:
            raise ValueError("an empty text, and the tokenizer has no token to begin one with")
        return ids

    def conversation(self, record: Record) -> Record:
        """The record, a plain prompt as a turn of the user's where there is a template."""
        if "messages" in record or self.template is None or self.control:
            return record
        self.note("a plain prompt is read as a turn of the user's")
        others = {name: value for name, value in record.items() if name != "prompt"}
        return {**others, "messages": [{"role": "user", "content": record["prompt"]}]}
