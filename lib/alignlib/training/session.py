"""One run of a training command: what it was told, the processes that take part, its data, its folder, its summary.

    with session.begin(loss=loss):
        policy = session.load_policy()
        session.read(Likelihood(loss), load.encoder_for(policy, **session.recipe.limits))
        session.fit(policy)

No torch at the top: the commands import this for their --help.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import click

from alignlib import ranks, waits
from alignlib.cli import bars, options, paths
from alignlib.records import jsonl
from alignlib.records.conversations import reader
from alignlib.records.jsonl import Record
from alignlib.training.recipe import Recipe, linear_bits, wants_deepspeed

if TYPE_CHECKING:
    from alignlib.models.adapters import Adapter
    from alignlib.models.encoding import Encoder
    from alignlib.models.example import Example
    from alignlib.models.policy import Model, Policy
    from alignlib.training.engine import Engine
    from alignlib.training.examples import Examples
    from alignlib.training.loop import Course
    from alignlib.training.memory_plan import Adapt
    from alignlib.training.memory_states import Along
    from alignlib.training.objective import Objective
    from alignlib.training.run_folder import Run
    from alignlib.training.store import Store

Item = TypeVar("Item")
M = TypeVar("M")


class Source(Protocol):
    """Examples, to be gone through once; or else `skim`med, where a killed run has left them. `crc`: of the input."""

    crc: int

    def __iter__(self) -> Iterator[Example]: ...

    def skim(self) -> None: ...


class Input(Generic[Item]):
    """What `prepare` makes of the records of `files`, one after the other; those it Skips are counted in `run`.

    crc    of what has been read so far
    where  what was read last stands: "prompts.jsonl:17"
    empty  what DataError says where there are none; "": nothing
    """

    def __init__(self, run: Run, files: Sequence[str], prepare: Callable[[Record], Item], empty: str = ""):
        self.run, self.files, self.prepare, self.empty, self.crc, self.where = run, files, prepare, empty, 0, ""

    def __iter__(self) -> Iterator[Item]:
        given = 0
        for line in self.counted(jsonl.read(self.files, reader(self.prepare))):
            if isinstance(line.error, jsonl.Skip):
                self.run.skipped += 1
            elif line.error:
                self.run.leave_out(line.failure())
            else:
                given += 1
                yield line.data
        if not given and self.empty:
            raise jsonl.DataError(self.empty)

    def skim(self) -> None:
        """Read the lines for their checksum alone."""
        for _ in self.counted(jsonl.lines(self.files)):
            pass

    def counted(self, lines: Iterable[jsonl.Line]) -> Iterator[jsonl.Line]:
        """The lines, under a bar."""
        where = None if bars.typed(self.files) else bars.terminal(sys.stderr, sys.stdout)
        total = jsonl.count_ahead(self.files) if where else None
        with bars.Bar(total, name="reading", unit="records", where=where) as bar:
            for line in lines:
                self.crc, self.where = line.crc, line.where
                yield line
                bar.reach(line.index + 1)


class Session:
    """`processes`: of --launch; `plan`: print the memory that the run takes instead of training.

    objective, examples, held_out           what is trained on, by `read` or `take`
    encoder, records                        that reads it, and how many it has read, for the summary; by the same
    run, store                              its folder, and where its examples lie, from `begin` on
    wait                                    until the processes that read have read, from `begin` on
    adapter                                 what MODEL is where training goes on in an adapter, from `begin` on
    """

    objective: Objective[Any]
    encoder: Encoder
    records: int
    examples: Examples
    held_out: Examples
    run: Run
    store: Store
    wait: Callable[[], None]
    adapter: Adapter | None

    def __init__(self, model: str, files: tuple[str, ...], recipe: Recipe, *, processes: int | None, plan: bool):
        self.model, self.files, self.recipe, self.processes, self.plan = model, files, recipe, processes, plan
        self.counts: dict[str, int] = {}  # what the summary says besides
        self.summary = options.Summary()  # before anything is loaded

    @contextmanager
    def begin(self, *, reward: bool = False, along: Callable[[], Sequence[Along]] = tuple, samples: bool = False,
              reference: Callable[[], bool] = bool, adapt: Adapt | None = None, **fixed: object) -> Iterator[None]:
        """Around all of the training: the processes meet, the folder is looked at, the summary ends it.

        fixed               what must be the same when the run is resumed, besides the recipe, the model and the input
        reward              whether a reward model is trained, not a policy
        reference, along, samples, adapt  for --plan: whether a second model stays loaded, which others are there,
                            whether it draws, which weights train (memory_plan.plan)

        --plan and a run that is complete end the command here. Raises UsageError.
        """
        with waits.doing("loading PyTorch"):
            from alignlib.training.adapters import adapter_to_train, plan_adapters

        self.adapter = adapter_to_train(self.model, self.recipe, reward)
        if self.adapter:  # what it is trained over
            fixed["base_files"] = paths.fingerprint(self.adapter.base)
        if self.plan:
            from alignlib.training import memory_plan

            if self.adapter:
                adapt = partial(plan_adapters, recipe=self.recipe, adapter=self.adapter)
            with waits.doing("planning, by passes without numbers"):
                planned = memory_plan.plan(self.model, self.recipe, self.processes or 1, reference=reference(),
                                           along=along(), samples=samples, adapt=adapt)
            memory_plan.show(planned)
            click.get_current_context().exit()
        if self.recipe.output is None:
            raise click.MissingParameter(param_hint="'-o' / '--output'", param_type="option")
        from alignlib.training.zero import distributed

        if self.recipe.compile and (self.processes or wants_deepspeed(self.recipe)):
            raise click.UsageError("--compile is for one device without DeepSpeed")
        ranks.join(self.files, self.processes)
        from alignlib.training.run_folder import Run
        from alignlib.training.store import Store

        with distributed(self.recipe):
            self.run = Run(self.recipe, {"command": self.summary.name, "model": self.model,
                                         "model_files": paths.fingerprint(self.model), **fixed})
            if self.run.complete:
                click.get_current_context().exit()
            self.store, self.wait = Store(self.run), ranks.patient_wait()
            try:
                yield
            except BaseException as error:
                if not self.run.under_way():  # then a failed start leaves nothing: first what it has read
                    self.store.remove()
                self.run.leave_nothing()
                self.store.leave_no_folder()
                if isinstance(error, click.UsageError) and self.run.with_cure(error.message) != error.message:
                    raise click.UsageError(self.run.with_cure(error.message)) from error
                raise
            self.summary.count(records=self.records, **self.counts)
            self.summary.count(skipped=self.run.skipped, **self.encoder.cut, tokens=self.run.tokens)
            self.summary.close(began=self.run.began)

    def apart(self, ref: str | None) -> bool:
        """Whether a reference is a model beside the policy: `ref`, or MODEL without new adapters to switch off."""
        return bool(ref or not self.recipe.lora or self.adapter)

    @property
    def origin(self) -> str:
        """What to load: MODEL, or the newest checkpoint of the run that is resumed; adapters start from MODEL too."""
        return self.model if self.adapter else self.run.start(self.model)

    def load_policy(self) -> Policy:
        """The policy to train."""
        from alignlib.models import load

        return load.load_policy(self.origin, self.recipe.device, self.recipe.dtype, train=True,
                                go_on=self.adapter is not None, bits=self.linear_bits)

    @property
    def linear_bits(self) -> int:
        """What the linear layers of the model that trains are kept in."""
        return linear_bits(self.recipe, frozen=bool(self.recipe.lora or self.adapter))

    def load_reference(self, path: str) -> Policy:
        """The model at `path`, to be asked beside the policy and computed as that is: rounding tells none apart."""
        from alignlib.models import load

        return load.load_policy(path, self.recipe.device, self.recipe.dtype, train=not wants_deepspeed(self.recipe),
                                bits=linear_bits(self.recipe, frozen=True))

    def read(self, objective: Objective[M], encoder: Encoder) -> None:
        """All examples of the input, and those of --eval. Raises DataError, also for no records."""
        def example(record: Record) -> Example:
            return objective.example(encoder, record)

        sources = [Input(self.run, self.files, example)]
        if self.recipe.eval:
            nothing = f"{self.recipe.eval}: no records to evaluate on"
            sources.append(Input(self.run, [self.recipe.eval], example, nothing))
        self.take(objective, encoder, sources)

    def take(self, objective: Objective[M], encoder: Encoder, sources: Sequence[Source]) -> None:
        """Train on the first source, evaluate on the second. On each machine one process reads them into files.

        A resumed run goes on with those that are there. Where this process reads none, `sources` is not looked at.
        """
        if self.store.mine and self.recipe.resume and self.store.take_up():
            for source in sources:
                source.skim()
            self.must_be_same(sources)
        elif self.store.mine:
            with self.store.writing() as writer:
                counts: list[int] = []
                for source in sources:
                    for example in source:
                        writer.add(example)
                    counts.append(len(writer) - sum(counts))
                    self.must_train_on(counts[0])
                self.run.reads(*(source.crc for source in sources))
                found = {"crcs": [source.crc for source in sources], "skipped": self.run.skipped,
                         "counts": [*counts, 0][:2], "cut": encoder.cut, "names": objective.names}
                self.store.finish(writer, found)
        self.wait()
        self.examples, self.held_out = self.store.open()
        self.run.skipped, encoder.cut = self.store.found["skipped"], self.store.found["cut"]
        objective.names = self.store.found["names"]
        self.objective, self.encoder, self.records = objective, encoder, len(self.examples)
        objective.settle(self.examples, self.held_out)

    def must_be_same(self, sources: Sequence[Source]) -> None:
        """Raises UsageError where the input is not what a killed run had read."""
        crcs = [source.crc for source in sources]
        self.run.reads(*crcs)
        if crcs != self.store.found["crcs"]:
            raise click.UsageError(f"{self.run.folder}: cannot resume: the input changed")

    def must_train_on(self, examples: int) -> None:
        """Raises DataError for none, with how many were left out."""
        if not examples:
            left_out = f" ({self.run.skipped} were left out)" if self.run.skipped else ""
            raise jsonl.DataError(f"no records to train on{left_out}")

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
        self.store.remove()

    def follow(self, course: Course, model: Model, best: str | None = None) -> None:
        """Train `model` along a course, as `fit`."""
        from alignlib.training import loop

        if self.recipe.template:  # what the model is trained on goes with it
            model.tokenizer.chat_template = self.recipe.template
        loop.follow(course, model, self.recipe, self.run, best)
