"""A rollout: prompts, answers that the policy draws for them as it is now, their rewards, numbers of every token."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from al_train_ppo.settings import Settings
from alignlib import ranks
from alignlib.decoding import sampler
from alignlib.decoding.draws import Draw, Sampling, prompt_ids, seed_for
from alignlib.models.encoding import Encoder
from alignlib.models.example import Example
from alignlib.models.packs import Pack
from alignlib.models.policy import Model, Policy
from alignlib.models.shards import is_sharded
from alignlib.records import fields
from alignlib.records.jsonl import Record
from alignlib.training.batches import packs_of
from alignlib.training.engine import AskingEngine, Engine
from alignlib.training.memory_states import DRAWN
from alignlib.training.recipe import Recipe


@dataclass(frozen=True)
class Prompt:
    """A record to draw answers for, its ids, its number in the input, and where it stands: "prompts.jsonl:17"."""

    number: int
    record: Record
    ids: list[int]
    where: str = ""


@dataclass
class Rollout:
    """E prompts with K answers each.

    examples  what is learnt from, in the prompts' order
    records   the prompts' records with their answers, as al-sample writes them
    rewards   [E, K] what the answers are worth, once they have been judged
    scores    [E, K] what of that is learnt from: without what --clip-reward and --missing-end take
    tokens    by name: of each example one number for every token of its answers, one answer after the other
    """

    examples: list[Example]
    records: list[Record]
    rewards: Tensor = field(default_factory=lambda: torch.empty(0))
    scores: Tensor = field(default_factory=lambda: torch.empty(0))
    tokens: dict[str, list[Tensor]] = field(default_factory=dict)

    def tokens_of(self, name: str, batch: Pack) -> Tensor:
        """A pack's numbers of that name, in the order of its targets: [N]."""
        return torch.cat([self.tokens[name][i] for i in batch.indices]).to(batch.ids.device)

    @property
    def lengths(self) -> Tensor:
        """Tokens of each answer, its end included: [E, K]."""
        return torch.tensor([[len(answer) for answer in example.completions] for example in self.examples])

    def padded(self, name: str) -> Tensor:
        """The numbers of that name, an answer a row, 0 behind its last token: [E * K, T], float64; T is 1 at least."""
        rows = [row for numbers, lengths in zip(self.tokens[name], self.lengths.tolist(), strict=True)
                for row in numbers.double().split(lengths)]
        table = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        return table if table.shape[1] else table.new_zeros(len(rows), 1)

    def put(self, name: str, table: Tensor) -> None:
        """Take numbers back from such a table [E * K, T], float32."""
        lengths = self.lengths
        rows = [row[:length].float() for row, length in zip(table, lengths.flatten().tolist(), strict=True)]
        width = lengths.shape[1]
        self.tokens[name] = [torch.cat(rows[i:i + width]) for i in range(0, len(rows), width)]

    def share_cut(self) -> float:
        reasons = [reason for record in self.records for reason in record["finish_reasons"]]
        return reasons.count("length") / len(reasons)


def prompt_of(encoder: Encoder, record: Record) -> tuple[Record, list[int]]:
    """What is kept of a record of the input. Raises ValueError."""
    return fields.without_completions(record), prompt_ids(encoder, record, None)


def how_to_draw(settings: Settings, number: int, seed: int) -> Sampling:
    return Sampling(settings.max_new_tokens, stop=settings.stop, seed=seed,
                    temperatures=(settings.temperature,) * number)


def draw(policy: Policy, encoder: Encoder, prompts: Sequence[Prompt], how: Sampling, recipe: Recipe) -> Rollout:
    """Draw answers for the prompts, each rank for its share of them; all ranks get the whole rollout.

    A draw's name is how.seed, the prompt's number in the input, and its own: in any company it is the same.
    Under ZeRO 3 each step gathers weights from all ranks, which must take as many: there each draws for all prompts.
    """
    mine = prompts if is_sharded(policy.model) else prompts[ranks.rank()::ranks.size()]
    draws = {prompt.number: [Draw(prompt.number, i, prompt.ids, t, where=prompt.where)
                             for i, t in enumerate(how.temperatures)] for prompt in mine}
    training = policy.model.training
    policy.model.eval()
    with casts_once(policy):
        for batch in sampler.batches([one for row in draws.values() for one in row], DRAWN * recipe.pack_tokens,
                                     how.max_new_tokens):
            sampler.generate(policy, encoder, batch, how)
    policy.model.train(training)
    everywhere = dict(ChainMap(*ranks.gather(draws)))
    rows = [everywhere[prompt.number] for prompt in prompts]
    return Rollout([learnt_from(prompt, row) for prompt, row in zip(prompts, rows, strict=True)],
                   [answered(prompt.record, row) for prompt, row in zip(prompts, rows, strict=True)])


@contextmanager
def casts_once(policy: Policy) -> Iterator[None]:
    """The policy's precision, in which each weight is cast once: autocast keeps only casts of weights that train.

    Under adapters the base would be cast for every token, which takes as long as to read it.
    """
    weights = policy.model.parameters() if policy.autocast else ()
    frozen = [weight for weight in weights if not weight.requires_grad and weight.is_floating_point()]
    for weight in frozen:
        weight.requires_grad = True
    try:
        with policy.precision():
            yield
    finally:
        for weight in frozen:
            weight.requires_grad = False


def learnt_from(prompt: Prompt, draws: list[Draw]) -> Example:
    """The prompt with what was drawn for it, token for token; one that a stop string ended has no end."""
    return Example(prompt.ids, [one.ids if one.end is None else [*one.ids, one.end] for one in draws])


def answered(record: Record, draws: list[Draw]) -> Record:
    """The record with what was drawn for it, as al-sample --ids writes it."""
    return {**record, "completions": [one.text for one in draws], "finish_reasons": [one.reason for one in draws],
            "completion_ids": [one.ids for one in draws], "end_ids": [one.end for one in draws]}


def seed_of(seed: int, rollout: int) -> int:
    """The seed of a rollout's draws, another for each."""
    return seed_for(seed, rollout, 0, 63)


@torch.no_grad()
def read_tokens(model: Model, engine: Engine | AskingEngine, examples: Sequence[Example],
                batches: Sequence[Sequence[int]], recipe: Recipe, measure: Callable[[Pack], Tensor]) -> list[Tensor]:
    """What `measure` says of every token of each example's answers, [N] of a pack, in the packs of these batches.

    They are the packs that the loss will see, so that the same weights give it the same numbers.
    """
    mine: dict[int, Tensor] = {}
    for indices in batches:
        for batch, _, _ in packs_of(indices, model, examples, recipe):
            mine |= by_example(batch, engine.ask(partial(measure, batch)))
    return of_all_ranks(mine)


def by_example(batch: Pack, numbers: Tensor) -> dict[int, Tensor]:
    """A pack's numbers, [N] in the order of its targets, apart by the examples that they are of."""
    sizes = batch.counts().sum(1).int().tolist()
    return dict(zip(batch.indices, numbers.cpu().split(sizes), strict=True))


def of_all_ranks(mine: dict[int, Tensor]) -> list[Tensor]:
    """The numbers of all examples, in their order, of those that each rank has."""
    everywhere: dict[int, Tensor] = dict(ChainMap(*ranks.gather(mine)))
    return [everywhere[i] for i in range(len(everywhere))]


def with_rewards(rollout: Rollout, rewards: Tensor, settings: Settings) -> Rollout:
    """The rollout with its answers' rewards, [E, K], and what of them is learnt from."""
    missing = torch.tensor([[reason == "length" for reason in record["finish_reasons"]] for record in rollout.records])
    scores = rewards - settings.missing_end * missing
    if settings.clip_reward is not None:
        scores = scores.clamp(-settings.clip_reward, settings.clip_reward)
    return replace(rollout, rewards=rewards, scores=scores)


def logged(rollout: Rollout, step: int, temperature: float, count: int) -> list[dict[str, Any]]:
    """Some of the records for --log-samples: with their rewards, their log-probabilities, the step."""
    records = [{**record, "rewards": row, "step": step}
               for record, row in zip(rollout.records[:count], rollout.rewards.tolist(), strict=False)]
    sums = rollout.padded("old").sum(1).view(rollout.rewards.shape).tolist()
    for record, row in zip(records, sums, strict=False):
        record |= {"logps": row} | ({"logps_temperature": temperature} if temperature != 1 else {})
    return records
