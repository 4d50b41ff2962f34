"""The reference's log-probabilities, computed once, before training."""

import collections
import os
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from alignlib import ranks
from alignlib.cli import options
from alignlib.models.encoding import Example
from alignlib.models.packs import Pack
from alignlib.models.policy import Model
from alignlib.training import zero
from alignlib.training.batches import Shuffled, batch_at, packs_of, steps_an_epoch, steps_in
from alignlib.training.recipe import Recipe
from alignlib.training.run_folder import Run


@torch.no_grad()
def reference(model: Model, examples: Sequence[Example], recipe: Recipe, run: Run,
              logps: Callable[[Pack], Tensor], held_out: Sequence[Example] = ()) -> None:
    """Set `ref_logps` in the examples' values: `logps` of the packs that training and evaluation will see first.

    In the very same packs, so that a policy that is its own reference starts at a log-ratio of exactly 0: `model` is
    the run's, started already, or another. Computed once; a resumed run, whose policy has moved, reads them from its
    folder.
    """
    run.begin()
    file = run.folder / "ref_logps.pt"
    found = ranks.share(lambda: torch.load(file, weights_only=True) if file.exists() else None)
    if found is None:
        place = run.engine if run.engine and run.engine.model is model else zero.engine_to_ask(model, recipe)
        order = Shuffled(len(examples))
        needed = min(steps_in(order, recipe), steps_an_epoch(order, recipe))
        steps = options.progress(range(needed), unit="step", desc="reference")
        first = (pack for step in steps
                 for pack in packs_of(batch_at(step, order, recipe), model, examples, recipe))
        rest = packs_of(range(len(held_out)), model, held_out, recipe) if held_out else ()
        found = [{index: row for batch, *_ in packs
                  for index, row in zip(batch.indices, place.ask(partial(logps, batch)).tolist(), strict=True)}
                 for packs in (first, rest)]
        found = [dict(collections.ChainMap(*parts)) for parts in zip(*ranks.gather(found), strict=True)]
        if ranks.first():
            torch.save(found, file.with_suffix(".tmp"))
            os.replace(file.with_suffix(".tmp"), file)
    for some, rows in zip((examples, held_out), found, strict=True):
        for index, row in rows.items():
            some[index].values["ref_logps"] = row
