"""A judge that runs here: a language model, by the probability of each option.

Nothing is written and nothing parsed: of the options of a query's form ("A", "B", "C"; "1" to "10"; the categories)
the most likely one after the question is the answer.
"""

from collections.abc import Generator
from itertools import islice
from math import isfinite
from typing import Any

from al_label_ai.answers import Parts
from al_label_ai.modes import Answer
from al_label_ai.questions import Query
from alignlib.models import load
from alignlib.models.example import Example
from alignlib.models.scoring import WINDOW, PackScorer
from alignlib.records.jsonl import Line, Record
from alignlib.records.stream import Stream

PACK_TOKENS = 16384  # on the device at once


class PolicyJudge:
    """The policy at `path`, asked in packs, a window of records at a time; its chat template is used where it has one.

    written: how an Encoder writes conversations
    """

    def __init__(self, path: str, device: str, dtype: str, **written: Any):
        policy = load.load_policy(path, device, dtype)
        self.packs = PackScorer(policy, lambda batch: {"figures": policy.logps(batch)}, PACK_TOKENS)
        # A question that is cut is another question.
        self.encoder = load.encoder_for(policy, on_long="fail", max_length=min(policy.context, 1 << 20), **written)
        self.chats = self.encoder.template is not None

    def example(self, query: Query) -> Example:
        """The query with its K options. Raises ValueError for one that is longer than the model's context."""
        record: Record = {"messages": query.messages}
        options = list(query.form.options)
        if not self.chats:
            record, options = {"prompt": f"{query.messages[0]['content']}\n\nAnswer:"}, [f" {text}" for text in options]
        # An option is not over where another one goes on; elsewhere what the model would write behind it is no matter.
        over = any(other != text and other.startswith(text) for text in options for other in options)
        return self.encoder.encode({**record, "finish_reasons": ["stop" if over else "length"] * len(options)}, options)

    def choose(self, query: Query, figures: list[float]) -> Parts:
        """The answer, by the figures of the K options."""
        return query.form.read(query.form.options[figures.index(max(figures))])

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
