"""The sampler that is built in (--backend hf): windows of records, drawn in batches on one device."""

import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from typing import Any

from al_sample import contrastive
from alignlib.decoding import sampler
from alignlib.decoding.conditions import Condition
from alignlib.decoding.draws import Draw, Sampling, encoder_limits, prompt_ids
from alignlib.models import load
from alignlib.models.encoding import Encoder
from alignlib.models.example import Example
from alignlib.models.policy import Policy
from alignlib.models.scoring import PackScorer
from alignlib.records.conversations import canonical
from alignlib.records.jsonl import Line, Record
from alignlib.records.stream import Stream

CPU_PACK = 1024  # tokens of a pack there: larger ones are no quicker, and more of them is padding


class Sampler:
    """Draws from the policy at `model`; a resumed run makes the batches of the run it goes on with."""

    def __init__(self, model: str, how: Sampling, *, condition: Condition | None, logps: bool, window: int,
                 batch_tokens: int, device: str, dtype: str, **prompts: Any):
        self.how, self.condition, self.window, self.batch_tokens = how, condition, window, batch_tokens
        sampler.must_drop_rows(model, load.load_config(model))
        self.policy: Policy = load.load_policy(model, device, dtype)
        room = encoder_limits(self.policy.context, how, **prompts)
        self.encoder = load.encoder_for(self.policy, **room)
        # Log-probabilities are of the bare prompt, which is cut as the one sampled from was, and counted there.
        self.bare = load.encoder_for(self.policy, **{**room, "on_long": "truncate"}) if logps else None
        pack_tokens = min(batch_tokens, CPU_PACK) if self.policy.device.type == "cpu" else batch_tokens
        self.scorer = PackScorer(
            self.policy, lambda batch: {"logps": self.policy.logps(batch, how.logps_temperature)}, pack_tokens)
        self.search = None if how.contrastive is None else contrastive.Contrastive(self.policy, self.encoder, how)
        self.tokens = 0

    def prepare(self, record: Record) -> list[int]:
        if self.bare is not None:
            prompt_ids(self.bare, record, None)  # what has no log-probability is refused before anything is drawn
        return prompt_ids(self.encoder, record, self.condition)

    def draws(self, stream: Stream) -> Generator[tuple[Line, list[Draw]], None, None]:
        """Every line as soon as it is done; with log-probabilities, whose packs are of a window's lines, they together.

        The packs must be the same in a resumed run: they hold the lines that have left already, too.
        """
        for lines in stream.windows(self.window):
            rows = {line.index: [Draw(line.index, i, line.data, t, where=line.where)
                                 for i, t in enumerate(self.how.temperatures)] for line in lines}
            done: Iterable[Line] = self.draw_window(lines, rows)
            if self.bare is not None:
                done = list(done)
                self.add_logps(self.bare, done, rows)
            for line in done:
                yield line, rows[line.index]

    def draw_window(self, lines: list[Line], rows: dict[int, list[Draw]]) -> Iterator[Line]:
        """Fill in the lines' Draws; each line as soon as those of it and of all before it are done."""
        waiting = deque(lines)
        every = [draw for row in rows.values() for draw in row]
        new = self.how.max_new_tokens + (self.search.topk if self.search else 0)
        for batch in sampler.batches(every, self.batch_tokens, new):
            started = time.monotonic()
            self.tokens += self.generate(batch)
            for draw in batch:
                draw.seconds = (time.monotonic() - started) / len(batch)
            while waiting and all(draw.reason for draw in rows[waiting[0].index]):
                yield waiting.popleft()

    def generate(self, batch: list[Draw]) -> int:
        if self.search:
            return self.search.generate(batch)
        return sampler.generate(self.policy, self.encoder, batch, self.how)

    def add_logps(self, encoder: Encoder, lines: list[Line], rows: dict[int, list[Draw]]) -> None:
        """Give the lines' Draws their log-probabilities, as al-score computes them."""
        figures = self.scorer.score([bare_example(encoder, line.record, rows[line.index]) for line in lines])
        for line, of_line in zip(lines, figures, strict=True):
            for draw, logp in zip(rows[line.index], of_line["logps"], strict=True):
                draw.logp = logp

    def counts(self) -> dict[str, int]:
        return {"tokens": self.tokens, **self.encoder.cut}


def bare_example(encoder: Encoder, record: Record, draws: list[Draw]) -> Example:
    """The record's prompt without a condition, and the completions that were drawn for it, by their ids."""
    own = {"finish_reasons": [draw.reason for draw in draws], "completion_ids": [draw.ids for draw in draws],
           "end_ids": [draw.end for draw in draws]}
    return encoder.encode({**canonical(record), **own}, [draw.text for draw in draws])
