"""Judges that run here: a language model by the probability of each option, a reward model by its score.

Nothing is written and nothing parsed: of the options of a Form ("A", "B", "C"; "1" to "10"; the categories) the most
likely one after the question is the answer.
"""

from collections.abc import Callable, Iterator
from itertools import islice
from math import isfinite

import click
from torch import Tensor

from al_label_ai import answers as forms
from al_label_ai.modes import Answer
from al_label_ai.questions import Call
from alignlib.models import load
from alignlib.models.encoding import Example
from alignlib.models.packs import Pack
from alignlib.models.policy import Model
from alignlib.models.scoring import WINDOW, PackScorer
from alignlib.records.jsonl import Line
from alignlib.records.stream import Stream


class Packs:
    """A model asked in packs, a window of records at a time."""

    def __init__(self, model: Model, figures: Callable[[Pack], Tensor], pack_tokens: int):
        self.packs = PackScorer(model, lambda batch: {"figures": figures(batch)}, pack_tokens)
        # A question that is cut is another question.
        self.encoder = load.encoder_for(model, on_long="fail", max_length=min(model.context, 1 << 20))

    def prepare(self, calls: list[Call]) -> list[tuple[Call, Example]]:
        """Raises ValueError for a call that is longer than the model's context."""
        return [(call, self.example(call)) for call in calls]

    def answers(self, stream: Stream) -> Iterator[tuple[Line, list[Answer]]]:
        for lines in stream.windows(WINDOW):
            rows = iter(self.packs.score([example for line in lines for _, example in line.data[1]]))
            for line in lines:
                calls = [call for call, _ in line.data[1]]
                figures = [row["figures"] for row in islice(rows, len(calls))]
                if not all(isfinite(value) for row in figures for value in row):
                    raise FloatingPointError(f"{line.where}: the judge gives figures that are not finite")
                yield line, [Answer(self.choose(call, row)) for call, row in zip(calls, figures, strict=True)]

    def counts(self) -> dict[str, int]:
        return {"tokens": self.packs.tokens}


class Local(Packs):
    """The policy at `path`; its chat template is used where it has one."""

    def __init__(self, path: str, device: str, dtype: str, pack_tokens: int):
        policy = load.load_policy(path, device, dtype)
        super().__init__(policy, policy.logps, pack_tokens)
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

    def choose(self, call: Call, row: list[float]) -> dict:
        return call.form.read(call.form.options[row.index(max(row))])


class Reward(Packs):
    """The reward model at `path`, for pairs."""

    def __init__(self, path: str, device: str, dtype: str, pack_tokens: int):
        model = load.load_reward(path, device, dtype)
        super().__init__(model, model.scores, pack_tokens)
        labels = model.core.config.id2label
        if len(labels) > 1:
            raise click.UsageError(f"{path}: a classifier of {', '.join(labels.values())}, no reward model")

    def example(self, call: Call) -> Example:
        return self.encoder.encode(call.record, list(call.texts))

    def choose(self, call: Call, row: list[float]) -> dict:
        first, second = row
        return {"verdict": forms.NEITHER if first == second else forms.A if first > second else forms.B}
