"""The one training loop, the order of the data, the reference's log-probabilities."""

import math
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from alignlib import jsonl, options
from alignlib.engine import Single
from alignlib.pack import Pack, plan
from alignlib.packed import Packed
from alignlib.recipe import Recipe
from alignlib.run import Run
from alignlib.tokens import Example


class Objective(Protocol):
    """A loss to train on."""

    def size(self, example: Example) -> float:
        """What the example adds to the global batch's denominator: 1, its tokens, its groups."""

    def __call__(self, model: Packed, batch: Pack) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss SUMMED over the batch, and figures to log, each summed over the batch's examples."""


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


# -- the order of the data -----------------------------------------------------------------------------------


def steps_in(examples: Sequence[Example], recipe: Recipe) -> int:
    """Steps of the whole run; an epoch's last batch may be small but is never dropped."""
    return recipe.steps or max(1, math.ceil(steps_an_epoch(examples, recipe) * recipe.epochs))


def steps_an_epoch(examples: Sequence[Example], recipe: Recipe) -> int:
    return math.ceil(len(examples) / recipe.batch_size)


def batch_at(step: int, examples: Sequence[Example], recipe: Recipe) -> list[int]:
    """The examples of a step, counted from 0: a function of the seed and the step alone."""
    epoch, place = divmod(step, steps_an_epoch(examples, recipe))
    generator = torch.Generator().manual_seed(((recipe.seed << 20) + epoch) % 2**63)
    order = torch.randperm(len(examples), generator=generator).tolist()
    return order[place * recipe.batch_size:(place + 1) * recipe.batch_size]


def packs_at(step: int, model: Packed, examples: Sequence[Example], recipe: Recipe) -> Iterator[Pack]:
    """The step's packs."""
    for indices in plan(examples, batch_at(step, examples, recipe), recipe.pack_tokens, shared=model.shared):
        yield model.pack([examples[i] for i in indices], indices)


def packs_of(model: Packed, examples: Sequence[Example], recipe: Recipe) -> Iterator[Pack]:
    """Packs of all examples, each once."""
    for indices in plan(examples, range(len(examples)), recipe.pack_tokens, shared=model.shared):
        yield model.pack([examples[i] for i in indices], indices)


# -- the loop ------------------------------------------------------------------------------------------------


def fit(model: Packed, examples: Sequence[Example], objective: Objective, recipe: Recipe, run: Run,
        *, held_out: Sequence[Example] = (), best: str | None = None) -> dict:
    """Train `model` on `examples`, save it in the run's folder, return the final figures.

    held_out  evaluated every recipe.eval_every steps and at the end
    best      a figure of the evaluation: the model saved is the one where it was highest
    """
    run.begin()
    adapt(model, recipe)
    total = steps_in(examples, recipe)
    every = recipe.eval_every or steps_an_epoch(examples, recipe)
    saves = math.ceil(recipe.save_every * (total if recipe.save_every < 1 else 1)) if recipe.save_every else 0
    engine = Single(model.model, recipe, total)
    state = {"step": 0, "best": None, "best_step": None}
    if run.checkpoint:
        state = engine.load(run.checkpoint)
        if adapters := state.pop("adapters", None):
            model.model.load_state_dict(adapters, strict=False)
    entry = run.last_entry(state["step"])
    stop = on_sigterm()
    if recipe.gradient_checkpointing:
        new = hasattr(model.core, "activation_checkpointing_enable")  # transformers 5.17 has the old name only
        enable = model.core.activation_checkpointing_enable if new else model.core.gradient_checkpointing_enable
        enable({"use_reentrant": False})
    model.model.train()
    for step in options.progress(range(state["step"], total), initial=state["step"], total=total, unit="step"):
        started = time.monotonic()
        entry = {"step": step + 1, "epoch": round((step + 1) / steps_an_epoch(examples, recipe), 4)}
        entry |= train_step(step, model, examples, objective, recipe, engine)
        entry["tokens_per_second"] = round(entry["tokens"] / (time.monotonic() - started), 1)
        if held_out and ((step + 1) % every == 0 or step + 1 == total):
            entry |= {f"eval_{name}": value for name, value in evaluate(model, held_out, objective, recipe).items()}
            if best and (state["best"] is None or entry[f"eval_{best}"] > state["best"]):
                state |= {"best": entry[f"eval_{best}"], "best_step": step + 1}
                keep_best(model, run.folder)
        run.log(entry)
        if stop() or (saves and (step + 1) % saves == 0):
            run.save(model, engine, **{**state, "step": step + 1}, **adapter_weights(model))
        if stop():
            raise options.Terminated(f"stopped by SIGTERM after step {step + 1}; --resume goes on")
    if best and held_out:
        model.core.load_state_dict(torch.load(run.folder / "best.pt", weights_only=True))
        entry |= {f"best_{best}": state["best"], "best_step": state["best_step"]}  # the model that is kept
    run.finish(model, entry)
    return entry


def train_step(step: int, model: Packed, examples: Sequence[Example], objective: Objective, recipe: Recipe,
               engine: Single) -> dict[str, float]:
    """One step of the optimizer on a global batch; the loss is normalised by the batch's size, however it is split."""
    indices = batch_at(step, examples, recipe)
    size = sum(objective.size(examples[i]) for i in indices) or 1  # cut, empty completions leave nothing to learn
    loss, tokens, figures = 0.0, 0, {}
    for batch in packs_at(step, model, examples, recipe):
        part, more = objective(model, batch)
        engine.backward(part / size)
        loss += part.item() / size
        tokens += batch.tokens
        for name, value in more.items():
            figures[name] = figures.get(name, 0.0) + value.item() / len(indices)
    taken = engine.step()
    for name, value in {"loss": loss, "gradient's norm": taken["grad_norm"]}.items():
        if not math.isfinite(value):
            raise FloatingPointError(f"the {name} is {value} at step {step + 1}")
    return {"loss": loss, **figures, **taken, "tokens": tokens}


@torch.no_grad()
def evaluate(model: Packed, examples: Sequence[Example], objective: Objective, recipe: Recipe) -> dict[str, float]:
    """The objective's loss and figures over all examples, each counted once."""
    size = sum(map(objective.size, examples))
    result: dict[str, float] = {"loss": 0.0}
    for batch in packs_of(model, examples, recipe):
        loss, figures = objective(model, batch)
        result["loss"] += loss.item() / size
        for name, value in figures.items():
            result[name] = result.get(name, 0.0) + value.item() / len(examples)
    return result


@torch.no_grad()
def reference(model: Packed, examples: Sequence[Example], recipe: Recipe, run: Run,
              logps: Callable[[Pack], Tensor], held_out: Sequence[Example] = ()) -> None:
    """Set `ref_logps` in the examples' values: `logps` of the packs that training and evaluation will see first.

    In the very same packs, so that a policy that is its own reference starts at a log-ratio of exactly 0.
    Computed once; a resumed run, whose policy has moved, reads them from its folder.
    """
    run.begin()
    file = run.folder / "ref_logps.pt"
    if file.exists():
        found = torch.load(file, weights_only=True)
    else:
        needed = min(steps_in(examples, recipe), steps_an_epoch(examples, recipe))
        steps = options.progress(range(needed), unit="step", desc="reference")
        first = (batch for step in steps for batch in packs_at(step, model, examples, recipe))
        found = [{index: row for batch in packs
                  for index, row in zip(batch.indices, logps(batch).tolist(), strict=True)}
                 for packs in (first, packs_of(model, held_out, recipe))]
        torch.save(found, file.with_suffix(".tmp"))
        os.replace(file.with_suffix(".tmp"), file)
    for some, rows in zip((examples, held_out), found, strict=True):
        for index, row in rows.items():
            some[index].values["ref_logps"] = row


def on_sigterm() -> Callable[[], bool]:
    """From now on SIGTERM asks instead of killing: a function that says whether it came."""
    came = []
    signal.signal(signal.SIGTERM, lambda *_: came.append(True))
    return lambda: bool(came)


# -- adapters ------------------------------------------------------------------------------------------------


def adapt(model: Packed, recipe: Recipe) -> None:
    """With --lora, freeze the model and put adapters on all its linear layers but the head."""
    if not recipe.lora:
        return
    import peft

    torch.manual_seed(recipe.seed)
    head = ["score"] if hasattr(model.core, "score") else None
    config = peft.LoraConfig(r=recipe.lora, lora_alpha=2 * recipe.lora, target_modules="all-linear",
                             modules_to_save=head)
    model.model = peft.get_peft_model(model.core, config)
    model.core = model.model.get_base_model()


def adapter_weights(model: Packed) -> dict:
    """What trains, where that is not the whole model: for a checkpoint, whose folder holds the merged weights."""
    if model.model is model.core:
        return {}
    return {"adapters": {name: weight.detach().cpu() for name, weight in model.model.named_parameters()
                         if weight.requires_grad}}


def keep_best(model: Packed, folder: Path) -> None:
    torch.save(model.core.state_dict(), folder / "best.tmp")
    os.replace(folder / "best.tmp", folder / "best.pt")
