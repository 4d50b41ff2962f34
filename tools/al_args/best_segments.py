"""Best-of-n and its blockwise form: whole texts, or segments of them, by the language model, kept by their reward.

    prompt -- | a segment        1.3
              | another one      2.1  -- | ...         all go on from the best one; the answer is the best at the end
              | a third          0.4     | ...
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from al_args.settings import Search
from al_args.token_by_token import Draft, GuidedDraw, GuidedModels, in_turn
from alignlib.decoding.sampler import choose


@dataclass(slots=True)
class Candidates:
    """A completion and its candidates, in slots side by side."""

    draw: GuidedDraw
    drafts: dict[int, Draft]  # by their slots
    until: int  # tokens of the completion at the segment's end

    def going(self) -> dict[int, Draft]:
        """The drafts that have not come to the segment's end, nor to their own."""
        return {slot: draft for slot, draft in self.drafts.items()
                if not draft.draw.reason and len(draft.draw.ids) < self.until}


@torch.inference_mode()
def decode(models: GuidedModels, draws: Sequence[GuidedDraw], search: Search) -> Iterator[GuidedDraw]:
    """Every draw as it is done; the next one takes its place. Raises FloatingPointError, naming the record.

    Candidate j of completion i is al-sample's completion i * best_of + j, as far as no segment was kept before.
    """
    waiting = in_turn(draws)
    groups: dict[int, Candidates] = {}
    segment = search.segment if search.method == "segment" else models.how.max_new_tokens
    number = models.open(draws, search.best_of)
    while groups or waiting:
        start = time.perf_counter()
        free = [place for place in range(number) if place not in groups]
        new = {place: candidates(models, draw, place, search, segment)
               for place, draw in zip(free, waiting, strict=False)}
        waiting, groups = waiting[len(new):], groups | new
        models.begin({slot: draft for group in new.values() for slot, draft in group.drafts.items()})
        advance(models, {slot: draft for group in groups.values() for slot, draft in group.going().items()}, search)
        ended = {place: group for place, group in groups.items() if not group.going()}
        models.settle({slot: draft for group in ended.values() for slot, draft in group.drafts.items()})
        models.reward_calls += sum(len(group.drafts) for group in ended.values())
        for group in ended.values():
            keep_best(models, group, segment)
        share = (time.perf_counter() - start) / len(groups)
        for group in groups.values():
            group.draw.seconds += share
        groups = {place: group for place, group in groups.items() if not group.draw.reason}
        yield from [group.draw for group in ended.values() if group.draw.reason]


def candidates(models: GuidedModels, draw: GuidedDraw, place: int, search: Search, segment: int) -> Candidates:
    """The draws that a completion is the best of."""
    drafts = {}
    for candidate in range(search.best_of):
        own = replace(draw, number=draw.number * search.best_of + candidate, ids=[])
        drafts[place * search.best_of + candidate] = models.draft(own)
    return Candidates(draw, drafts, segment)


def advance(models: GuidedModels, drafts: dict[int, Draft], search: Search) -> None:
    """One more token for each of the drafts, drawn from the language model."""
    logits = models.logits(drafts)
    numbers = torch.tensor([draft.uniforms[len(draft.draw.ids)] for draft in drafts.values()], dtype=torch.float64)
    temperatures = torch.tensor([search.temperature] * len(drafts), device=logits.device)
    tokens = choose(logits, numbers.to(logits.device), temperatures, 0, 1.0).tolist()
    for draft, token in zip(drafts.values(), tokens, strict=True):
        if token < 0:
            raise FloatingPointError(f"{draft.draw.where}: the model's logits are not finite")
        models.finished(draft.draw, token)
    models.tokens += len(drafts)


def keep_best(models: GuidedModels, group: Candidates, segment: int) -> None:
    """The first candidate of the highest reward: the answer, if it has come to its end; else all go on from it."""
    slot, best = max(group.drafts.items(), key=lambda item: item[1].draw.reward)
    if best.draw.reason:
        group.draw.ids, group.draw.text, group.draw.reason = best.draw.ids, best.draw.text, best.draw.reason
        group.draw.end, group.draw.reward = best.draw.end, best.draw.reward
        return
    for other, draft in group.drafts.items():
        models.lm.copy(slot, other)
        models.rm.copy(slot, other)
        draft.draw.ids, draft.draw.end = list(best.draw.ids), None
        draft.draw.text = draft.draw.reason = ""
    group.until = len(best.draw.ids) + segment
