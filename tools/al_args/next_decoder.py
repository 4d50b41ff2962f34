"""What al-args does to its records under reward models that are asked once a step: windows of them, in batches."""

import time
from collections import deque
from collections.abc import Generator, Sequence
from dataclasses import replace
from typing import Any

import click

from al_args.decoder import must_be_finite, must_read_alike
from al_args.fast_linear import lay_out
from al_args.next_tokens import Candidates, Guide, NextDraw, Products, settle
from al_args.settings import Search
from alignlib.decoding import sampler
from alignlib.decoding.draws import Sampling, encoder_limits, prompt_ids
from alignlib.models import load
from alignlib.models.policy import Policy
from alignlib.models.scoring import PackScorer
from alignlib.models.token_rewards import NextTokenReward, TokenReward, VocabularyReward
from alignlib.records import fields
from alignlib.records.jsonl import Line, Record
from alignlib.records.stream import Stream

PACK = 1024  # tokens of a pack of texts that are read anew, at most


class NextDecoder:
    """A policy and the reward models that guide it, and the settings under which they decode.

    A resumed run makes the batches of the run that it goes on with: they are formed inside windows.
    """

    def __init__(self, lm: str, rms: Sequence[str], how: Sampling, searches: Sequence[Search], *, lm_device: str,
                 rm_device: str, lm_dtype: str, rm_dtype: str, end: str | None, window: int, batch_tokens: int,
                 **prompts: Any):
        self.how, self.searches, self.window, self.batch_tokens = how, searches, window, batch_tokens
        for option, device in (("--lm-device", lm_device), ("--rm-device", rm_device)):
            load.device_for(device, option)
        for path in (lm, *rms):
            sampler.must_drop_rows(path, load.load_config(path))
        self.policy = load.load_policy(lm, lm_device, lm_dtype)
        kind = NextTokenReward if searches[0].method == "next-token" else VocabularyReward
        rewards = [load_guide(kind, path, rm_device, rm_dtype) for path in rms]
        for path, reward in zip(rms, rewards, strict=True):
            must_read_alike(reward, path, self.policy, lm)
        models: list[Policy] = [self.policy, *rewards]
        for path, model in zip((lm, *rms), models, strict=True):
            must_be_finite(path, model)
            lay_out(model.core)
        # Of all, so that none sees more of a prompt than another.
        context, whose = min((model.context, path) for path, model in zip((lm, *rms), models, strict=True))
        room = encoder_limits(context, how, whose=whose, **prompts)
        self.encoder = load.encoder_for(self.policy, **room)
        own = {**room, "template": None, "template_args": ()}  # a template that is given is the language model's
        self.guides = [guide_for(path, reward, end, own, batch_tokens)
                       for path, reward in zip(rms, rewards, strict=True)]
        # Any model may be built for more tokens than the tokenizer has.
        self.vocabulary: int = min(model.core.config.get_text_config().vocab_size for model in models)
        self.tokens = self.reward_calls = self.cut = 0
        for search in searches:
            if search.topk > self.vocabulary:
                raise click.UsageError(f"topk {search.topk}: the models know {self.vocabulary} tokens")

    def prepare(self, record: Record) -> tuple[Record, list[int], list[list[int]]]:
        """The record without its completions, and its prompt as each model reads it. Raises ValueError.

        Too long for one, it is too long.
        """
        before = self.cuts()
        prompt = prompt_ids(self.encoder, record, None)
        own = [prompt_ids(guide.encoder, record, None) for guide in self.guides]
        self.cut += self.cuts() > before
        return fields.without_completions(record), prompt, own

    def cuts(self) -> int:
        return sum(encoder.cut["prompts_cut"] for encoder in (self.encoder, *(guide.encoder for guide in self.guides)))

    def draws(self, stream: Stream) -> Generator[tuple[Line, Sequence[Sequence[NextDraw]]], None, None]:
        """Every line with its completions under each of the settings, in the input's order, as soon as it is done."""
        for lines in stream.windows(self.window):
            rows = {line.index: [self.completions(line, search) for search in self.searches] for line in lines}
            waiting = deque(lines)
            for i, search in enumerate(self.searches):
                every = list({id(draw): draw for row in rows.values() for draw in row[i]}.values())
                for batch in sampler.batches(every, self.batch_tokens, self.how.max_new_tokens):
                    self.decode(batch, search)
                    while waiting and all(draw.reason for draws in rows[waiting[0].index] for draw in draws):
                        line = waiting.popleft()
                        yield line, rows[line.index]

    def completions(self, line: Line, search: Search) -> list[NextDraw]:
        """The draws of a record under these settings; where nothing is drawn all are one, which is decoded once."""
        about, prompt, own = line.data
        temperature = 0.0 if search.method == "greedy" else search.temperature

        def new(number: int) -> NextDraw:
            return NextDraw(line.index, number, prompt, temperature, where=line.where, about=about, prompts=own,
                            said=[0.0] * len(self.guides))

        number = len(self.how.temperatures)
        return [new(0)] * number if temperature == 0 else [new(i) for i in range(number)]

    def decode(self, batch: list[NextDraw], search: Search) -> None:
        """Fill in all of them. Raises FloatingPointError, naming the record."""
        started = time.monotonic()
        guidance: Products | Candidates
        if search.method == "next-token":
            how = replace(self.how, top_k=search.topk, top_p=search.top_p)
            guidance = Products(self.guides, search.weights, batch, self.vocabulary)
        else:
            how, guidance = self.how, Candidates(self.guides[0], search, batch, self.vocabulary)
        self.tokens += sampler.generate(self.policy, self.encoder, batch, how, guidance)
        settle(self.guides, search.weights, batch)
        self.reward_calls += guidance.calls
        for draw in batch:
            draw.seconds = (time.monotonic() - started) / len(batch)

    def counts(self) -> dict[str, int]:
        return {"tokens": self.tokens, "reward_calls": self.reward_calls, "prompts_cut": self.cut}


def load_guide(kind: type[TokenReward], path: str, device: str, dtype: str) -> TokenReward:
    """A reward model of this kind; for log-probabilities any policy will do. Raises UsageError."""
    if kind is NextTokenReward and load.token_reward(path) is VocabularyReward:
        raise click.UsageError(f"{path}: a reward model of values (--head vocabulary): it stands behind LM, for "
                               "--method greedy or stochastic")
    return load.load_causal(kind, path, device, dtype)


def guide_for(path: str, reward: TokenReward, end: str | None, room: dict[str, Any], batch_tokens: int) -> Guide:
    """The Guide of a reward model whose prompts have this room."""
    encoder = load.encoder_for(reward, end=end, **room)
    # What is done is read anew, where it counts no prompt as cut for a second time.
    reader = load.encoder_for(reward, end=end, **{**room, "on_long": "truncate"})
    scorer = PackScorer(reward, lambda batch: {"rewards": reward.scores(batch)}, min(batch_tokens, PACK))
    return Guide(path, reward, encoder, reader, scorer)
