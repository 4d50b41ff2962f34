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
from al_args.token_by_token import Guided, Pair, Row, in_turn
from alignlib.decoding.sampler import choose


@dataclass(slots=True)
class Group:
    """A completion and its candidates, in slots side by side."""

    draw: Guided
    rows: dict[int, Row]  # by their slots
    until: int  # tokens of the completion at the segment's end

    def going(self) -> dict[int, Row]:
        return {slot: row for slot, row in self.rows.items() if not row.draw.reason and len(row.draw.ids) < self.until}


@torch.inference_mode()
def decode(pair: Pair, draws: Sequence[Guided], search: Search) -> Iterator[Guided]:
    """Every draw as it is done; the next one takes its place. Raises FloatingPointError, naming the record.

    Candidate j of completion i is al-sample's completion i * best_of + j, as far as no segment was kept before.
    """
    waiting, groups = in_turn(draws), {}
    segment = search.segment if search.method == "segment" else pair.how.max_new_tokens
    number = pair.open(draws, search.best_of)
    while groups or waiting:
        start = time.perf_counter()
        free = [place for place in range(number) if place not in groups]
        new = {place: candidates(pair, draw, place, search, segment)
               for place, draw in zip(free, waiting, strict=False)}
        waiting, groups = waiting[len(new):], groups | new
        pair.begin({slot: row for group in new.values() for slot, row in group.rows.items()})
        advance(pair, {slot: row for group in groups.values() for slot, row in group.going().items()}, search)
        ended = {place: group for place, group in groups.items() if not group.going()}
        pair.settle({slot: row for group in ended.values() for slot, row in group.rows.items()})
        pair.asked += sum(len(group.rows) for group in ended.values())
        for group in ended.values():
            keep_best(pair, group, segment)
        share = (time.perf_counter() - start) / len(groups)
        for group in groups.values():
            group.draw.seconds += share
        groups = {place: group for place, group in groups.items() if not group.draw.reason}
        yield from [group.draw for group in ended.values() if group.draw.reason]


def candidates(pair: Pair, draw: Guided, place: int, search: Search, segment: int) -> Group:
    """The draws that a completion is the best of."""
    rows = {}
    for candidate in range(search.best_of):
        own = replace(draw, number=draw.number * search.best_of + candidate, ids=[])
        rows[place * search.best_of + candidate] = pair.row(own)
    return Group(draw, rows, segment)


def advance(pair: Pair, rows: dict[int, Row], search: Search) -> None:
    """One more token for each of the rows, drawn from the language model."""
    logits = pair.logits(rows)
    numbers = torch.tensor([row.draws[len(row.draw.ids)] for row in rows.values()], dtype=torch.float64)
    temperatures = torch.tensor([search.temperature] * len(rows), device=logits.device)
    tokens = choose(logits, numbers.to(logits.device), temperatures, 0, 1.0).tolist()
    for row, token in zip(rows.values(), tokens, strict=True):
        if token < 0:
            raise FloatingPointError(f"{row.draw.where}: the model's logits are not finite")
        pair.finished(row.draw, token)
    pair.tokens += len(rows)


def keep_best(pair: Pair, group: Group, segment: int) -> None:
    """The first candidate of the highest reward: the answer, if it has come to its end; else all go on from it."""
    slot, best = max(group.rows.items(), key=lambda item: item[1].draw.reward)
    if best.draw.reason:
        group.draw.ids, group.draw.text, group.draw.reason = best.draw.ids, best.draw.text, best.draw.reason
        group.draw.reward = best.draw.reward
        return
    for other, row in group.rows.items():
        pair.lm.copy(slot, other)
        pair.rm.copy(slot, other)
        row.draw.ids, row.draw.text, row.draw.reason = list(best.draw.ids), "", ""
    group.until = len(best.draw.ids) + segment
