"""What every command has: its options, its last line on stderr.

    @options.command(reads=("prompt", "completions"), writes=("rewards",))
    @click.argument("model")
    @options.filter_options
    def main(model, files, output, resume, on_error, rejects, shard): ...
"""

import functools
import gc
import hashlib
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Any, TypeVar

import click
import orjson
from click.core import ParameterSource

from alignlib import __version__, waits
from alignlib.cli import bars, rules
from alignlib.cli.exits import Command, Group
from alignlib.cli.paths import OutputFile, fingerprint, in_utf8, keep_files_apart, must_be_regular, must_exist
from alignlib.cli.sections import FIRST, LAST, Function, section, titles
from alignlib.records.conversations import reader
from alignlib.records.fields import schema
from alignlib.records.finished import must_be_whole
from alignlib.records.jsonl import Record
from alignlib.records.shown import say
from alignlib.records.stream import Stream

C = TypeVar("C", bound=Command)

def command(reads: tuple[str, ...] = (), writes: tuple[str, ...] | str = (), *, may: tuple[str, ...] = (),
            **settings: Any) -> Callable[[Function], Command]:
    """A click command whose --schema says what it reads, must and may, and writes (`fields.schema`)."""
    return _declare(Command, reads, may, writes, settings)


def group(reads: tuple[str, ...] = (), writes: tuple[str, ...] | str = (), *, may: tuple[str, ...] = (),
          **settings: Any) -> Callable[[Function], Group]:
    """A command of several subcommands, as `command`."""
    return _declare(Group, reads, may, writes, settings)


def _declare(cls: type[C], reads: tuple[str, ...], may: tuple[str, ...], writes: tuple[str, ...] | str,
             settings: dict[str, Any]) -> Callable[[Function], C]:
    described = schema(reads, may, writes)

    def decorate(function: Function) -> C:
        @functools.wraps(function)
        def body(*args: Any, **given: Any) -> Any:
            keep_files_apart(click.get_current_context())
            return function(*args, **given)

        declared = click.command(cls=cls, context_settings=CONTEXT, **settings)(body)
        declared.sections, declared.rules = titles(function), rules.declared(function)
        add_common_options(declared, described)
        if writes == LOG:
            declared.logs, declared.own = True, "What is learnt"
        return declared

    return decorate


LOG = "one entry a step: step, epoch, loss, the loss's own figures, grad_norm, lr, tokens, tokens_per_second"
FIGURES = "one result: what, the labels of --set, and figures; a mean is {mean, low, high, n}"

CONTEXT = {"show_default": True, "help_option_names": ["-h", "--help"], "max_content_width": 110}


def add_common_options(command: Command, described: dict[str, Any]) -> None:
    """Give it --schema, which prints `described`, --version and -v; none of them reaches the command's body."""

    def print_schema(context: click.Context, parameter: click.Parameter, value: bool) -> None:
        if value and not context.resilient_parsing:  # the shell asks for a completion
            click.echo(orjson.dumps(described, option=orjson.OPT_INDENT_2))
            context.exit()

    def be_verbose(context: click.Context, parameter: click.Parameter, value: bool) -> None:
        if value:
            context.ensure_object(dict)["verbose"] = True
            warnings.simplefilter("default")

    for add in (
        click.option("--schema", is_flag=True, is_eager=True, expose_value=False, callback=print_schema,
                     help="Print the JSON Schema of what it reads and writes."),
        click.version_option(__version__, message="%(prog)s %(version)s"),
        click.option("-v", "--verbose", is_flag=True, expose_value=False, callback=be_verbose,
                     help="A traceback with an error, and what libraries warn of."),
    ):
        add(command)
    command.sections = {**command.sections} | dict.fromkeys(("schema", "version", "verbose"), LAST)


class Finite(click.FloatRange):
    """A range of finite numbers: nan is in none, though it compares with no border."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number: float = super().convert(value, param, ctx)
        if not isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number

    def _describe_range(self) -> str:
        """What --help says of the bounds: nothing where there are none (click would say x<=None)."""
        return "" if self.min is None and self.max is None else super()._describe_range()


class Seed(click.ParamType[int]):
    """A whole number of 64 bits, its sign included."""

    name = "integer"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        number: int = click.INT.convert(value, param, ctx)
        if not -(1 << 63) <= number < 1 << 63:
            self.fail(f"{value} does not fit 64 bits.", param, ctx)
        return number


class Shard(click.ParamType[tuple[int, int]]):
    """ "2/8", the second of eight, as (2, 8)."""

    name = "I/N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        number, slash, shards = value.partition("/")
        if not (slash and number.isdecimal() and shards.isdecimal() and 1 <= int(number) <= int(shards)):
            self.fail(f"{value}: expected I/N, from 1/N to N/N", param, ctx)
        return int(number), int(shards)


class Files(click.Argument):
    """The input: a resumed run knows it by its bytes, whatever the names."""


class Beside(click.Option):
    """An option that changes nothing in a record: a run may be resumed with another value."""


class Aside(click.Option):
    """An option that may leave records out: with the value `aside` it puts them where --rejects says."""

    def __init__(self, *names: Any, aside: str, **settings: Any) -> None:
        super().__init__(*names, **settings)
        self.aside = aside


files = click.argument("files", cls=Files, nargs=-1, type=click.Path(allow_dash=True))

output_option = section(FIRST, click.option("-o", "--output", cls=Beside, type=OutputFile(),
                                            help="Write here, not to stdout."))

# For commands that read and write records; the body passes them on to `open_stream`.
filter_options = section(
    FIRST,
    files,
    output_option,
    rules.goes_with("--resume", "--output"),
    click.option("--resume", cls=Beside, is_flag=True, help="Go on with a killed run that wrote to the same -o FILE."),
    click.option("--on-error", cls=Aside, aside="skip", type=click.Choice(["fail", "skip"]), default="fail",
                 help="What a bad line does."),
    click.option("--rejects", cls=Beside, type=OutputFile(), help="Where --on-error skip puts bad lines."),
    click.option("--shard", type=Shard(),
                 help="Take the I-th of N blocks of the FILES; the outputs, one after the other, are the whole."),
)


def open_stream(
    files: tuple[str, ...], output: str | None, resume: bool, on_error: str, rejects: str | None,
    shard: tuple[int, int] | None, *, prepare: Callable[[Record], Any] | None = None,
    model: str | tuple[str, ...] | None = None, each: int = 1, show: bool = True, hold: bool = False,
) -> Stream:
    """The Stream of the filter options; its key is every option given to the command, and the models' files.

    show: a bar, where stderr is a terminal at which the input is not being typed
    hold: of a command that needs no time for a record: several may leave at a time
    """
    output = None if output == "-" else output
    if resume and not output:
        raise click.UsageError("--resume needs -o FILE")
    if rejects and not puts_aside():
        raise click.UsageError("--rejects needs --on-error skip")
    must_exist(files)
    if shard:
        must_be_regular(files)
    where = bars.terminal(sys.stderr) if show and not bars.typed(files) else None
    bar = partial(bars.Bar, name=click.get_current_context().command_path, unit="records", where=where)
    stream = Stream(files, output, resume=resume, key=run_key(model), shard=shard, each=each,
                    skip=on_error == "skip", rejects=rejects, prepare=reader(prepare) if prepare else None,
                    hold=hold, bar=bar if where else None)
    if stream.complete and output:
        must_be_whole(output, files, each, aside=puts_aside(), rejects=rejects, part=shard is not None)
        say(f"{output} is complete: nothing to resume")
    return stream


@contextmanager
def loading() -> Iterator[None]:
    """Around the import of torch and transformers, and the making of a model: nobody looks for garbage meanwhile.

    They make some million objects that stay, among which Python would look again and again: a sixth of the time.
    """
    gc.disable()
    try:
        with waits.doing("loading"):
            yield
    finally:
        gc.freeze()  # nor is what stays looked through later
        gc.enable()


def puts_aside() -> bool:
    """Whether any option has the value that puts records aside."""
    context = click.get_current_context()
    return any(context.params[parameter.name] == parameter.aside
               for parameter in context.command.params if isinstance(parameter, Aside) and parameter.name)


def run_key(model: str | tuple[str, ...] | None) -> str:
    """A hash of the command's options, but for those that change nothing in a record, and of its models."""
    context = click.get_current_context()
    beside = {parameter.name for parameter in context.command.params if isinstance(parameter, Files | Beside)}
    options = {name: value for name, value in context.params.items() if name not in beside}
    files = tuple(map(fingerprint, model)) if isinstance(model, tuple) else fingerprint(model) if model else None
    text = repr((context.command.name, __version__, sorted(options.items()), files))
    return hashlib.blake2b(os.fsencode(text), digest_size=16).hexdigest()


def given_options() -> set[str]:
    """The names of the options and arguments that stand on the command line; the others have their defaults."""
    context = click.get_current_context()
    names = {parameter.name for parameter in context.command.params if parameter.name}
    return {name for name in names if context.get_parameter_source(name) == ParameterSource.COMMANDLINE}


def new_folder(path: str, resume: bool = False) -> Path:
    """`path` as a folder to write a model into: it must be new or empty, unless a killed run left it."""
    folder = Path(path)
    nearest = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if in_utf8(path) != path:
        raise click.UsageError(f"{path}: not UTF-8: no model can be read from a folder of such a name")
    if not nearest.is_dir():
        raise click.UsageError(f"{path}: {nearest.name} is a file, not a folder")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise click.UsageError(f"{path}: {nearest} cannot be written to: name a folder elsewhere")
    if not resume and folder.exists() and any(folder.iterdir()):
        begun = "; --resume goes on with the run that it holds" if (folder / "started.json").exists() else ""
        raise click.UsageError(f"{path}: exists and is not empty{begun}")
    return folder


class Summary:
    """Counts what a command did; `close` prints the last line: counts, tokens, seconds, rate.

    >>> summary = Summary(); summary.count(records=1, tokens=30); summary.close()
    1 records, 30 tokens, 0.1 s, 300 tokens/s

    What passed before the work `began` is loading, and no part of the rate: 0.1 s + 2.3 s loading, 300 tokens/s.
    """

    def __init__(self) -> None:
        self.start = time.monotonic()
        self.counts: dict[str, float] = {}
        self.name = click.get_current_context().command_path

    def count(self, **amounts: float) -> None:
        for name, amount in amounts.items():
            self.counts[name] = self.counts.get(name, 0) + amount

    def close(self, stream: Stream | None = None, began: float | None = None) -> None:
        """With a stream: its records are counted too, and the work began with its reading."""
        end = time.monotonic()
        if stream is not None:
            self.counts = {"records": stream.written, "skipped": stream.rejected, **self.counts}
            began = stream.began
        began = self.start if began is None else began
        seconds, loading = end - began, began - self.start
        parts = [f"{amount:,} {name.replace('_', ' ')}" for name, amount in self.counts.items()
                 if amount or name in ("records", "tokens")]
        spent = f"{seconds:.1f} s" + (f" + {loading:.1f} s loading" if loading >= 0.05 else "")
        per = next((name for name in ("tokens", "records") if self.counts.get(name)), None)
        rate = [f"{self.counts[per] / max(seconds, 1e-9):,.0f} {per}/s"] if per else []
        print(f"{self.name}: {', '.join([*parts, spent, *rate])}", file=sys.stderr)
