r"""Rewards by program: the user's own code, named on the command line, or a rule, where a reward model may stand.

    py:FILE.py:FUNCTION   FUNCTION(record, completions) gives as many numbers
    cmd:PROGRAM           one process: {prompt or messages, completion, ...} a line in, a number a line out
    re:PATTERN            1 where the regular expression is found in a completion, else 0
    length                a completion's words
    math                  1 where its last number, or what is in its \boxed{}, is the record's `answer`, else 0
    toy:NAME              the toy world's oracle of that name
"""

import contextlib
import copy
import re
import shlex
import sys
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from importlib import util
from itertools import islice
from math import isfinite
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, Self

import click

from alignlib.records import fields
from alignlib.records.jsonl import Record, dumps
from alignlib.rewards.final_answers import is_right
from alignlib.rewards.worker import Worker, WorkerFailure
from alignlib.toy import world

PREFIXES = ("py:", "cmd:", "re:", "toy:")
RULES = ("length", "math")
TIMEOUT = 300.0  # seconds of silence
WEIGHT = re.compile(r"([+-]?(?:(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|nan|inf)):(.*)", re.DOTALL)
Asked = tuple[str, Any]  # where a record stands ("scored.jsonl:17"), and what `prepare` made of it


class RewardFailure(click.ClickException):
    """A program gave no reward: the record, the program and the reason, in one line. `reason` leaves the record out."""

    def __init__(self, where: str, name: str, reason: str):
        super().__init__(f"{where}: {name}: {reason}")
        self.reason = f"{name}: {reason}"


def is_program(name: str) -> bool:
    """Whether it names a program or a rule, not a model. A folder called like a rule is ./length.

    Raises UsageError for one with a weight: who takes several rewards has taken that off.
    """
    if (weighted := WEIGHT.fullmatch(name)) and not Path(name).exists():
        raise click.UsageError(f"{name}: one reward alone has no weight: {weighted[2]}")
    return name.startswith(PREFIXES) or name in RULES


def program_for(name: str, timeout: float = TIMEOUT) -> "Program":
    """The program of a name for which `is_program`. Raises UsageError for one that is not there."""
    kind, _, rest = name.partition(":")
    if kind == "py":
        return Function(name)
    if kind == "cmd":
        return Command(name, timeout)
    if kind == "re":
        try:
            pattern = re.compile(rest)
        except re.error as error:
            raise click.UsageError(f"{name}: {error}") from error
        return Rule(name, lambda record, text: float(pattern.search(text) is not None))
    if kind == "toy":
        if rest not in world.ORACLES:
            raise click.UsageError(f"{name}: no such oracle; there are {', '.join(world.ORACLES)}")
        return Rule(name, lambda record, text: world.score(rest, record["prompt"], text), must_have_a_prompt)
    if name == "length":
        return Rule(name, lambda record, text: float(len(text.split())))
    return Rule(name, lambda record, text: float(is_right(text, record["answer"])), must_have_an_answer)


def files_of(name: str) -> tuple[str, ...]:
    """The name and the files of a program: what a resumed run must find as they were."""
    kind, _, rest = name.partition(":")
    if kind == "py":
        return name, rest.rpartition(":")[0]
    if kind != "cmd":
        return (name,)
    with contextlib.suppress(ValueError):  # `program_for` says it
        return name, *(word for word in shlex.split(rest) if Path(word).is_file())
    return (name,)


def must_have(name: str, why: str, record: Record) -> None:
    if name not in record:
        raise ValueError(f"{name}: missing{why}")
    fields.FIELDS[name].check(record[name], name)


must_have_a_prompt = partial(must_have, "prompt", " (an oracle reads no messages)")
must_have_an_answer = partial(must_have, "answer", ": what math compares with (al-data gsm8k writes it)")


class Program(ABC):
    """A reward (rewards.reward) that is no model.

    window  records that are asked about together
    worker  its process, where it has one; `last` is the record that it was asked about last
    """

    window, tokens = 1, 0
    cut: Mapping[str, int] = {}
    worker: Worker | None = None
    last = "no record"

    def __init__(self, name: str):
        self.name = name

    def prepare(self, record: Record) -> Record:
        """The record, which it can judge completions of. Raises ValueError for one that it cannot."""
        return record

    @abstractmethod
    def score(self, asked: Sequence[Asked]) -> list[list[float]]:
        """One finite number a completion of each record. Raises RewardFailure."""

    def number(self, where: str, value: Any, place: int) -> float:
        """What a program gave for completion `place`, as a finite number. Raises RewardFailure."""
        try:
            if hasattr(type(value), "__float__") and isfinite(number := float(value)):
                return number
        except (TypeError, ValueError, OverflowError, RuntimeError):  # arrays of several numbers, too large ones
            pass
        shown = repr(value) if len(repr(value)) <= 40 else f"{repr(value)[:40]}..."
        raise RewardFailure(where, self.name, f"completions[{place}]: expected a finite number, got {shown}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        """End what was started. Raises RewardFailure for what shows at the end only, where nothing else was raised."""
        if self.worker and kind:
            self.worker.end()
        elif self.worker:
            try:
                self.worker.finish()
            except WorkerFailure as failure:
                raise RewardFailure(self.last, self.name, str(failure)) from failure


class Rule(Program):
    """A function of a record and a completion; `check` refuses records that it cannot judge."""

    def __init__(self, name: str, rule: Callable[[Record, str], float],
                 check: Callable[[Record], None] = lambda record: None):
        super().__init__(name)
        self.rule, self.check = rule, check

    def prepare(self, record: Record) -> Record:
        self.check(record)
        return record

    def score(self, asked: Sequence[Asked]) -> list[list[float]]:
        return [[self.rule(record, text) for text in record["completions"]] for _, record in asked]


class Function(Program):
    """py:FILE.py:FUNCTION. What it prints goes to stderr; the record that it is given is a copy."""

    def __init__(self, name: str):
        super().__init__(name)
        self.file, _, function = name.removeprefix("py:").rpartition(":")
        if not self.file:
            raise click.UsageError(f"{name}: expected py:FILE.py:FUNCTION")
        module = load_file(name, self.file)
        self.function: Any = getattr(module, function, None)
        if not callable(self.function):
            own = [key for key, value in vars(module).items()
                   if callable(value) and getattr(value, "__module__", "") == module.__name__]
            raise click.UsageError(f"{name}: no function {function} there, only {', '.join(own) or 'nothing'}")

    def score(self, asked: Sequence[Asked]) -> list[list[float]]:
        return [self.call(where, record) for where, record in asked]

    def call(self, where: str, record: Record) -> list[float]:
        """What the function gives. Raises RewardFailure, also for an exception in it."""
        texts = list(record["completions"])
        try:
            with contextlib.redirect_stdout(sys.stderr):
                given = self.function(copy.deepcopy(record), texts)
                values = list(given) if isinstance(given, Iterable) and not isinstance(given, str | Mapping) else None
        except (Exception, SystemExit) as error:
            raise RewardFailure(where, self.name, in_words(error, self.file)) from error
        count = len(record["completions"])
        if values is None or len(values) != count:
            got = type(given).__name__ if values is None else len(values)
            raise RewardFailure(where, self.name, f"expected {count} numbers, one a completion, got {got}")
        return [self.number(where, value, place) for place, value in enumerate(values)]


def load_file(name: str, file: str) -> ModuleType:
    """A Python file, run as the module that it is called like; its folder's other files can be imported by it."""
    path = Path(file).resolve()
    if not path.is_file() or path.suffix != ".py":
        raise click.UsageError(f"{name}: {file}: {'no .py' if path.is_file() else 'no such'} file")
    module = sys.modules.get(path.stem)
    if module is not None and getattr(module, "__file__", None) == str(path):
        return module  # another function of it
    spec = util.find_spec(path.stem) if module is None and path.stem.isidentifier() else None
    if module is not None or spec and spec.origin != str(path):
        raise click.UsageError(f"{name}: there is a module {path.stem} already: call the file otherwise")
    own = util.spec_from_file_location(path.stem, path)
    assert own and own.loader  # it ends with .py
    module = sys.modules[path.stem] = util.module_from_spec(own)
    sys.path.append(str(path.parent))
    try:
        with contextlib.redirect_stdout(sys.stderr):
            own.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[path.stem]
        raise click.UsageError(f"{name}: cannot be imported: {in_words(error, file)}") from error
    return module


def in_words(error: BaseException, file: str) -> str:
    """An exception in one line, with the last line of the file that it went through."""
    path = str(Path(file).resolve())
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
    text = " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")
    return f"{text} ({Path(file).name}:{lines[-1]})" if lines else text


class Command(Program):
    """cmd:PROGRAM. One that has failed is started anew for the next record."""

    def __init__(self, name: str, timeout: float):
        super().__init__(name)
        self.worker: Worker = Worker(name.removeprefix("cmd:"), timeout)

    def score(self, asked: Sequence[Asked]) -> list[list[float]]:
        answers = self.worker.answers([line for _, record in asked for line in request_lines(record)])
        try:
            rewards = []
            for self.last, record in asked:
                rewards.append(self.read_row(self.last, len(record["completions"]), answers))
            next(answers, None)  # which looks for lines that are too many
        except WorkerFailure as failure:
            self.worker.end()
            raise RewardFailure(self.last, self.name, str(failure)) from failure
        except RewardFailure:
            self.worker.end()
            raise
        return rewards

    def read_row(self, where: str, count: int, answers: Iterator[bytes]) -> list[float]:
        """The numbers of a record's completions. Raises RewardFailure."""
        row: list[float] = []
        try:
            for line in islice(answers, count):
                row.append(self.number(where, parsed(line), len(row)))
        except WorkerFailure as failure:
            raise RewardFailure(where, self.name, f"{failure} ({len(row)} of {count} numbers)") from failure
        return row


def parsed(line: bytes) -> float | str:
    """The number in a line; of what is no number the text."""
    text = line.decode(errors="replace").strip()
    try:
        return text if "_" in text else float(text)
    except ValueError:
        return text


def request_lines(record: Record) -> list[bytes]:
    """What the program reads: a line for each completion, with the record's fields that are of no completion."""
    bare = fields.without_completions(record)
    return [dumps({**bare, "completion": text}) for text in record["completions"]]
