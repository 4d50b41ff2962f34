"""One run of a training command: what it was told, the processes that take part, its data, its folder, its summary.

    with session.begin(loss=loss):
        policy = session.load_policy()
        session.read(Likelihood(loss), load.encoder_for(policy, **session.recipe.limits))
        session.fit(policy)

No torch at the top: the commands import this for their --help.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import click

from alignlib import ranks
from alignlib.cli import bars, options, paths
from alignlib.records import jsonl
from alignlib.records.conversations import reader
from alignlib.records.jsonl import Record
from alignlib.training.recipe import Recipe

if TYPE_CHECKING:
    from alignlib.models.adapters import Adapter
    from alignlib.models.encoding import Encoder, Example
    from alignlib.models.policy import Model, Policy
    from alignlib.training.engine import Engine
    from alignlib.training.loop import Course
    from alignlib.training.memory_plan import Adapt
    from alignlib.training.memory_states import Along
    from alignlib.training.objective import Objective
    from alignlib.training.run_folder import Run

Item = TypeVar("Item")
M = TypeVar("M")


class Session:
    """`processes`: of --launch; `plan`: print the memory that the run takes instead of training.

    objective, encoder, examples, held_out  what is trained on, by `read` or `take`
    run                                     its folder, from `begin` on
    adapter                                 what MODEL is where training goes on in an adapter, from `begin` on
    """

    objective: Objective[Any]
    encoder: Encoder
    examples: Sequence[Any]
    held_out: Sequence[Example]
    run: Run
    adapter: Adapter | None

    def __init__(self, model: str, files: tuple[str, ...], recipe: Recipe, *, processes: int | None, plan: bool):
        self.model, self.files, self.recipe, self.processes, self.plan = model, files, recipe, processes, plan
        self.counts: dict[str, int] = {}  # what the summary says besides
        self.summary = options.Summary()  # before anything is loaded

    @contextmanager
    def begin(self, *, reward: bool = False, reference: bool = False, along: Callable[[], Sequence[Along]] = tuple,
              samples: bool = False, adapt: Adapt | None = None, **fixed: object) -> Iterator[None]:
        """Around all of the training: the processes meet, the folder is looked at, the summary ends it.

        fixed               what must be the same when the run is resumed, besides the recipe, the model and the input
        reward              whether a reward model is trained, not a policy
        reference, along, samples, adapt  for --plan: whether a second model stays loaded, which others are there,
                            whether it draws, which weights train (memory_plan.plan)

        --plan and a run that is complete end the command here. Raises UsageError.
        """
        from alignlib.training.adapters import adapter_to_train, add_adapters

        self.adapter = adapter_to_train(self.model, self.recipe, reward)
        if self.adapter:  # what it is trained over
            fixed["base_files"] = paths.fingerprint(self.adapter.base)
        if self.plan:
            from alignlib.training import memory_plan

            if self.adapter:
                adapt = partial(add_adapters, recipe=self.recipe, adapter=self.adapter)
            memory_plan.show(memory_plan.plan(self.model, self.recipe, self.processes or 1, reference=reference,
                                              along=along(), samples=samples, adapt=adapt))
            click.get_current_context().exit()
        if self.recipe.output is None:
            raise click.MissingParameter(param_hint="'-o' / '--output'", param_type="option")
        ranks.join(self.files, self.processes)
        from alignlib.training.run_folder import Run
        from alignlib.training.zero import distributed

        with distributed(self.recipe):
            self.run = Run(self.recipe, {"command": self.summary.name, "model": self.model,
                                         "model_files": paths.fingerprint(self.model), **fixed})
            if self.run.complete:
                click.get_current_context().exit()
            yield
            self.summary.count(records=len(self.examples), **self.counts)
            self.summary.count(skipped=self.run.skipped, **self.encoder.cut, tokens=self.run.tokens)
            self.summary.close(began=self.run.began)

    @property
    def origin(self) -> str:
        """What to load: MODEL, or the newest checkpoint of the run that is resumed; adapters start from MODEL too."""
        return self.model if self.adapter else self.run.start(self.model)

    def load_policy(self) -> Policy:
        """The policy to train."""
        from alignlib.models import load

        return load.load_policy(self.origin, self.recipe.device, self.recipe.dtype, train=True,
                                go_on=self.adapter is not None, four_bits=self.recipe.load_4bit)

    def read(self, objective: Objective[M], encoder: Encoder) -> None:
        """All examples of the input, and those of --eval. Raises DataError, also for no records."""
        def example(record: Record) -> Example:
            return objective.example(encoder, record)

        examples, crc = self.gather(self.files, example)
        self.must_train_on(examples)
        held_out, eval_crc = self.gather([self.recipe.eval], example) if self.recipe.eval else ([], 0)
        if self.recipe.eval and not held_out:
            raise jsonl.DataError(f"{self.recipe.eval}: no records to evaluate on")
        self.run.reads(crc, eval_crc)
        self.take(objective, encoder, examples, held_out)

    def gather(self, files: Sequence[str], prepare: Callable[[Record], Item]) -> tuple[list[Item], int]:
        """What `prepare` makes of the records of `files`, and their checksum; those it Skips are counted in the run."""
        items, crc = [], 0
        where = None if bars.typed(files) else bars.terminal(sys.stderr, sys.stdout)
        total = jsonl.count_ahead(files) if where else None
        with bars.Bar(total, name="reading", unit="records", where=where) as bar:
            for line in jsonl.read(files, reader(prepare)):
                crc = line.crc
                if isinstance(line.error, jsonl.Skip):
                    self.run.skipped += 1
                elif line.error:
                    raise line.failure()
                else:
                    items.append(line.data)
                bar.reach(line.index + 1)
        return items, crc

    def must_train_on(self, examples: Sequence[Any]) -> None:
        """Raises DataError for none, with how many were left out."""
        if not examples:
            left_out = f" ({self.run.skipped} were left out)" if self.run.skipped else ""
            raise jsonl.DataError(f"no records to train on{left_out}")

    def take(self, objective: Objective[M], encoder: Encoder, examples: Sequence[Example],
             held_out: Sequence[Example]) -> None:
        """Train on these, evaluate on those."""
        self.objective, self.encoder, self.examples, self.held_out = objective, encoder, examples, held_out
        objective.settle(examples, held_out)

    def start(self, model: Model) -> Engine:
        """Begin to write into the folder, and make the model ready for training: adapters, engine."""
        from alignlib.training import loop
        from alignlib.training.batches import Batches

        order = self.objective.order(self.examples, self.recipe.batch_size)
        return loop.start(model, len(Batches(order, self.recipe)), self.recipe, self.run)

    def fit(self, model: Model, best: str | None = None) -> None:
        """Train `model`, into the folder; `best`: keep it where this figure of the evaluation was highest."""
        from alignlib.training import loop

        self.follow(loop.Supervised(model, self.examples, self.objective, self.recipe, self.held_out), model, best)

    def follow(self, course: Course, model: Model, best: str | None = None) -> None:
        """Train `model` along a course, as `fit`."""
        from alignlib.training import loop

        if self.recipe.template:  # what the model is trained on goes with it
            model.tokenizer.chat_template = self.recipe.template
        loop.follow(course, model, self.recipe, self.run, best)
