"""The one training loop: batches, steps, evaluations, checkpoints, the end."""

import math
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, Protocol

import click
import torch
from torch import Tensor

from alignlib import ranks
from alignlib.cli import bars, exits
from alignlib.models import checkpoint
from alignlib.models.example import Example
from alignlib.models.policy import Model
from alignlib.records.disk import whole
from alignlib.training.adapters import add_adapters
from alignlib.training.batches import Batches, mixed, part_of
from alignlib.training.engine import Engine, cure
from alignlib.training.examples import Examples
from alignlib.training.objective import Objective
from alignlib.training.passes import M, evaluate, measure, train_step
from alignlib.training.recipe import Recipe
from alignlib.training.run_folder import Run
from alignlib.training.zero import engine_for


class Halted(click.ClickException):
    """A course cannot take its step or evaluate, for a reason outside of it, and has not begun to learn from it."""


class Course(Protocol):
    """What the steps of a run are, on every rank alike.

    steps, an_epoch  in all, and once through the input
    updates          steps of the optimizer in all
    judged           whether there is anything to evaluate on
    objective        whose state goes into checkpoints
    """

    @property
    def steps(self) -> int: ...

    @property
    def an_epoch(self) -> int: ...

    @property
    def updates(self) -> int: ...

    @property
    def judged(self) -> bool: ...

    @property
    def objective(self) -> Objective[Any]: ...

    def begin(self, run: Run) -> None:
        """The run has begun, and is about to take its first step, or to go on from a checkpoint."""

    def learn(self, step: int, engine: Engine) -> dict[str, Any]:
        """Take a step, counted from 0: its figures, `loss`, `grad_norm`, `lr` and `tokens` among them.

        Raises Halted.
        """

    def evaluate(self, engine: Engine, bar: bars.Bar) -> dict[str, float]:
        """The figures of what is held out. Raises Halted."""


@dataclass
class Supervised(Generic[M]):
    """A Course through examples that are there from the beginning: each step a batch of them."""

    model: M
    examples: Examples
    objective: Objective[M]
    recipe: Recipe
    held_out: Sequence[Example] = ()
    batches: Batches = field(init=False)

    def __post_init__(self) -> None:
        self.batches = Batches(self.objective.order(self.examples, self.recipe.batch_size), self.recipe)

    @property
    def steps(self) -> int:
        return len(self.batches)

    @property
    def updates(self) -> int:
        return len(self.batches)

    @property
    def an_epoch(self) -> int:
        return self.batches.an_epoch

    @property
    def judged(self) -> bool:
        return bool(self.held_out)

    def begin(self, run: Run) -> None:
        """All is there."""

    def learn(self, step: int, engine: Engine) -> dict[str, Any]:
        indices = self.batches.at(step)
        self.objective.before(step, indices, self.examples, partial(measure, self.model, engine, self.recipe))
        return train_step(indices, self.model, self.examples, self.objective, self.recipe, engine)

    def evaluate(self, engine: Engine, bar: bars.Bar) -> dict[str, float]:
        return evaluate(self.model, self.held_out, self.objective, self.recipe, engine, bar)


def fit(model: M, examples: Examples, objective: Objective[M], recipe: Recipe, run: Run,
        *, held_out: Sequence[Example] = (), best: str | None = None) -> dict[str, Any]:
    """Train `model` on `examples`, as `follow`; held_out: evaluated every recipe.eval_every steps and at the end."""
    return follow(Supervised(model, examples, objective, recipe, held_out), model, recipe, run, best)


def follow(course: Course, model: Model, recipe: Recipe, run: Run, best: str | None = None) -> dict[str, Any]:
    """Train `model` along the course, save it in the run's folder, return the final figures.

    best  a figure of the evaluation: the model saved is the one where it was highest
    """
    engine = start(model, course.updates, recipe, run)
    every = recipe.eval_every or course.an_epoch
    total, saves = course.steps, steps_between_checkpoints(recipe, course.steps)
    state: dict[str, Any] = {"step": 0, "best": None, "best_step": None}
    if run.checkpoint:
        state = engine.load(run.checkpoint)
        if best and state["best"] is not None and ranks.first():
            best_weights(run)  # now, not when all is done
    course.objective.state |= state.pop("objective", {})
    halted: dict[str, Any] = state.pop("entry", {})  # of a step that was taken, whose evaluation was halted
    first = state["step"] - bool(halted)
    entry = run.last_entry(first)
    stop_requested = on_sigterm()
    prepare(model, recipe)
    course.begin(run)
    saved = {state["step"]}

    def save(done: int, **more: Any) -> None:
        if done not in saved:
            saved.add(done)
            learnt = {"objective": course.objective.state} if course.objective.state else {}
            with bar.during(f"saving checkpoint-{done}"):
                run.save(model, engine, **{**state, "step": done, **learnt, **more})

    with bars.Bar(total, first, name=run.fixed["command"], unit="steps", stays=True,
                  where=bars.terminal(sys.stderr, sys.stdout)) as bar:
        for step in range(first, total):
            entry, halted = halted or or_save(partial(take, course, step, engine, recipe), step, save), {}
            if course.judged and ((step + 1) % every == 0 or step + 1 == total):
                found = or_save(partial(course.evaluate, engine, bar), step + 1, partial(save, entry=entry))
                entry |= {f"eval_{name}": value for name, value in found.items()}
                bar.note(evaluation(entry))
                if best and (state["best"] is None or entry[f"eval_{best}"] > state["best"]):
                    state |= {"best": entry[f"eval_{best}"], "best_step": step + 1}
                    keep_best(run, engine)
            run.log(entry)
            bar.reach(step + 1, f"loss={entry['loss']:.4g}")
            stop = any(ranks.gather(stop_requested() or ranks.orphaned()))
            if stop or (saves and (step + 1) % saves == 0):
                save(step + 1)
            if stop:
                raise exits.Terminated(f"stopped by SIGTERM after step {step + 1}; --resume goes on")
        kept = bool(best and course.judged)
        if kept:
            entry |= {f"best_{best}": state["best"], "best_step": state["best_step"]}
        weights = engine.weights() if not kept else best_weights(run) if ranks.first() else None
        with bar.during("saving the model"):
            run.finish(model, entry, weights)
        return entry


def prepare(model: Model, recipe: Recipe) -> None:
    """Have the model pass as the recipe says, from now on in training."""
    if recipe.gradient_checkpointing:
        model.checkpoint_activations()
    if recipe.compile:
        model.compile_layers()
    model.model.train()


def take(course: Course, step: int, engine: Engine, recipe: Recipe) -> dict[str, Any]:
    """Take a step, counted from 0: its entry in the log, but for an evaluation. Raises Halted, FloatingPointError."""
    started = time.monotonic()
    entry = {"step": step + 1, "epoch": round((step + 1) / course.an_epoch, 4)}
    if recipe.lora_dropout:  # what is left out in a step follows from its number, after a kill too
        torch.manual_seed(mixed(recipe.seed, step * ranks.size() + ranks.rank()))
    entry |= course.learn(step, engine)
    must_be_finite(entry)
    course.objective.stepped(entry)
    entry["tokens_per_second"] = round(entry["tokens"] / (time.monotonic() - started), 1)
    return entry


def or_save(work: Callable[[], dict[str, Any]], done: int, save: Callable[[int], None]) -> dict[str, Any]:
    """What `work` gives; where the course is Halted, `save` keeps the steps `done`, and it says so. Raises Halted."""
    try:
        return work()
    except Halted as halt:
        if not done:
            raise
        save(done)
        raise Halted(f"{halt.message}; stopped after step {done}, --resume goes on") from halt


def start(model: Model, updates: int, recipe: Recipe, run: Run) -> Engine:
    """Begin the run: its folder, the adapters of --lora, its engine, which will take so many steps.

    Only the first call does anything.
    """
    if run.engine is None:
        add_adapters(model, recipe)
        run.begin()
        run.engine = engine_for(model, recipe, updates, run.checkpoint)
    return run.engine


def steps_between_checkpoints(recipe: Recipe, total: int) -> int:
    """--save-every in steps, of which there are `total` in all; 0: no checkpoints."""
    return part_of(total if recipe.save_every < 1 else 1, recipe.save_every) if recipe.save_every else 0


def must_be_finite(entry: dict[str, Any]) -> None:
    """Losses and gradients, a critic's too. Raises FloatingPointError."""
    for name, value in entry.items():
        if name.endswith(("loss", "grad_norm")) and value is not None and not math.isfinite(value):
            words = name.replace("grad_norm", "gradient's norm").replace("_", " ")
            raise FloatingPointError(f"the {words} is {value} at step {entry['step']}")


def evaluation(entry: dict[str, Any]) -> str:
    """What a step's evaluation found, in a line."""
    figures = (f"{name} {value:.4g}" for name, value in entry.items() if name.startswith("eval_"))
    return f"step {entry['step']}: {', '.join(figures)}"


def on_sigterm() -> Callable[[], bool]:
    """From now on SIGTERM asks instead of killing: a function that says whether it came."""
    signals: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: signals.append(number))
    return lambda: bool(signals)


def best_weights(run: Run) -> dict[str, Tensor]:
    """Those that `keep_best` has kept, mapped. Raises UsageError."""
    try:
        return checkpoint.tensors(run.folder / "best.pt")
    except click.UsageError as error:
        again = f"; {cure(run.checkpoint)}" if run.checkpoint else ""
        raise click.UsageError(f"{error.message}{again}") from error


def keep_best(run: Run, engine: Engine) -> None:
    """Keep the weights as they are now for the end."""
    weights = engine.weights()
    if ranks.first():
        with whole(run.folder / "best.pt") as handle:
            torch.save(weights, handle)
