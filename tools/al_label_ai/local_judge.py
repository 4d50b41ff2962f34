"""Judges that run here: a language model by the probability of each option, a reward model by its score.

Nothing is written and nothing parsed: of the options of a query's form ("A", "B", "C"; "1" to "10"; the categories)
the most likely one after the question is the answer.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from itertools import islice
from math import isfinite
from typing import Any

import click
from torch import Tensor

from al_label_ai.answers import NEITHER, A, B, Parts
from al_label_ai.modes import Answer
from al_label_ai.questions import Query
from alignlib.models import load
from alignlib.models.encoding import Example
from alignlib.models.packs import Pack
from alignlib.models.policy import Model
from alignlib.models.scoring import WINDOW, PackScorer
from alignlib.records.jsonl import Line, Record
from alignlib.records.stream import Stream

PACK_TOKENS = 16384  # on the device at once


class LocalJudge(ABC):
    """A model asked in packs, a window of records at a time; `measure` gives the figures of a Pack, [E, K].

    written: how an Encoder writes conversations
    """

    def __init__(self, model: Model, measure: Callable[[Pack], Tensor], **written: Any):
        self.packs = PackScorer(model, lambda batch: {"figures": measure(batch)}, PACK_TOKENS)
        # A question that is cut is another question.
        self.encoder = load.encoder_for(model, on_long="fail", max_length=min(model.context, 1 << 20), **written)

    @abstractmethod
    def example(self, query: Query) -> Example:
        """The query with its K options. Raises ValueError for one that is longer than the model's context."""

    @abstractmethod
    def choose(self, query: Query, figures: list[float]) -> Parts:
        """The answer, by the figures of the K options."""

    def prepare(self, queries: list[Query]) -> list[tuple[Query, Example]]:
        """Raises ValueError for a query that is longer than the model's context."""
        return [(query, self.example(query)) for query in queries]

    def answers(self, stream: Stream) -> Generator[tuple[Line, list[Answer]], None, None]:
        for lines in stream.windows(WINDOW):
            rows = iter(self.packs.score([example for line in lines for _, example in line.data[1]]))
            for line in lines:
                queries = [query for query, _ in line.data[1]]
                figures = [row["figures"] for row in islice(rows, len(queries))]
                if not all(isfinite(value) for row in figures for value in row):
                    raise FloatingPointError(f"{line.where}: the judge gives figures that are not finite")
                yield line, [Answer(self.choose(query, row)) for query, row in zip(queries, figures, strict=True)]

    def counts(self) -> dict[str, float]:
        return {"tokens": self.packs.tokens}


class PolicyJudge(LocalJudge):
    """The policy at `path`; its chat template is used where it has one."""

    def __init__(self, path: str, device: str, dtype: str, **written: Any):
        policy = load.load_policy(path, device, dtype)
        super().__init__(policy, policy.logps, **written)
        self.chats = self.encoder.template is not None

    def example(self, query: Query) -> Example:
        record: Record = {"messages": query.messages}
        options = list(query.form.options)
        if not self.chats:
            record, options = {"prompt": f"{query.messages[0]['content']}\n\nAnswer:"}, [f" {text}" for text in options]
        # An option is not over where another one goes on; elsewhere what the model would write behind it is no matter.
        over = any(other != text and other.startswith(text) for text in options for other in options)
        return self.encoder.encode({**record, "finish_reasons": ["stop" if over else "length"] * len(options)}, options)

    def choose(self, query: Query, figures: list[float]) -> Parts:
        return query.form.read(query.form.options[figures.index(max(figures))])


class RewardJudge(LocalJudge):
    """The reward model at `path`, for comparisons: the completion with the better score is the better one."""

    def __init__(self, path: str, device: str, dtype: str, **written: Any):
        model = load.load_reward(path, device, dtype)
        super().__init__(model, model.scores, **written)
        classes = model.core.config.id2label
        if len(classes) > 1:
            raise click.UsageError(f"{path}: a classifier of {', '.join(classes.values())}, no reward model")

    def example(self, query: Query) -> Example:
        return self.encoder.encode(query.record, list(query.texts))

    def choose(self, query: Query, figures: list[float]) -> Parts:
        first, second = figures
        return {"verdict": NEITHER if first == second else A if first > second else B}
