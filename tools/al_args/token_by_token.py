"""Reward-guided decoding, ARGS (Khanov et al. 2024, 2402.01694): a reward model has a say in every token.

    score(v) = logit(v | x, y) + weight * reward(x, y, v)      v: the topk tokens with the largest logits

One step for all rows: the language model reads one token a row, the reward model looks at all candidates as branches of
the text that it has read (tree.py). What it need not be asked about it reads later: where one candidate is left, it
falls behind, and catches up in the pass in which it is asked again.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from al_args.settings import Search
from alignlib.decoding import branches as tree
from alignlib.decoding.draws import Draw, Sampling
from alignlib.decoding.sampler import choose, finisher, stop_ids, uniforms
from alignlib.models.encoding import Encoder
from alignlib.models.policy import Policy, RewardModel


@dataclass(slots=True)
class Guided(Draw):
    """A completion that has a reward; `asked` is the prompt as the reward model reads it."""

    asked: list[int] = field(default_factory=list)
    reward: float = math.nan


@dataclass(slots=True)
class Row:
    """A completion at work, in the slot of its number."""

    draw: Guided
    draws: np.ndarray  # [T] in [0, 1): what decides each of its tokens
    text: list[int]  # prompt and completion as the reward model reads them
    reward: float = math.nan  # of the text, if the reward model has read all of it


class Pair:
    """A language model and a reward model on the same texts.

    ends_are_tokens   whether a candidate that ends the text is scored like any other, as in the paper; else by the
                      reward of the text that it ends, for reward models that have never seen an end
    reads_eos         whether the final reward is read at the end-of-sequence of a text that has one
    """

    def __init__(self, policy: Policy, reward: RewardModel, encoder: Encoder, how: Sampling, *, batch_tokens: int,
                 ends_are_tokens: bool, reads_eos: bool):
        self.policy, self.reward, self.how, self.batch_tokens = policy, reward, how, batch_tokens
        self.ends_are_tokens, self.ends = ends_are_tokens, stop_ids(policy)
        self.closing = [policy.tokenizer.eos_token_id] if reads_eos else []
        # Either model may have been made for more tokens than the tokenizer has.
        self.vocabulary = min(policy.core.config.vocab_size, reward.core.config.vocab_size)
        self.kinds = tree.texts_type(policy), tree.texts_type(reward)
        self.finished: Callable[[Draw, int], bool] = finisher(policy, encoder, how)
        self.tokens = self.asked = 0  # drawn; rows in which the reward model was asked for candidates

    def open(self, draws: Sequence[Guided], together: int = 1, branches: int = 0) -> int:
        """Make slots for the draws, `together` for each; returns for how many at a time."""
        read, asked = (max(map(len, prompts)) + self.how.max_new_tokens + 1
                       for prompts in ([draw.prompt for draw in draws], [draw.asked for draw in draws]))
        number = min(len(draws), max(1, self.batch_tokens // (max(read, asked + branches) * together)))
        self.lm = self.kinds[0](self.policy, number * together, read)
        self.rm = self.kinds[1](self.reward, number * together, asked + branches)
        return number

    def begin(self, rows: dict[int, Row]) -> None:
        """New rows in these slots; a prompt that several have is read once."""
        self.lm.begin({slot: row.draw.prompt for slot, row in rows.items()})
        self.rm.begin({slot: row.text for slot, row in rows.items()})
        for slot, row in rows.items():
            self.rm.rewind(slot, row.text)  # what the slot's last row has read is forgotten

    def row(self, draw: Guided) -> Row:
        return Row(draw, uniforms(self.how.seed, draw.record, draw.number, self.how.max_new_tokens), list(draw.asked))

    def logits(self, rows: dict[int, Row]) -> Tensor:
        """Of each row's next token: [R, vocabulary], float32."""
        asked = [(slot, self.lm.rewind(slot, row.draw.prompt + row.draw.ids), []) for slot, row in rows.items()]
        ends = torch.tensor([len(text) for _, text, _ in asked], device=self.lm.device).cumsum(0) - 1
        return self.policy.logits(self.lm.ask(asked)[ends])[:, :self.vocabulary].float()

    def scores(self, hidden: Tensor, rows: Sequence[Row]) -> list[float]:
        """What the reward model's head says, [N, H], about N rows. Raises FloatingPointError, naming the record."""
        found = self.reward.core.score(hidden)[:, 0].float().tolist()
        for score, row in zip(found, rows, strict=True):
            if not math.isfinite(score):
                raise FloatingPointError(f"{row.draw.where}: the reward model's scores are not finite")
        return found

    def final(self, draw: Guided) -> list[int]:
        """A done draw as the reward model reads it; a text cut at a stop string may have been encoded longer."""
        closing = self.closing if draw.reason == "stop" else []
        return [*draw.asked, *draw.ids, *closing][:self.reward.context]

    def settle(self, rows: dict[int, Row]) -> None:
        """Give the rows' draws their rewards: of what they have become, if they are done."""
        late: list[tree.Reading] = []
        for slot, row in rows.items():
            text = self.final(row.draw) if row.draw.reason else row.draw.asked + row.draw.ids
            if text == row.text == self.rm.read[slot] and not math.isnan(row.reward):
                row.draw.reward = row.reward
            else:
                late.append((slot, self.rm.rewind(slot, text), []))
        if late:
            ends = torch.tensor([len(text) for _, text, _ in late], device=self.rm.device).cumsum(0) - 1
            scores = self.scores(self.rm.ask(late)[ends], [rows[slot] for slot, _, _ in late])
            for (slot, _, _), reward in zip(late, scores, strict=True):
                rows[slot].draw.reward = reward


@torch.inference_mode()
def decode(pair: Pair, draws: Sequence[Guided], search: Search) -> Iterator[Guided]:
    """Every draw as it is done, by method greedy or stochastic; the next one takes its place among the rows.

    Raises FloatingPointError, naming the record, where a model gives no numbers.
    """
    waiting, rows, new = deque(in_turn(draws)), [], {}
    number = pair.open(draws, branches=search.topk)
    while rows or waiting:
        start = time.perf_counter()
        while waiting and len(rows) < number:
            rows.append(new.setdefault(len(rows), pair.row(waiting.popleft())))
        pair.begin(new)
        done = step(pair, rows, search)
        share = (time.perf_counter() - start) / len(rows)
        for row in rows:
            row.draw.seconds += share
        yield from [rows[slot].draw for slot in done]
        new = {slot: pair.row(waiting.popleft()) for slot in done[:len(waiting)]}
        for slot, row in new.items():
            rows[slot] = row
        for slot in reversed(done[len(new):]):
            leave(pair, rows, slot)


def in_turn(draws: Sequence[Guided]) -> list[Guided]:
    """Long prompts first: those that come later are sure to find room."""
    return sorted(draws, key=lambda draw: (-len(draw.prompt), draw.record, draw.number))


def leave(pair: Pair, rows: list[Row], slot: int) -> None:
    """The last row takes the place of one that is done, so that the rows' slots stay side by side."""
    last = rows.pop()
    if slot < len(rows):
        pair.lm.copy(len(rows), slot)
        pair.rm.copy(len(rows), slot)
        rows[slot] = last


def step(pair: Pair, rows: list[Row], search: Search) -> list[int]:
    """One more token for every row; the slots of those that are done now, in order."""
    best = pair.logits(dict(enumerate(rows))).topk(search.topk)  # [R, k]
    logits, candidates = best.values.cpu(), best.indices.tolist()
    if not logits[:, 0].isfinite().all():
        bad = int(logits[:, 0].isfinite().logical_not().nonzero()[0])
        raise FloatingPointError(f"{rows[bad].draw.where}: the model's logits are not finite")
    if search.margin is not None:
        logits = logits.masked_fill(logits < logits[:, :1] - search.margin, -torch.inf)
    rewards, branches = weigh(pair, rows, logits, candidates, search)
    picks = pick(rows, logits + search.weight * rewards, search)
    kept, done = [], []
    for slot, (row, place) in enumerate(zip(rows, picks, strict=True)):
        token, pair.tokens = candidates[slot][place], pair.tokens + 1
        if pair.ends_are_tokens or token not in pair.ends:
            row.text.append(token)
            row.reward = math.nan
            if place in branches[slot]:
                kept.append((slot, branches[slot].index(place)))
                row.reward = rewards[slot, place].item()
        if pair.finished(row.draw, token):
            done.append(slot)
    pair.rm.keep(kept)
    pair.settle({slot: rows[slot] for slot in done})
    return done


def weigh(pair: Pair, rows: list[Row], logits: Tensor, candidates: list[list[int]],
          search: Search) -> tuple[Tensor, list[list[int]]]:
    """Rewards of the candidates, [R, k] (0 where they cannot matter), and which of them are now branches.

    A row is asked about where more than one candidate is left, and rewards count.
    """
    rewards, branches, asked = torch.zeros_like(logits), [[] for _ in rows], []
    for slot, (row, left) in enumerate(zip(rows, logits.gt(-torch.inf).tolist(), strict=True)):
        if search.weight and sum(left) > 1:
            branches[slot] = [place for place, there in enumerate(left) if there
                              and (pair.ends_are_tokens or candidates[slot][place] not in pair.ends)]
            text = row.text[len(pair.rm.read[slot]):]
            asked.append((slot, text, [candidates[slot][place] for place in branches[slot]]))
    if not asked:
        return rewards, branches
    pair.asked += len(asked)
    places, at = [], 0  # of the hidden states to score: the last of a row's text, and its branches
    for _, text, tokens in asked:
        places += range(at + max(len(text) - 1, 0), at + len(text) + len(tokens))
        at += len(text) + len(tokens)
    owners = [rows[slot] for slot, text, tokens in asked for _ in range(bool(text) + len(tokens))]
    scores = deque(pair.scores(pair.rm.ask(asked)[places], owners))
    for slot, text, tokens in asked:
        if text:
            rows[slot].reward = scores.popleft()
        rewards[slot] = rows[slot].reward  # of ends, where they are no branches
        rewards[slot, branches[slot]] = torch.tensor([scores.popleft() for _ in tokens])
    return rewards, branches


def pick(rows: list[Row], scores: Tensor, search: Search) -> list[int]:
    """Which candidate each row takes: scores [R, k], -inf for none. Raises FloatingPointError."""
    for row, fine in zip(rows, scores.amax(-1).isfinite().tolist(), strict=True):
        if not fine:
            raise FloatingPointError(f"{row.draw.where}: logit + {search.weight:g} * reward is not finite")
    if search.method == "greedy":
        return scores.argmax(-1).tolist()
    numbers = torch.tensor([row.draws[len(row.draw.ids)] for row in rows], dtype=torch.float64)
    below = scores - scores.amax(-1, keepdim=True)  # the same shares; no temperature is too low for them
    return choose(below, numbers, torch.tensor([search.temperature] * len(rows)), 0, 1.0).tolist()
