"""Passes over examples, in packs: backward for a step, forward for evaluations and what else is asked of a model."""

from collections import ChainMap
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from alignlib import ranks
from alignlib.cli import bars
from alignlib.models.example import Example
from alignlib.models.packs import Pack
from alignlib.models.policy import Model
from alignlib.training.batches import packs_of
from alignlib.training.engine import AskingEngine, Engine
from alignlib.training.objective import Objective
from alignlib.training.recipe import Recipe

M = TypeVar("M", bound=Model)
Shares = dict[str, tuple[Tensor, float]]  # a pack's sums, each with what it is divided by


def train_step(indices: Sequence[int], model: M, examples: Sequence[Example], objective: Objective[M], recipe: Recipe,
               engine: Engine) -> dict[str, Any]:
    """One step of the optimizer on a global batch."""
    figures = pass_back(indices, model, examples, objective, recipe, engine)
    tokens = figures.pop("tokens")
    return {**figures, **engine.step(), "tokens": int(tokens)}


def pass_back(indices: Sequence[int], model: M, examples: Sequence[Example], objective: Objective[M], recipe: Recipe,
              engine: Engine, *, weight: float = 1.0, last: bool = True) -> dict[str, float]:
    """The backward passes of a step over the examples `indices`: the loss, the tokens and the figures, of all ranks.

    The loss is normalised by the batch's size, however it is split. weight: of this loss in the step's, of which it is
    the `last` part or not.
    """
    size = sum(objective.size(examples[i]) for i in indices) or 1  # cut, empty completions leave nothing to learn
    told: list[tuple[bool, Shares]] = []
    tokens = 0
    for batch, counts, final in packs_of(indices, model, examples, recipe):
        part, figures = engine.ask(partial(objective, model, batch))
        if not objective.whole_step:
            engine.backward(part / size * (weight * counts), last and final)
        told.append((counts, shares(objective, part, figures, len(indices), size)))
        tokens += batch.tokens * counts
    if objective.whole_step:
        engine.backward(objective.step_loss([counts for counts, _ in told]) / size * weight, last)
    return ranks.total({**total(told), "tokens": float(tokens)})


@torch.no_grad()
def evaluate(model: M, examples: Sequence[Example], objective: Objective[M], recipe: Recipe,
             engine: Engine | AskingEngine, bar: bars.Bar | None = None) -> dict[str, float]:
    """The objective's loss and figures over all examples, each counted once; without --lora-dropout."""
    training = model.model.training
    model.model.eval()
    objective.before(None, range(len(examples)), examples, partial(measure, model, engine, recipe))
    size = sum(map(objective.size, examples))
    told, done = [], 0
    for batch, counts, _ in packs_of(range(len(examples)), model, examples, recipe):
        if bar:
            bar.say(f"evaluating {done} of {len(examples)}")
            done = min(len(examples), done + len(batch.indices) * ranks.size())  # about: the other ranks have as many
        loss, figures = engine.ask(partial(objective, model, batch))
        told.append((counts, shares(objective, loss, figures, len(examples), size)))
    model.model.train(training)
    return ranks.total(total(told))


@torch.no_grad()
def measure(model: M, engine: Engine | AskingEngine, recipe: Recipe, examples: Sequence[Example],
            work: Callable[[M, Pack], Tensor]) -> list[list[float]]:
    """What `work` computes of the examples' packs, [E, K] each, a row an example; on every rank all rows."""
    training = model.model.training
    model.model.eval()
    rows = {index: row for batch, *_ in packs_of(range(len(examples)), model, examples, recipe)
            for index, row in zip(batch.indices, engine.ask(partial(work, model, batch)).tolist(), strict=True)}
    model.model.train(training)
    every = dict(ChainMap(*ranks.gather(rows)))
    return [every[index] for index in range(len(examples))]


def shares(objective: Objective[M], loss: Tensor, figures: dict[str, Tensor], examples: int, size: float) -> Shares:
    """A pack's loss and figures as parts of means over the examples, or over what `size` counts, as the loss is."""
    by = {name: size if name in objective.sized else examples for name in figures}
    return {"loss": (loss.detach(), size), **{name: (value, by[name]) for name, value in figures.items()}}


def total(told: Sequence[tuple[bool, Shares]]) -> dict[str, float]:
    """The sums over packs, of which each counts or not. Only here is the device asked for numbers, and waited for."""
    sums = {"loss": 0.0}
    for counts, parts in told:
        for name, (value, by) in parts.items():
            sums[name] = sums.get(name, 0) + value.item() / by * counts
    return sums
