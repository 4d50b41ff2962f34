"""The sampler that is built in (--backend hf): windows of records, drawn in batches on one device."""

import time
from collections.abc import Iterator

import torch

from al_sample import contrastive
from alignlib.decoding import sampler
from alignlib.decoding.conditions import Condition
from alignlib.decoding.draws import Draw, Sampling, encoder_limits, prompt_ids
from alignlib.models import load
from alignlib.models.policy import Policy
from alignlib.records.jsonl import Line
from alignlib.records.stream import Stream


class Sampler:
    """Draws from the policy at `model`; a resumed run makes the batches of the run it goes on with."""

    def __init__(self, model: str, how: Sampling, *, condition: Condition | None, logps: bool, window: int,
                 batch_tokens: int, device: str, dtype: str, **prompts):
        self.how, self.condition, self.window, self.batch_tokens = how, condition, window, batch_tokens
        self.policy: Policy = load.load_policy(model, device, dtype)
        room = encoder_limits(self.policy.context, how, **prompts)
        self.encoder = load.encoder_for(self.policy, **room)
        # Log-probabilities are of the bare prompt, which is cut as the one sampled from was, and counted there.
        self.bare = load.encoder_for(self.policy, **{**room, "on_long": "truncate"}) if logps else None
        self.search = None if how.contrastive is None else contrastive.Contrastive(self.policy, self.encoder, how)
        self.tokens = 0

    def prepare(self, record: dict) -> list[int]:
        return prompt_ids(self.encoder, record, self.condition)

    def draws(self, stream: Stream) -> Iterator[tuple[Line, list[Draw]]]:
        for lines in stream.windows(self.window):
            rows = {line.index: [Draw(line.index, i, line.data, t, where=line.where)
                                 for i, t in enumerate(self.how.temperatures)] for line in lines}
            waiting = list(lines)
            every = [draw for row in rows.values() for draw in row]
            new = self.how.max_new_tokens + (self.search.topk if self.search else 0)
            for batch in sampler.batches(every, self.batch_tokens, new):
                started = time.monotonic()
                self.tokens += self.generate(batch)
                for draw in batch:
                    draw.seconds = (time.monotonic() - started) / len(batch)
                while waiting and all(draw.reason for draw in rows[waiting[0].index]):
                    line = waiting.pop(0)
                    yield line, rows[line.index]

    def generate(self, batch: list[Draw]) -> int:
        if self.search:
            return self.search.generate(batch)
        return sampler.generate(self.policy, self.encoder, batch, self.how)

    def logps(self, record: dict, draws: list[Draw]) -> list[float]:
        """As al-score computes them."""
        example = self.bare.encode(record, record["completions"])
        with torch.inference_mode():
            return self.policy.logps(self.policy.pack([example]), self.how.logps_temperature)[0].tolist()

    def counts(self) -> dict[str, int]:
        return {"tokens": self.tokens, **self.encoder.cut}
