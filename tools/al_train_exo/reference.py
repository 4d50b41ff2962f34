"""The reference's log-probabilities, computed once, before training."""

import sys
from collections import ChainMap
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import click
import torch
from torch import Tensor

from alignlib import ranks
from alignlib.cli import bars
from alignlib.models import checkpoint
from alignlib.models.encoding import Example
from alignlib.models.packs import Pack
from alignlib.models.policy import Model
from alignlib.records.disk import whole
from alignlib.training.batches import Batches, Shuffled, packs_of
from alignlib.training.recipe import Recipe
from alignlib.training.run_folder import Run
from alignlib.training.zero import asking_engine_for

Rows = dict[int, list[float]]  # by the number of the example, one log-probability a completion


@torch.no_grad()
def add_ref_logps(model: Model, examples: Sequence[Example], recipe: Recipe, run: Run,
                  logps: Callable[[Pack], Tensor], held_out: Sequence[Example] = ()) -> None:
    """Set `ref_logps` in the examples' values: `logps` of the packs that training and evaluation will see first.

    In the very same packs, so that a policy that is its own reference starts at a log-ratio of exactly 0: `model` is
    the run's, started already, or another. Computed once; a resumed run, whose policy has moved, reads them from its
    folder.
    """
    run.begin()
    file = run.folder / "ref_logps.pt"
    parts: list[Rows] | None = ranks.share(partial(read_ref_logps, file, run, [examples, held_out]))
    if parts is None:
        parts = computed(model, examples, recipe, run, logps, held_out)
        if ranks.first():
            with whole(file) as handle:
                torch.save(parts, handle)
    for some, rows in zip((examples, held_out), parts, strict=True):
        for index, row in rows.items():
            some[index].values["ref_logps"] = row


def read_ref_logps(file: Path, run: Run, parts: Sequence[Sequence[Example]]) -> list[Rows] | None:
    """What a run that is resumed had computed for the examples in `parts`; None for one that has not come so far.

    Raises UsageError where it is gone, damaged, or of other examples: a policy that has moved cannot say it again.
    """
    cure = f"{run.folder} cannot be resumed without it: train anew"
    if not file.exists():
        if run.checkpoint:
            raise click.UsageError(f"{file}: gone; {cure}")
        return None
    kept: list[Rows] = checkpoint.unpickled(file, "no log-probabilities of a reference", cure)
    try:
        fits = all(len(row) == len(some[index].completions) for some, rows in zip(parts, kept, strict=True)
                   for index, row in rows.items())
    except (TypeError, ValueError, AttributeError, IndexError) as error:
        raise click.UsageError(f"{file}: not what al-train-exo writes; {cure}") from error
    if not fits:
        raise click.UsageError(f"{file}: of other records; {cure}")
    return kept


def computed(model: Model, examples: Sequence[Example], recipe: Recipe, run: Run,
             logps: Callable[[Pack], Tensor], held_out: Sequence[Example]) -> list[Rows]:
    """The rows of the examples and of the held-out ones, from the ranks that have them."""
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
    return [dict(ChainMap(*parts)) for parts in zip(*ranks.gather(mine), strict=True)]
