"""Best-of-n by a program: texts as al-sample draws them, of each completion's candidates the one it likes best."""

import time
from collections.abc import Generator, Sequence
from typing import Any

import click

from al_args.settings import Search
from al_args.token_by_token import GuidedDraw
from alignlib.decoding import sampler
from alignlib.decoding.draws import Sampling, encoder_limits, prompt_ids
from alignlib.models import load
from alignlib.records import fields
from alignlib.records.jsonl import Line, Record
from alignlib.records.stream import Stream
from alignlib.rewards.programs import Program, RewardFailure

Prepared = tuple[Record, list[int]]  # the record as the program has it, and its prompt


class ProgramDecoder:
    """A policy whose texts a program judges when they are done; its settings are all of method best-of-n.

    Candidate j of completion i is al-sample's completion i * best_of + j. A resumed run makes the batches of the run
    that it goes on with: they are formed inside windows.
    """

    def __init__(self, lm: str, program: Program, how: Sampling, searches: Sequence[Search], *, lm_device: str,
                 lm_dtype: str, window: int, batch_tokens: int, **prompts: Any):
        if others := [search.method for search in searches if search.method != "best-of-n"]:
            raise click.UsageError(f"{program.name}: a program judges whole texts: it goes with --method best-of-n, "
                                   f"not {others[0]}")
        self.program, self.how, self.searches = program, how, searches
        self.window, self.batch_tokens = window, batch_tokens
        self.tokens = self.reward_calls = 0
        sampler.must_drop_rows(lm, load.load_config(lm))
        load.device_for(lm_device, "--lm-device")
        self.policy = load.load_policy(lm, lm_device, lm_dtype)
        self.encoder = load.encoder_for(self.policy, **encoder_limits(self.policy.context, how, **prompts))

    def prepare(self, record: Record) -> Prepared:
        """Raises ValueError for a record whose completions the program could not judge, too."""
        return self.program.prepare(record), prompt_ids(self.encoder, record, None)

    def draws(self, stream: Stream) -> Generator[tuple[Line, list[list[GuidedDraw]]], None, None]:
        """Every line of a window with its completions under each of the settings, when all of it is drawn.

        A line that the program fails at is put aside where bad ones are; else it is raised.
        """
        with self.program:
            for lines in stream.windows(self.window):
                every = {line.index: [self.candidates(line, search) for search in self.searches] for line in lines}
                self.generate([draw for groups in every.values() for group in groups for draw in group])
                for line in lines:
                    try:
                        chosen = [self.best(line, group, search.best_of)
                                  for group, search in zip(every[line.index], self.searches, strict=True)]
                    except RewardFailure as failure:
                        if not stream.skip:
                            raise
                        stream.reject(line, ValueError(failure.reason))
                    else:
                        yield line, chosen

    def candidates(self, line: Line, search: Search) -> list[GuidedDraw]:
        """What the completions of a record are chosen from, `best_of` for each, in order."""
        number = len(self.how.temperatures) * search.best_of
        return [GuidedDraw(line.index, i, line.data[1], search.temperature, where=line.where) for i in range(number)]

    def generate(self, draws: list[GuidedDraw]) -> None:
        """Fill in all of them."""
        for batch in sampler.batches(draws, self.batch_tokens, self.how.max_new_tokens):
            started = time.monotonic()
            self.tokens += sampler.generate(self.policy, self.encoder, batch, self.how)
            for draw in batch:
                draw.seconds = (time.monotonic() - started) / len(batch)

    def best(self, line: Line, group: list[GuidedDraw], size: int) -> list[GuidedDraw]:
        """The first of the highest reward of every `size` candidates; it took the time of them all."""
        texts = {"completions": [draw.text for draw in group], "finish_reasons": [draw.reason for draw in group]}
        bare = fields.without_completions(line.data[0], "condition")
        [rewards] = self.program.score([(line.where, {**bare, **texts})])
        self.reward_calls += len(group)
        chosen = []
        for start in range(0, len(group), size):
            place = max(range(start, start + size), key=rewards.__getitem__)
            group[place].reward = rewards[place]
            group[place].seconds = sum(draw.seconds for draw in group[start:start + size])
            chosen.append(group[place])
        return chosen

    def counts(self) -> dict[str, int]:
        return {"tokens": self.tokens, "reward_calls": self.reward_calls, **self.encoder.cut}
