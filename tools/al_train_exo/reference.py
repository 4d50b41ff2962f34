"""The reference's log-probabilities, computed once, before training."""

import sys
from array import array
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import click
import numpy as np
import torch
from torch import Tensor

from alignlib import ranks
from alignlib.cli import bars
from alignlib.models import checkpoint
from alignlib.models.packs import Pack
from alignlib.models.policy import Model
from alignlib.records.disk import whole
from alignlib.training.batches import Batches, Shuffled, packs_of
from alignlib.training.examples import Examples
from alignlib.training.recipe import Recipe
from alignlib.training.run_folder import Run
from alignlib.training.zero import asking_engine_for

Logps = tuple["array[int]", "array[float]"]  # examples by number, and one log-probability for each of their completions


@torch.no_grad()
def add_ref_logps(model: Model, examples: Examples, recipe: Recipe, run: Run, logps: Callable[[Pack], Tensor],
                  held_out: Examples | None = None) -> None:
    """Set `ref_logps` in the examples' values: `logps` of the packs that training and evaluation will see first.

    In the very same packs, so that a policy that is its own reference starts at a log-ratio of exactly 0: `model` is
    the run's, started already, or another. Computed once; a resumed run, whose policy has moved, reads them from its
    folder. NaN where nothing will be asked: --steps may end before the last examples.
    """
    run.begin()
    file = run.folder / "ref_logps.pt"
    parts = [examples, *([held_out] if held_out else [])]
    columns: list[Tensor] | None = ranks.share(partial(read_ref_logps, file, run, parts))  # [R] over completions, each
    if columns is None:
        columns = computed(model, parts, recipe, run, logps)
        if ranks.first():
            with whole(file) as handle:
                torch.save(columns, handle)
    for part, column in zip(parts, columns, strict=True):
        part.values["ref_logps"] = column.numpy()


def read_ref_logps(file: Path, run: Run, parts: Sequence[Examples]) -> list[Tensor] | None:
    """What a run that is resumed had computed for the examples in `parts`; None for one that has not come so far.

    Raises UsageError where it is gone, damaged, or of other examples: a policy that has moved cannot say it again.
    """
    cure = f"{run.folder} cannot be resumed without it: train anew"
    if not file.exists():
        if run.checkpoint:
            raise click.UsageError(f"{file}: gone; {cure}")
        return None
    kept: list[Tensor] = checkpoint.unpickled(file, "no log-probabilities of a reference", cure)
    try:
        fits = all(column.dtype == torch.float64 and column.shape == (len(part.lengths),)
                   for part, column in zip(parts, kept, strict=True))
    except (TypeError, ValueError, AttributeError) as error:
        raise click.UsageError(f"{file}: not what al-train-exo writes; {cure}") from error
    if not fits:
        raise click.UsageError(f"{file}: of other records; {cure}")
    return kept


def computed(model: Model, parts: Sequence[Examples], recipe: Recipe, run: Run,
             logps: Callable[[Pack], Tensor]) -> list[Tensor]:
    """The columns of the examples and of the held-out ones, from the ranks that have them: [R] each, float64."""
    engine = run.engine if run.engine and run.engine.model is model else asking_engine_for(model, recipe)
    batches = Batches(Shuffled(len(parts[0])), recipe)
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
