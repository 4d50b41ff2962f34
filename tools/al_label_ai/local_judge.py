"""Judges that run here: a language model by the probability of each option, a reward model by its score.

Nothing is written and nothing parsed: of the options of a Form ("A", "B", "C"; "1" to "10"; the categories) the most
likely one after the question is the answer.
"""

from collections.abc import Iterator

import click
import torch

from al_label_ai import answers as forms
from al_label_ai.modes import Answer
from al_label_ai.questions import Call
from alignlib.models import load
from alignlib.models.encoding import Example
from alignlib.models.policy import Pack, Packed
from alignlib.records.jsonl import Line
from alignlib.records.stream import Stream

WINDOW = 32  # records batched together


class Packs:
    """A model asked in packs, a window of records at a time."""

    def __init__(self, model: Packed, pack_tokens: int):
        self.model, self.pack_tokens, self.tokens = model, pack_tokens, 0
        # A question that is cut is another question.
        self.encoder = load.encoder(model, on_long="fail", max_length=min(model.context, 1 << 20))

    def prepare(self, calls: list[Call]) -> list[tuple[Call, Example]]:
        """Raises ValueError for a call that is longer than the model's context."""
        return [(call, self.example(call)) for call in calls]

    def answers(self, stream: Stream) -> Iterator[tuple[Line, list[Answer]]]:
        for lines in stream.windows(WINDOW):
            calls = [(line, call, example) for line in lines for call, example in line.data[1]]
            rows = self.rows([example for _, _, example in calls])
            for line in lines:
                mine = [(call, row) for (owner, call, _), row in zip(calls, rows, strict=True) if owner is line]
                if not all(row.isfinite().all() for _, row in mine):
                    raise FloatingPointError(f"{line.where}: the judge gives figures that are not finite")
                yield line, [Answer(self.choose(call, row.tolist())) for call, row in mine]

    def rows(self, examples: list[Example]) -> list[torch.Tensor]:
        """What `figures` gives for each example, [K]."""
        found: list[torch.Tensor] = [torch.empty(0)] * len(examples)
        for indices in self.model.plan(examples, range(len(examples)), self.pack_tokens):
            batch = self.model.pack([examples[i] for i in indices])
            self.tokens += batch.tokens
            with torch.inference_mode():
                for i, row in zip(indices, self.figures(batch), strict=True):
                    found[i] = row.cpu()
        return found

    def counts(self) -> dict[str, int]:
        return {"tokens": self.tokens}


class Local(Packs):
    """The policy at `path`; its chat template is used where it has one."""

    def __init__(self, path: str, device: str, dtype: str, pack_tokens: int):
        super().__init__(load.load_policy(path, device, dtype), pack_tokens)
        self.chats = bool(self.encoder.tokenizer.chat_template)

    def example(self, call: Call) -> Example:
        options = call.form.options
        if self.chats:
            record = {"messages": call.messages}
        else:
            record, options = {"prompt": f"{call.messages[0]['content']}\n\nAnswer:"}, [f" {text}" for text in options]
        # An option is not over where another one goes on; elsewhere what the model would write behind it is no matter.
        over = any(other != text and other.startswith(text) for text in options for other in options)
        return self.encoder.encode({**record, "finish_reasons": ["stop" if over else "length"] * len(options)}, options)

    def figures(self, batch: Pack) -> torch.Tensor:
        return self.model.logps(batch)

    def choose(self, call: Call, row: list[float]) -> dict:
        return call.form.read(call.form.options[row.index(max(row))])


class Reward(Packs):
    """The reward model at `path`, for pairs."""

    def __init__(self, path: str, device: str, dtype: str, pack_tokens: int):
        super().__init__(load.load_reward(path, device, dtype), pack_tokens)
        labels = self.model.core.config.id2label
        if len(labels) > 1:
            raise click.UsageError(f"{path}: a classifier of {', '.join(labels.values())}, no reward model")

    def example(self, call: Call) -> Example:
        return self.encoder.encode(call.record, list(call.texts))

    def figures(self, batch: Pack) -> torch.Tensor:
        return self.model.scores(batch)

    def choose(self, call: Call, row: list[float]) -> dict:
        first, second = row
        return {"verdict": forms.NEITHER if first == second else forms.A if first > second else forms.B}
