"""A judge that asks no question: a reward model or a program, by the scores of two completions. No torch here."""

from collections.abc import Generator
from itertools import islice
from typing import Any

from al_label_ai.answers import NEITHER, A, B, Parts
from al_label_ai.modes import Answer
from al_label_ai.questions import Query
from alignlib.records.jsonl import Line
from alignlib.records.stream import Stream
from alignlib.rewards.programs import RewardFailure
from alignlib.rewards.reward import Reward


class RewardJudge:
    """A reward model or a program, for comparisons: the completion with the better score is the better one."""

    def __init__(self, reward: Reward):
        self.reward = reward

    def prepare(self, queries: list[Query]) -> list[Any]:
        """Raises ValueError for a query that the reward cannot be asked about."""
        return [self.reward.prepare({**query.record, "completions": list(query.texts)}) for query in queries]

    def answers(self, stream: Stream) -> Generator[tuple[Line, list[Answer]], None, None]:
        """As a Judge's; a line that a program fails at is put aside where bad ones are."""
        with self.reward:
            for lines in stream.windows(self.reward.window):
                try:
                    scores = self.reward.score([(line.where, one) for line in lines for one in line.data[1]])
                except RewardFailure as failure:
                    if not stream.skip:
                        raise
                    [line] = lines  # a program's window is one
                    stream.reject(line, ValueError(failure.reason))
                    continue
                rows = iter(scores)
                for line in lines:
                    yield line, [Answer(better(*row)) for row in islice(rows, len(line.data[1]))]

    def counts(self) -> dict[str, float]:
        return {"tokens": self.reward.tokens}


def better(first: float, second: float) -> Parts:
    """The verdict of two scores."""
    return {"verdict": NEITHER if first == second else A if first > second else B}
