"""What al-args does to its records: windows of them, decoded under a reward model's guidance."""

from collections import deque
from collections.abc import Generator, Sequence
from typing import Any

import click
import torch

from al_args import best_segments, token_by_token
from al_args.fast_linear import lay_out
from al_args.settings import Search
from al_args.token_by_token import GuidedDraw, GuidedModels
from alignlib.decoding.draws import Sampling, encoder_limits, prompt_ids
from alignlib.models import load
from alignlib.models.policy import Model, Policy, RewardModel
from alignlib.records import fields
from alignlib.records.jsonl import Line, Record
from alignlib.records.stream import Stream


class Decoder:
    """A policy and the reward model that guides it, and the settings under which they decode.

    A resumed run makes the batches of the run that it goes on with: they are formed inside windows.
    """

    def __init__(self, lm: str, rm: str, how: Sampling, searches: Sequence[Search], *, lm_device: str, rm_device: str,
                 lm_dtype: str, rm_dtype: str, score_end: str | None, end: str | None, window: int, batch_tokens: int,
                 **prompts: Any):
        self.how, self.searches, self.window = how, searches, window
        for option, device in (("--lm-device", lm_device), ("--rm-device", rm_device)):
            load.device_for(device, option)
        policy, reward = load.load_policy(lm, lm_device, lm_dtype), load.load_reward(rm, rm_device, rm_dtype)
        assert isinstance(reward, RewardModel)  # others are asked by NextDecoder
        fit_together(policy, lm, reward, rm)
        # Of both, so that neither sees more of a prompt than the other.
        context, whose = min((policy.context, lm), (reward.context, rm))
        room = encoder_limits(context, how, whose=whose, **prompts)
        self.encoder = load.encoder_for(policy, **room)
        own = {**room, "template": None, "template_args": ()}  # a template that is given is the language model's
        self.reward_encoder = load.encoder_for(reward, end=end, **own)
        # What is done is read anew, where it counts no prompt as cut for a second time.
        reader = load.encoder_for(reward, end=end, **{**own, "on_long": "truncate"})
        # al-train-rm says it of its reward models, others' say nothing: they are taken by the paper's word.
        reads_eos: bool | None = getattr(reward.core.config, "reads_eos", None)
        self.models = GuidedModels(policy, reward, self.encoder, reader, how, batch_tokens=batch_tokens,
                                   ends_are_tokens=score_end == "token" if score_end else reads_eos is not False)
        self.cut = 0
        for model in (policy, reward):
            lay_out(model.core)
        for search in searches:
            if search.by_token and search.topk > self.models.vocabulary:
                raise click.UsageError(f"topk {search.topk}: the models know {self.models.vocabulary} tokens")

    def prepare(self, record: Record) -> tuple[Record, list[int], list[int]]:
        """The record without its completions, and its prompt as either model reads it. Raises ValueError.

        Too long for one, it is too long.
        """
        before = self.cuts()
        both = prompt_ids(self.encoder, record, None), prompt_ids(self.reward_encoder, record, None)
        self.cut += self.cuts() > before
        return fields.without_completions(record), *both

    def cuts(self) -> int:
        return self.encoder.cut["prompts_cut"] + self.reward_encoder.cut["prompts_cut"]

    def draws(self, stream: Stream) -> Generator[tuple[Line, list[list[GuidedDraw]]], None, None]:
        """Every line with its completions under each of the settings, in the input's order, as soon as it is done."""
        for lines in stream.windows(self.window):
            rows = {line.index: [self.completions(line, search) for search in self.searches] for line in lines}
            waiting = deque(lines)
            for i, search in enumerate(self.searches):
                decode = token_by_token.decode if search.by_token else best_segments.decode
                every = {id(draw): draw for row in rows.values() for draw in row[i]}
                for _ in decode(self.models, list(every.values()), search):
                    while waiting and all(draw.reason for draws in rows[waiting[0].index] for draw in draws):
                        line = waiting.popleft()
                        yield line, rows[line.index]

    def completions(self, line: Line, search: Search) -> list[GuidedDraw]:
        """The draws of a record under these settings; by method greedy all are one, which is decoded once."""
        about, prompt, reward_prompt = line.data

        def new(number: int) -> GuidedDraw:
            return GuidedDraw(line.index, number, prompt, search.temperature, where=line.where, about=about,
                              reward_prompt=reward_prompt)

        number = len(self.how.temperatures)
        return [new(0)] * number if search.method == "greedy" else [new(i) for i in range(number)]

    def counts(self) -> dict[str, int]:
        return {"tokens": self.models.tokens, "reward_calls": self.models.reward_calls, "prompts_cut": self.cut}


def fit_together(policy: Policy, lm: str, reward: RewardModel, rm: str) -> None:
    """Raises UsageError for a reward model that cannot guide the policy, and for numbers that are none."""
    labels = reward.core.config.num_labels
    if labels != 1:
        raise click.UsageError(f"{rm}: a classifier with {labels} labels; a reward model has one")
    if not hasattr(reward.core, "score"):
        raise click.UsageError(f"{rm}: a {type(reward.core).__name__} cannot be asked about a text that goes on")
    if reward.pooling != "last":
        raise click.UsageError(f"{rm}: reads the {reward.pooling} over a text (al-train-rm --pool); it must read the "
                               "last token here")
    must_read_alike(reward, rm, policy, lm)
    must_be_finite(lm, policy)
    must_be_finite(rm, reward)


def must_read_alike(reward: Model, rm: str, policy: Policy, lm: str) -> None:
    """Raises UsageError for a reward model of another vocabulary than the policy's."""
    if reward.tokenizer.get_vocab() != policy.tokenizer.get_vocab():
        raise click.UsageError(f"{rm}: its tokenizer is not that of {lm}")


def must_be_finite(path: str, model: Model) -> None:
    """Raises UsageError for weights that are no numbers."""
    for name, weight in model.core.named_parameters():
        if not torch.isfinite(weight).all():
            raise click.UsageError(f"{path}: {name} has values that are not finite")
