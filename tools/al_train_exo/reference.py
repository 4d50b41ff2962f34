"""The reference's log-probabilities, computed once, before training."""

from __future__ import annotations

import os
import sys
from collections import ChainMap
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from alignlib import ranks
from alignlib.cli import bars
from alignlib.models.encoding import Example
from alignlib.models.packs import Pack
from alignlib.models.policy import Policy
from alignlib.training import loop
from alignlib.training.batches import Batches, Shuffled, packs_of
from alignlib.training.recipe import Recipe
from alignlib.training.run_folder import Run
from alignlib.training.zero import asking_engine_for

if TYPE_CHECKING:
    from alignlib.training.objective import Ask

Rows = dict[int, list[float]]  # by the number of the example, one log-probability a completion


@torch.no_grad()
def add_ref_logps(model: Policy, examples: Sequence[Example], recipe: Recipe, run: Run,
                  logps: Callable[[Pack], Tensor], held_out: Sequence[Example] = (),
                  step_means: Callable[[Batches, Ask[Policy]], list[float]] | None = None) -> list[float]:
    """Set `ref_logps` in the examples' values: `logps` of the packs that training and evaluation will see first.

    In the very same packs, so that a policy that is its own reference starts at a log-ratio of exactly 0: `model` is
    the run's, started already, or another. Computed once; a resumed run, whose policy has moved, reads them from its
    folder. Returns what `step_means` makes of the run's batches, computed by the same model and kept there too.
    """
    run.begin()
    file = run.folder / "ref_logps.pt"
    parts: list[Rows] | None = ranks.share(lambda: torch.load(file, weights_only=True) if file.exists() else None)
    if parts is None:
        parts = computed(model, examples, recipe, run, logps, held_out, step_means)
        if ranks.first():
            torch.save(parts, file.with_suffix(".tmp"))
            os.replace(file.with_suffix(".tmp"), file)
    *rows_of_both, means = parts
    for some, rows in zip((examples, held_out), rows_of_both, strict=True):
        for index, row in rows.items():
            some[index].values["ref_logps"] = row
    return means.get(0, [])


def computed(model: Policy, examples: Sequence[Example], recipe: Recipe, run: Run,
             logps: Callable[[Pack], Tensor], held_out: Sequence[Example],
             step_means: Callable[[Batches, Ask[Policy]], list[float]] | None) -> list[Rows]:
    """The rows of the examples and of the held-out ones, from the ranks that have them; and {0: the steps' means}."""
    engine = run.engine if run.engine and run.engine.model is model else asking_engine_for(model, recipe)
    batches = Batches(Shuffled(len(examples)), recipe)
    steps = min(len(batches), batches.an_epoch)

    def packs_of_steps(bar: bars.Bar) -> Iterator[tuple[Pack, bool, bool]]:
        for step in range(steps):
            yield from packs_of(batches.at(step), model, examples, recipe)
            bar.reach(step + 1)

    rest = packs_of(range(len(held_out)), model, held_out, recipe) if held_out else ()
    with bars.Bar(steps, name="reference", unit="steps", where=bars.terminal(sys.stderr, sys.stdout)) as bar:
        mine = [{index: row for batch, *_ in packs
                 for index, row in zip(batch.indices, engine.ask(partial(logps, batch)).tolist(), strict=True)}
                for packs in (packs_of_steps(bar), rest)]
        means = step_means(batches, partial(loop.measure, model, engine, recipe)) if step_means else []
    return [*(dict(ChainMap(*parts)) for parts in zip(*ranks.gather(mine), strict=True)), {0: means}]
