"""The one training loop, the order of the data, the reference's log-probabilities."""

import math
import os
import signal
import time
from collections.abc import Callable, Sequence, Sized
from functools import partial

import torch
from torch import Tensor

from alignlib import ranks
from alignlib.cli import exits, options
from alignlib.models.encoding import Example
from alignlib.models.policy import Model
from alignlib.records import jsonl
from alignlib.training import engine, zero
from alignlib.training.adapters import adapt
from alignlib.training.batches import Order, Shuffled, batch_at, packs_of, steps_an_epoch, steps_in
from alignlib.training.objective import Adaptive, Objective, Weighing
from alignlib.training.recipe import Recipe
from alignlib.training.run_folder import Run


def read(files: Sequence[str], prepare: Callable[[dict], Example], run: Run) -> tuple[list[Example], list[Example]]:
    """All examples of the input, and those of --eval. Raises DataError, also for no records."""
    examples, crc = gather(files, prepare, run)
    if not examples:
        left_out = f" ({run.skipped} were left out)" if run.skipped else ""
        raise jsonl.DataError(f"no records to train on{left_out}")
    held_out, eval_crc = gather([run.recipe.eval], prepare, run) if run.recipe.eval else ([], 0)
    if run.recipe.eval and not held_out:
        raise jsonl.DataError(f"{run.recipe.eval}: no records to evaluate on")
    run.reads(crc, eval_crc)
    return examples, held_out


def gather(files: Sequence[str], prepare: Callable[[dict], Example], run: Run) -> tuple[list[Example], int]:
    """The examples of `files`, and their checksum; records that the user asked to leave out are counted in the run."""
    examples, crc = [], 0
    for line in jsonl.read(files, prepare):
        crc = line.crc
        if isinstance(line.error, jsonl.Skip):
            run.skipped += 1
        elif line.error:
            raise line.failure()
        else:
            examples.append(line.data)
    return examples, crc


# -- the loop ------------------------------------------------------------------------------------------------


def fit(model: Model, examples: Sequence[Example], objective: Objective, recipe: Recipe, run: Run,
        *, held_out: Sequence[Example] = (), best: str | None = None, order: Order | None = None) -> dict:
    """Train `model` on `examples`, save it in the run's folder, return the final figures.

    held_out  evaluated every recipe.eval_every steps and at the end
    best      a figure of the evaluation: the model saved is the one where it was highest
    order     of the examples; none: Shuffled
    """
    order = order or Shuffled(len(examples))
    start(model, order, recipe, run)
    total = steps_in(order, recipe)
    every = recipe.eval_every or steps_an_epoch(order, recipe)
    saves = math.ceil(recipe.save_every * (total if recipe.save_every < 1 else 1)) if recipe.save_every else 0
    state = {"step": 0, "best": None, "best_step": None}
    if run.checkpoint:
        state = run.engine.load(run.checkpoint)
    if isinstance(objective, Adaptive):
        objective.state |= state.pop("objective", {})
    entry = run.last_entry(state["step"])
    stop = on_sigterm()
    if recipe.gradient_checkpointing:
        model.checkpoint_activations()
    model.model.train()
    for step in options.progress(range(state["step"], total), initial=state["step"], total=total, unit="step"):
        started = time.monotonic()
        entry = {"step": step + 1, "epoch": round((step + 1) / steps_an_epoch(order, recipe), 4)}
        entry |= train_step(batch_at(step, order, recipe), model, examples, objective, recipe, run.engine)
        must_be_finite(entry)
        if isinstance(objective, Adaptive):
            objective.stepped(entry)
        entry["tokens_per_second"] = round(entry["tokens"] / (time.monotonic() - started), 1)
        if held_out and ((step + 1) % every == 0 or step + 1 == total):
            found = evaluate(model, held_out, objective, recipe, run.engine)
            entry |= {f"eval_{name}": value for name, value in found.items()}
            if best and (state["best"] is None or entry[f"eval_{best}"] > state["best"]):
                state |= {"best": entry[f"eval_{best}"], "best_step": step + 1}
                keep_best(run)
        run.log(entry)
        asked = any(ranks.gather(stop() or ranks.orphaned()))
        if asked or (saves and (step + 1) % saves == 0):
            learnt = {"objective": objective.state} if isinstance(objective, Adaptive) else {}
            run.save(model, **{**state, "step": step + 1, **learnt})
        if asked:
            raise exits.Terminated(f"stopped by SIGTERM after step {step + 1}; --resume goes on")
    if best and held_out:  # the model that is kept
        weights = torch.load(run.folder / "best.pt", weights_only=True) if ranks.first() else None
        entry |= {f"best_{best}": state["best"], "best_step": state["best_step"]}
    else:
        weights = run.engine.weights()
    run.finish(model, entry, weights)
    return entry


def start(model: Model, order: Sized, recipe: Recipe, run: Run) -> None:
    """Begin the run: its folder, the adapters of --lora, its engine. Only the first call does anything."""
    if run.engine is None:
        run.begin()
        adapt(model, recipe)
        run.engine = zero.engine_for(model, recipe, steps_in(order, recipe), run.checkpoint)


def train_step(indices: Sequence[int], model: Model, examples: Sequence[Example], objective: Objective, recipe: Recipe,
               place: engine.Engine) -> dict[str, float | None]:
    """One step of the optimizer on a global batch; the loss is normalised by the batch's size, however it is split."""
    size = sum(objective.size(examples[i]) for i in indices) or 1  # cut, empty completions leave nothing to learn
    sums = {"loss": 0.0, "tokens": 0}
    waits, counted = isinstance(objective, Weighing), []
    for batch, counts, last in packs_of(indices, model, examples, recipe):
        part, figures = place.ask(partial(objective, model, batch))
        if not waits:
            place.backward(part / size * counts, last)
        counted.append(counts)
        add(sums, counts, {"loss": part.item() / size, "tokens": batch.tokens,
                           **means(objective, figures, len(indices), size)})
    if waits:
        place.backward(objective.weigh(counted) / size, True)
    sums = ranks.total(sums)
    taken = place.step()
    tokens = int(sums.pop("tokens"))
    return {**sums, **taken, "tokens": tokens}


def must_be_finite(entry: dict) -> None:
    for name, value in {"loss": entry["loss"], "gradient's norm": entry["grad_norm"]}.items():
        if value is not None and not math.isfinite(value):
            raise FloatingPointError(f"the {name} is {value} at step {entry['step']}")


@torch.no_grad()
def evaluate(model: Model, examples: Sequence[Example], objective: Objective, recipe: Recipe,
             place: engine.Engine | engine.Asking) -> dict[str, float]:
    """The objective's loss and figures over all examples, each counted once."""
    size = sum(map(objective.size, examples))
    sums = {"loss": 0.0}
    for batch, counts, _ in packs_of(range(len(examples)), model, examples, recipe):
        loss, figures = place.ask(partial(objective, model, batch))
        add(sums, counts, {"loss": loss.item() / size, **means(objective, figures, len(examples), size)})
    return ranks.total(sums)


def means(objective: Objective, figures: dict[str, Tensor], examples: int, size: float) -> dict[str, float]:
    """A pack's figures as parts of means over the examples, or over what `size` counts."""
    sized = getattr(objective, "sized", ())
    return {name: value.item() / (size if name in sized else examples) for name, value in figures.items()}


def add(sums: dict[str, float], counts: bool, amounts: dict[str, float]) -> None:
    """Add a pack's amounts: 0 each where it does not count."""
    for name, value in amounts.items():
        sums[name] = sums.get(name, 0) + value * counts


def on_sigterm() -> Callable[[], bool]:
    """From now on SIGTERM asks instead of killing: a function that says whether it came."""
    came = []
    signal.signal(signal.SIGTERM, lambda *_: came.append(True))
    return lambda: bool(came)


def keep_best(run: Run) -> None:
    weights = run.engine.weights()
    if ranks.first():
        torch.save(weights, run.folder / "best.tmp")
        os.replace(run.folder / "best.tmp", run.folder / "best.pt")
