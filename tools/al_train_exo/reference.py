"""The reference's log-probabilities, computed once, before training."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np
import torch
from torch import Tensor

from alignlib import ranks
from alignlib.cli import bars
from alignlib.models import checkpoint
from alignlib.models.packs import Pack
from alignlib.models.policy import Policy
from alignlib.records.disk import whole
from alignlib.training import passes
from alignlib.training.batches import Batches, Shuffled, packs_of
from alignlib.training.examples import Examples
from alignlib.training.recipe import Recipe
from alignlib.training.run_folder import Run
from alignlib.training.zero import asking_engine_for

if TYPE_CHECKING:
    from alignlib.training.objective import Ask

Logps = tuple["array[int]", "array[float]"]  # examples by number, and one log-probability for each of their completions
StepMeans = Callable[[Batches, "Ask[Policy]"], list[float]]


@torch.no_grad()
def add_ref_logps(model: Policy, examples: Examples, recipe: Recipe, run: Run, logps: Callable[[Pack], Tensor],
                  held_out: Examples | None = None, step_means: StepMeans | None = None) -> list[float]:
    """Set `ref_logps` in the examples' values: `logps` of the packs that training and evaluation will see first.

    In the very same packs, so that a policy that is its own reference starts at a log-ratio of exactly 0: `model` is
    the run's, started already, or another. Computed once; a resumed run, whose policy has moved, reads them from its
    folder. NaN where nothing will be asked: --steps may end before the last examples.

    Returns what `step_means` makes of the run's batches, and of what is held out: a number each, computed by the same
    model and kept there too.
    """
    run.begin()
    file = run.folder / "ref_logps.pt"
    parts = [examples, *([held_out] if held_out else [])]
    batches = Batches(Shuffled(len(examples)), recipe)
    counts = [len(part.lengths) for part in parts] + ([len(batches) + len(parts) - 1] if step_means else [])
    columns: list[Tensor] | None = ranks.share(partial(read_ref_logps, file, run, counts))
    if columns is None:
        columns = computed(model, parts, batches, recipe, run, logps, step_means)
        if ranks.first():
            with whole(file) as handle:
                torch.save(columns, handle)
    for part, column in zip(parts, columns, strict=False):
        part.values["ref_logps"] = column.numpy()  # [R] over completions
    return columns[-1].tolist() if step_means else []


def read_ref_logps(file: Path, run: Run, counts: Sequence[int]) -> list[Tensor] | None:
    """What a run that is resumed had computed, columns of so many numbers; None for one that has not come so far.

    Raises UsageError where it is gone, damaged, or of other examples: a policy that has moved cannot say it again.
    """
    cure = f"{run.folder} cannot be resumed without it: train anew"
    if not file.exists():
        if run.checkpoint:
            raise click.UsageError(f"{file}: gone; {cure}")
        return None
    kept: list[Tensor] = checkpoint.unpickled(file, "no log-probabilities of a reference", cure)
    if not isinstance(kept, list) or not all(isinstance(column, Tensor) for column in kept):
        raise click.UsageError(f"{file}: not what al-train-exo writes; {cure}")
    if [(column.dtype, column.shape) for column in kept] != [(torch.float64, (count,)) for count in counts]:
        raise click.UsageError(f"{file}: of other records; {cure}")
    return kept


def computed(model: Policy, parts: Sequence[Examples], batches: Batches, recipe: Recipe, run: Run,
             logps: Callable[[Pack], Tensor], step_means: StepMeans | None) -> list[Tensor]:
    """The columns of the examples and of the held-out ones, from the ranks that have them: [R] each; the steps' means.

    All float64.
    """
    engine = run.engine if run.engine and run.engine.model is model else asking_engine_for(model, recipe)
    steps = min(len(batches), batches.an_epoch)

    def packs_of_steps(bar: bars.Bar) -> Iterator[tuple[Pack, bool, bool]]:
        for step in range(steps):
            yield from packs_of(batches.at(step), model, parts[0], recipe)
            bar.reach(step + 1)

    rest = (packs_of(range(len(part)), model, part, recipe) for part in parts[1:])
    columns = []
    with bars.Bar(steps, name="reference", unit="steps", where=bars.terminal(sys.stderr, sys.stdout)) as bar:
        for part, packs in zip(parts, (packs_of_steps(bar), *rest), strict=True):
            mine: Logps = array("q"), array("d")
            for batch, *_ in packs:
                mine[0].extend(batch.indices)
                mine[1].extend(engine.ask(partial(logps, batch)).flatten().tolist())
            columns.append(joined(part, ranks.gather(mine)))
        if step_means:
            means = step_means(batches, partial(passes.measure, model, engine, recipe))
            columns.append(torch.tensor(means, dtype=torch.float64))
    return columns


def joined(examples: Examples, by_rank: Sequence[Logps]) -> Tensor:
    """One column of what the ranks have computed: [R]. Where several have an example the first one's counts."""
    column = np.full(len(examples.lengths), np.nan)
    for numbers, values in reversed(by_rank):
        at = 0
        for number in numbers:
            rows = examples.rows(number)
            column[rows] = values[at:at + rows.stop - rows.start]
            at += rows.stop - rows.start
    return torch.from_numpy(column)
