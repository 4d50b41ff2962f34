"""What a run would ask a server and cost, about, before it does (`--dry-run`)."""

from al_label_ai.questions import Query
from al_label_ai.server_judge import ServerJudge
from alignlib.records.jsonl import Record
from alignlib.records.stream import Stream

ANSWER_TOKENS = {"pair": 4, "rate": 4, "lmc": 8, "steerlm": 8, "lmu": 120}  # of an answer in each mode, about


class Forecast:
    """Adds up what queries would take of a judge whose answers have `answer_tokens`; each is paid for once."""

    def __init__(self, judge: ServerJudge, answer_tokens: int):
        self.judge, self.answer_tokens = judge, answer_tokens
        self.calls = self.cached = self.prompt_tokens = 0
        self.first: Query | None = None
        self.keys: set[str] = set()  # of the queries so far

    def add_all(self, stream: Stream) -> None:
        """Every query of a stream whose lines' data are (record, queries)."""
        for line in stream.one_by_one():
            for query in line.data[1]:
                self.add(query)

    def add(self, query: Query) -> None:
        """Count one query: as cached where its answer is kept, or will be by then."""
        key, tokens = self.judge.estimate(query)
        if tokens == 0 or key in self.keys:
            self.cached += 1
        else:
            self.calls += 1
            self.prompt_tokens += tokens
        self.first = self.first or query
        self.keys.add(key)

    def total(self) -> Record:
        """Calls, tokens and, where the judge has prices, what they cost, with the messages of the first query."""
        tokens, prices = self.calls * self.answer_tokens, self.judge.prices
        price = {"price": prices.cost(self.prompt_tokens, tokens)} if prices.prompt or prices.answer else {}
        return {"calls": self.calls, "cached": self.cached, "prompt_tokens": self.prompt_tokens, "tokens": tokens,
                **price, "first": self.first.messages if self.first else None}
