"""What al-args does to its records: windows of them, decoded under a reward model's guidance."""

from collections.abc import Iterator, Sequence

import click
import torch

from al_args import best_segments, token_by_token
from al_args.fast_linear import lay_out
from al_args.settings import Search
from al_args.token_by_token import Guided, Pair
from alignlib.decoding.draws import Sampling, encoder_limits, prompt_ids
from alignlib.models import load
from alignlib.models.policy import Model
from alignlib.records.jsonl import Line
from alignlib.records.stream import Stream


class Guide:
    """A policy and a reward model, and the settings under which they decode.

    A resumed run makes the batches of the run that it goes on with: they are formed inside windows.
    """

    def __init__(self, lm: str, rm: str, how: Sampling, searches: Sequence[Search], *, lm_device: str, rm_device: str,
                 lm_dtype: str, rm_dtype: str, score_end: str | None, window: int, batch_tokens: int, **prompts):
        self.how, self.searches, self.window = how, searches, window
        for option, device in (("--lm-device", lm_device), ("--rm-device", rm_device)):
            load.device_for(device, option)
        policy, reward = load.load_policy(lm, lm_device, lm_dtype), load.load_reward(rm, rm_device, rm_dtype)
        fit_together(policy, lm, reward, rm)
        # Of both, so that neither sees more of a prompt than the other.
        room = encoder_limits(min(policy.context, reward.context), how, **prompts)
        self.encoder = load.encoder_for(policy, **room)
        self.asker = load.encoder_for(reward, **room)
        said = getattr(reward.core.config, "reads_eos", None)  # al-train-rm says it, others' reward models say nothing
        self.pair = Pair(policy, reward, self.encoder, how, batch_tokens=batch_tokens, reads_eos=bool(said),
                         ends_are_tokens=score_end == "token" if score_end else said is not False)
        self.cut = 0
        for model in (policy, reward):
            lay_out(model.core)
        for search in searches:
            if search.by_token and search.topk > self.pair.vocabulary:
                raise click.UsageError(f"topk {search.topk}: the models know {self.pair.vocabulary} tokens")

    def prepare(self, record: dict) -> tuple[list[int], list[int]]:
        """The prompt as either model reads it; too long for one of them, it is too long. Raises ValueError."""
        before = self.cuts()
        both = prompt_ids(self.encoder, record, None), prompt_ids(self.asker, record, None)
        self.cut += self.cuts() > before
        return both

    def cuts(self) -> int:
        return self.encoder.cut["prompts_cut"] + self.asker.cut["prompts_cut"]

    def draws(self, stream: Stream) -> Iterator[tuple[Line, list[list[Guided]]]]:
        """Every line with its completions under each of the settings, in the input's order, as soon as it is done."""
        for lines in stream.windows(self.window):
            rows = {line.index: [self.completions(line, search) for search in self.searches] for line in lines}
            waiting = list(lines)
            for i, search in enumerate(self.searches):
                decode = token_by_token.decode if search.by_token else best_segments.decode
                every = {id(draw): draw for row in rows.values() for draw in row[i]}
                for _ in decode(self.pair, list(every.values()), search):
                    while waiting and all(draw.reason for made in rows[waiting[0].index] for draw in made):
                        line = waiting.pop(0)
                        yield line, rows[line.index]

    def completions(self, line: Line, search: Search) -> list[Guided]:
        read, asked = line.data

        def draw(number: int) -> Guided:
            return Guided(line.index, number, read, search.temperature, where=line.where, asked=asked)

        number = len(self.how.temperatures)
        return [draw(0)] * number if search.method == "greedy" else [draw(i) for i in range(number)]

    def counts(self) -> dict[str, int]:
        return {"tokens": self.pair.tokens, "reward_calls": self.pair.asked, "prompts_cut": self.cut}


def fit_together(policy: Model, lm: str, reward: Model, rm: str) -> None:
    """Raises UsageError for a reward model that cannot guide the policy, and for numbers that are none."""
    labels = reward.core.config.num_labels
    if labels != 1:
        raise click.UsageError(f"{rm}: a classifier with {labels} labels; a reward model has one")
    if not hasattr(reward.core, "score"):
        raise click.UsageError(f"{rm}: a {type(reward.core).__name__} cannot be asked about a text that goes on")
    if reward.pooling != "last":
        raise click.UsageError(f"{rm}: reads the {reward.pooling} over a text (al-train-rm --pool); it must read the "
                               "last token here")
    if reward.tokenizer.get_vocab() != policy.tokenizer.get_vocab():
        raise click.UsageError(f"{rm}: its tokenizer is not that of {lm}")
    for path, model in ((lm, policy), (rm, reward)):
        for name, weight in model.core.named_parameters():
            if not torch.isfinite(weight).all():
                raise click.UsageError(f"{path}: {name} has values that are not finite")
