"""Reward-guided decoding, ARGS (Khanov et al. 2024, 2402.01694): a reward model has a say in every token.

    score(v) = logit(v | x, y) + weight * reward(x, y, v)      v: the topk tokens with the largest logits

One step for all drafts: the language model reads one token of each, the reward model looks at all candidates as
branches of the text that it has read (alignlib.decoding.branches). What it need not be asked about it reads later:
where one candidate is left, it falls behind, and catches up in the pass in which it is asked again.
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
from alignlib.decoding.branches import texts_type
from alignlib.decoding.draws import Draw, Sampling, stopping_ids
from alignlib.decoding.sampler import choose, finisher, uniforms
from alignlib.decoding.texts import Reading
from alignlib.models.encoding import Encoder
from alignlib.models.policy import Policy, RewardModel
from alignlib.models.whole_texts import WholeTexts
from alignlib.records.jsonl import Record


@dataclass(slots=True)
class GuidedDraw(Draw):
    """A completion that has a reward; `reward_prompt` is the prompt as the reward model reads it."""

    about: Record = field(default_factory=dict)  # the record, as commands see it, without completions
    reward_prompt: list[int] = field(default_factory=list)
    reward: float = math.nan


@dataclass(slots=True)
class Draft:
    """A completion at work, in the slot of its number."""

    draw: GuidedDraw
    uniforms: np.ndarray[tuple[int], np.dtype[np.float64]]  # [T] in [0, 1): what decides each of its tokens
    text: list[int]  # prompt and completion as the reward model reads them
    reward: float = math.nan  # of the text, if the reward model has read all of it


class GuidedModels:
    """A language model and the reward model that guides it, on the same texts.

    ends_are_tokens   whether a candidate that ends the text is scored like any other, as in the paper; else by the
                      reward of the text that it ends, for reward models that have never seen an end
    reader            says how the reward model reads a text that is done
    """

    def __init__(self, policy: Policy, reward: RewardModel, encoder: Encoder, reader: Encoder, how: Sampling, *,
                 batch_tokens: int, ends_are_tokens: bool):
        self.policy, self.reward, self.how, self.batch_tokens = policy, reward, how, batch_tokens
        self.ends_are_tokens, self.ends, self.reader = ends_are_tokens, stopping_ids(encoder, how.stop), reader
        # Either model may be built for more tokens than the tokenizer has.
        self.vocabulary: int = min(policy.core.config.vocab_size, reward.core.config.vocab_size)
        self.kinds = texts_type(policy), texts_type(reward)
        self.finished: Callable[[Draw, int], bool] = finisher(encoder, how)
        self.tokens = self.reward_calls = 0  # drawn; drafts for which the reward model was asked about candidates

    def open(self, draws: Sequence[GuidedDraw], together: int = 1, branches: int = 0) -> int:
        """Make slots for the draws, `together` for each; returns for how many at a time."""
        new = self.how.max_new_tokens + 1
        lm_room = max(len(draw.prompt) for draw in draws) + new
        rm_room = max(len(draw.reward_prompt) for draw in draws) + new + branches
        number = min(len(draws), max(1, self.batch_tokens // (max(lm_room, rm_room) * together)))
        self.lm = self.kinds[0](self.policy, number * together, lm_room)
        self.rm = self.kinds[1](self.reward, number * together, rm_room)
        return number

    def begin(self, drafts: dict[int, Draft]) -> None:
        """New drafts in these slots; a prompt that several have is read once."""
        self.lm.begin({slot: draft.draw.prompt for slot, draft in drafts.items()})
        self.rm.begin({slot: draft.text for slot, draft in drafts.items()})
        for slot, draft in drafts.items():
            self.rm.rewind(slot, draft.text)  # what the slot's last draft has read is forgotten

    def draft(self, draw: GuidedDraw) -> Draft:
        return Draft(draw, uniforms(self.how.seed, draw.record, draw.number, self.how.max_new_tokens),
                     list(draw.reward_prompt))

    def logits(self, drafts: dict[int, Draft]) -> Tensor:
        """Of each draft's next token: [R, vocabulary], float32."""
        unread: list[Reading] = [(slot, self.lm.rewind(slot, draft.draw.prompt + draft.draw.ids), [])
                               for slot, draft in drafts.items()]
        ends = torch.tensor([len(text) for _, text, _ in unread], device=self.lm.device).cumsum(0) - 1
        return self.policy.logits(self.lm.ask(unread)[ends])[:, :self.vocabulary].float()

    def scores(self, hidden: Tensor, drafts: Sequence[Draft]) -> list[float]:
        """What the reward model's head says, [N, H], about N drafts. Raises FloatingPointError, naming the record."""
        scores: list[float] = self.reward.head(hidden)[:, 0].tolist()
        for score, draft in zip(scores, drafts, strict=True):
            if not math.isfinite(score):
                raise FloatingPointError(f"{draft.draw.where}: the reward model's scores are not finite")
        return scores

    def final_text(self, draw: GuidedDraw) -> list[int]:
        """A done draw as the reward model reads it, as al-score reads the record with its ids: by what ended it.

        A text cut at a stop string may have been encoded longer.
        """
        if isinstance(self.reader, WholeTexts):
            whole = self.reader.encode(draw.about, [draw.text])
            return [*whole.prompt, *whole.completions[0]]
        own = {"completions": [draw.text], "completion_ids": [draw.ids], "end_ids": [draw.end]}
        (end,) = self.reader.ends_of({**draw.about, **own}, 1)
        return [*draw.reward_prompt, *draw.ids, *([] if end is None else [end])][:self.reward.context]

    def settle(self, drafts: dict[int, Draft]) -> None:
        """Give the drafts' draws their rewards: of what they have become, if they are done."""
        late: list[Reading] = []
        for slot, draft in drafts.items():
            draw = draft.draw
            text = self.final_text(draw) if draw.reason else draw.reward_prompt + draw.ids
            if text == draft.text == self.rm.read[slot] and not math.isnan(draft.reward):
                draw.reward = draft.reward
            else:
                late.append((slot, self.rm.rewind(slot, text), []))
        if late:
            ends = torch.tensor([len(text) for _, text, _ in late], device=self.rm.device).cumsum(0) - 1
            scores = self.scores(self.rm.ask(late)[ends], [drafts[slot] for slot, _, _ in late])
            for (slot, _, _), reward in zip(late, scores, strict=True):
                drafts[slot].draw.reward = reward


@torch.inference_mode()
def decode(models: GuidedModels, draws: Sequence[GuidedDraw], search: Search) -> Iterator[GuidedDraw]:
    """Every draw as it is done, by method greedy or stochastic; the next one takes its place among the drafts.

    Raises FloatingPointError, naming the record, where a model gives no numbers.
    """
    waiting = deque(in_turn(draws))
    drafts: list[Draft] = []
    new: dict[int, Draft] = {}  # those among them that nothing has been read of, by their slots
    number = models.open(draws, branches=search.topk)
    while drafts or waiting:
        start = time.perf_counter()
        while waiting and len(drafts) < number:
            drafts.append(new.setdefault(len(drafts), models.draft(waiting.popleft())))
        models.begin(new)
        done = step(models, drafts, search)
        share = (time.perf_counter() - start) / len(drafts)
        for draft in drafts:
            draft.draw.seconds += share
        yield from [drafts[slot].draw for slot in done]
        new = {slot: models.draft(waiting.popleft()) for slot in done[:len(waiting)]}
        for slot, draft in new.items():
            drafts[slot] = draft
        for slot in reversed(done[len(new):]):
            leave(models, drafts, slot)


def in_turn(draws: Sequence[GuidedDraw]) -> list[GuidedDraw]:
    """Long prompts first: those that come later are sure to find room."""
    return sorted(draws, key=lambda draw: (-len(draw.prompt), draw.record, draw.number))


def leave(models: GuidedModels, drafts: list[Draft], slot: int) -> None:
    """The last draft takes the place of one that is done, so that the drafts' slots stay side by side."""
    last = drafts.pop()
    if slot < len(drafts):
        models.lm.copy(len(drafts), slot)
        models.rm.copy(len(drafts), slot)
        drafts[slot] = last


def step(models: GuidedModels, drafts: list[Draft], search: Search) -> list[int]:
    """One more token for every draft; the slots of those that are done now, in order."""
    best = models.logits(dict(enumerate(drafts))).topk(search.topk)  # [R, k]
    logits, candidates = best.values.cpu(), best.indices.tolist()
    if not logits[:, 0].isfinite().all():
        bad = int(logits[:, 0].isfinite().logical_not().nonzero()[0])
        raise FloatingPointError(f"{drafts[bad].draw.where}: the model's logits are not finite")
    if search.margin is not None:
        logits = logits.masked_fill(logits < logits[:, :1] - search.margin, -torch.inf)
    rewards, branches = weigh(models, drafts, logits, candidates, search)
    picks = pick(drafts, logits + search.weight * rewards, search)
    kept, done = [], []
    for slot, (draft, place) in enumerate(zip(drafts, picks, strict=True)):
        token, models.tokens = candidates[slot][place], models.tokens + 1
        if models.ends_are_tokens or token not in models.ends:
            draft.text.append(token)
            draft.reward = math.nan
            if place in branches[slot]:
                kept.append((slot, branches[slot].index(place)))
                draft.reward = rewards[slot, place].item()
        if models.finished(draft.draw, token):
            done.append(slot)
    models.rm.keep(kept)
    models.settle({slot: drafts[slot] for slot in done})
    return done


def weigh(models: GuidedModels, drafts: list[Draft], logits: Tensor, candidates: list[list[int]],
          search: Search) -> tuple[Tensor, list[list[int]]]:
    """Rewards of the candidates, [R, k] (0 where they cannot matter), and which of them are now branches.

    The reward model is asked about a draft where more than one candidate is left, and rewards count; not about ends
    alone, which are worth what their text is, where it has read that.
    """
    rewards = torch.zeros_like(logits)
    branches: list[list[int]] = [[] for _ in drafts]
    unread: list[Reading] = []
    for slot, (draft, left) in enumerate(zip(drafts, logits.gt(-torch.inf).tolist(), strict=True)):
        if search.weight and sum(left) > 1:
            branches[slot] = [place for place, there in enumerate(left) if there
                              and (models.ends_are_tokens or candidates[slot][place] not in models.ends)]
            text = draft.text[len(models.rm.read[slot]):]
            if text or branches[slot]:
                unread.append((slot, text, [candidates[slot][place] for place in branches[slot]]))
            else:
                rewards[slot] = draft.reward
    if not unread:
        return rewards, branches
    models.reward_calls += len(unread)
    places: list[int] = []  # of the hidden states to score: the last of a draft's text, and its branches
    at = 0
    for _, text, tokens in unread:
        places += range(at + max(len(text) - 1, 0), at + len(text) + len(tokens))
        at += len(text) + len(tokens)
    owners = [drafts[slot] for slot, text, tokens in unread for _ in range(bool(text) + len(tokens))]
    scores = deque(models.scores(models.rm.ask(unread)[places], owners))
    for slot, text, tokens in unread:
        if text:
            drafts[slot].reward = scores.popleft()
        rewards[slot] = drafts[slot].reward  # of ends, where they are no branches
        rewards[slot, branches[slot]] = torch.tensor([scores.popleft() for _ in tokens])
    return rewards, branches


def pick(drafts: list[Draft], scores: Tensor, search: Search) -> list[int]:
    """Which candidate each draft takes: scores [R, k], -inf for none. Raises FloatingPointError."""
    for draft, fine in zip(drafts, scores.amax(-1).isfinite().tolist(), strict=True):
        if not fine:
            raise FloatingPointError(f"{draft.draw.where}: logit + {search.weight:g} * reward is not finite")
    if search.method == "greedy":
        return scores.argmax(-1).tolist()
    numbers = torch.tensor([draft.uniforms[len(draft.draw.ids)] for draft in drafts], dtype=torch.float64)
    below = scores - scores.amax(-1, keepdim=True)  # the same shares; no temperature is too low for them
    return choose(below, numbers, torch.tensor([search.temperature] * len(drafts)), 0, 1.0).tolist()
