"""Results of al-eval: its subcommands' options, and results written, read again, joined by method and step."""

import functools
import sys
from array import array
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypedDict, TypeVar

import click
import orjson

from alignlib.cli import options, paths, shells, tables
from alignlib.records import disk, jsonl
from alignlib.records.jsonl import Record

if TYPE_CHECKING:  # it takes a while to load
    import numpy as np

    from al_eval.means import Mean

Body = TypeVar("Body", bound=Callable[..., Any])
NamedFile = tuple[str | None, str]  # of [NAME=]FILE the name, if there is one, and the path
KEY = 16  # bytes of a prompt's key
Kind = Literal["d", "I", "B"]
READABLE = click.Path(exists=True, dir_okay=False, allow_dash=True)


class Bootstrap(TypedDict):
    """--resamples and --seed, as `mean_interval` and its like take them."""

    resamples: int
    seed: int


def command(*reads: str, may: tuple[str, ...] = ()) -> Callable[[Callable[..., None]], click.Command]:
    """A subcommand that reads records with these fields, with --json/--table and -o, which `write` takes."""

    def decorate(function: Callable[..., None]) -> click.Command:
        @functools.wraps(function)
        def body(files: Sequence[str | NamedFile], output: str | None, **settings: Any) -> None:
            output = None if output == "-" else output
            function(files=files, output=output, **settings)

        with_form = click.option("--json/--table", "as_json", default=None, show_default=False,
                                 help="Which to print; by default a table on a terminal, else JSON.")(body)
        return options.command(reads, options.FIGURES, may=may)(options.output_option(with_form))

    return decorate


def bootstrap_options(function: Body) -> Body:
    function = click.option("--seed", default=0, type=click.IntRange(0), help="Of the bootstrap.")(function)
    return click.option("--resamples", default=1000, type=click.IntRange(1), help="Of the bootstrap.")(function)


def _checked(parse: Callable[[Any], object]) -> Callable[[click.Context, click.Parameter, Any], object]:
    """`parse` as a click callback: its ValueError becomes a usage error that names the option."""

    def callback(context: click.Context, parameter: click.Parameter, value: Any) -> object:
        try:
            return parse(value)
        except ValueError as error:
            raise click.BadParameter(str(error)) from error

    return callback


def _plottable(path: str | None) -> str | None:
    from al_eval import plots

    if path is not None:
        plots.check_suffix(path)
    return path


def _labels(pairs: Iterable[str]) -> dict[str, str | float]:
    """["method=exo-rw", "step=20"] -> {"method": "exo-rw", "step": 20}."""
    labels: dict[str, str | float] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not (key and equals):
            raise ValueError(f"{pair}: expected KEY=VALUE")
        try:
            number = orjson.loads(value)
        except orjson.JSONDecodeError:
            number = None
        labels[key] = number if type(number) in (int, float) else value
    return labels


def _named_files(specs: Iterable[str]) -> list[NamedFile]:
    """["a=x.json", "y.json"] -> [("a", "x.json"), (None, "y.json")]; standard input without any."""
    files: list[NamedFile] = []
    for spec in specs or ("-",):
        name, path = spec.split("=", 1) if "=" in spec else (None, spec)
        files.append((name or None, path))
    paths.must_exist(path for _, path in files)
    return files


def check_labels(labels: Record, figures: Container[str]) -> None:
    """Raises UsageError for a label that has a figure's name: before any work, of the figures that are known then."""
    for name in labels:
        if name in figures:
            raise click.UsageError(f"--set {name}=...: the result has a {name} of its own")


def must_differ(names: Iterable[str], what: str) -> None:
    """Raises UsageError where two of the names, which are those of `what`, are one."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise click.UsageError(f"{name}: two {what} of one name (NAME=FILE gives another)")
        seen.add(name)


record_files = click.argument("files", nargs=-1, type=READABLE)
result_files = click.argument("files", nargs=-1, metavar="[[NAME=]FILE]...", callback=_checked(_named_files),
                              shell_complete=shells.files)
label_option = click.option("--set", "labels", multiple=True, metavar="KEY=VALUE", callback=_checked(_labels),
                            help="Put into the result, e.g. method=exo-rw: what frontier and table go by.")
plot_option = click.option("--plot", type=paths.OutputFile(), callback=_checked(_plottable),
                           help="Draw here: .png, .svg or .pdf by the suffix.")


def write(what: str, figures: Record, labels: Record, output: str | None, as_json: bool | None) -> None:
    """{what, labels, figures} to `output` or stdout: a line of JSON or a table; None: a table on a terminal.

    orjson writes what is not finite as null: no NaN can leave.
    """
    write_all(what, [figures], labels, output, as_json)


def write_all(what: str, rows: Sequence[Record], labels: Record, output: str | None, as_json: bool | None) -> None:
    """Several results as `write` does one: a line of JSON each, or one table, which leaves their lists out."""
    check_labels(labels, {name for figures in rows for name in figures})
    results = [{"what": what} | labels | {"what": what} | figures for figures in rows]  # first, and no label's
    if as_json is None:
        as_json = output is not None or not sys.stdout.isatty()
    if as_json:
        write_text(b"".join(map(jsonl.dumps, paths.in_utf8(results))).decode(), output)
    else:
        flat = [{name: value for name, value in row.items() if not isinstance(value, list)} for row in rows]
        write_text((tables.evaluation(results[0]) if len(rows) == 1 else tables.text(flat)) + "\n", output)


def write_text(text: str, output: str | None) -> None:
    """To a file that is whole or as it was, or to stdout. Raises DiskFull."""
    if output is None:
        with disk.writing(None):
            click.echo(text.encode(), nl=False)  # UTF-8, as all data, whatever the terminal's encoding
        return
    with disk.whole(output) as handle:
        handle.write(text.encode())


def read(files: Iterable[NamedFile], *keys: str, needs: Sequence[str] = ()) -> dict[tuple[Any, ...], Record]:
    """Results joined by their `keys`: {(method, step): {figure: value}}, in order of appearance.

    A file's name, where it has one, is the `method` of its lines. Raises DataError for a line without a method, for
    two different values of one figure, and for a result that lacks, in all its lines, a figure that it `needs`.
    Figures are means and numbers; the rest of a result is left.
    """
    joined: dict[tuple[Any, ...], Record] = {}
    places: dict[tuple[tuple[Any, ...], str], str] = {}
    last: dict[tuple[Any, ...], str] = {}
    for where, row in _rows(files):
        key: tuple[Any, ...] = tuple(row.get(name) for name in keys)
        point, last[key] = joined.setdefault(key, {}), where
        for name, value in row.items():
            if not (tables.is_mean(value) or type(value) in (int, float)) or name in ("step", "records"):
                continue
            if point.get(name, value) != value:
                raise jsonl.DataError(f"{where}: another {name} of {shown(*key)} is at {places[key, name]}")
            point[name] = value
            places[key, name] = where
    for key, point in joined.items():
        for name in needs:
            if tables.mean_of(point.get(name)) is None:
                raise jsonl.DataError(f"{last[key]}: {shown(*key)}: no {name}")
    return joined


def _rows(files: Iterable[NamedFile]) -> Iterator[tuple[str, Record]]:
    for name, path in files:
        for line in jsonl.read_all((path,), functools.partial(_named_row, name)):
            yield line.where, line.data


def _named_row(name: str | None, row: Record) -> Record:
    """A result under the name of its file, where that has one. Raises ValueError for what is no result."""
    if name:
        row = {**row, "method": name}
    if not isinstance(row.get("method"), str):
        raise ValueError("method: expected a string (NAME=FILE gives one)")
    if type(row.get("step", 0)) not in (int, float):
        raise ValueError(f"step: expected a number, got {jsonl.kind(row['step'])}")
    for figure, value in row.items():
        for part in ("mean", "low", "high") if tables.is_mean(value) else ():
            if type(value[part]) not in (int, float, type(None)):
                raise ValueError(f"{figure}.{part}: expected a number or null, got {jsonl.kind(value[part])}")
    return row


def shown(method: str, step: float | None = None) -> str:
    return method if step is None else f"{method}, step {step}"


class Sample:
    """Numbers, each with the record it came from: all that is kept of the input.

    kind   of an array: "d", any numbers; "I", counts; "B", yes or no
    beside another sample that gets a number whenever this does, and whose records these are
    """

    def __init__(self, kind: Kind = "d", beside: "Sample | None" = None) -> None:
        self.values: array[Any] = array(kind)
        self.groups: array[int] = array("I") if beside is None else beside.groups
        self.beside = beside

    def add(self, record: int, values: Iterable[float]) -> None:
        before = len(self.values)
        self.values.extend(values)
        if self.beside is None:
            self.groups.extend([record] * (len(self.values) - before))

    def mean(self, bootstrap: Bootstrap) -> "Mean":
        """Their mean with its interval, drawn by records."""
        from al_eval.means import mean_interval

        return mean_interval(self.values, self.groups, **bootstrap)


class Prompts:
    """Of which prompt the numbers of each record are: 16 bytes a record, compared once all have been read."""

    def __init__(self) -> None:
        self.keys = bytearray()

    def add(self, key: bytes) -> int:
        """The `prompt_key` of the next record; returns the record's place."""
        self.keys += key
        return len(self.keys) // KEY - 1

    def __iter__(self) -> Iterator[bytes]:
        """The key of each record."""
        return (bytes(self.keys[place:place + KEY]) for place in range(0, len(self.keys), KEY))

    def numbers(self) -> "np.ndarray":
        """0, 1, ... in the order in which the prompts came first, one a record, the same for the same prompt."""
        import numpy as np

        _, first, prompt = np.unique(np.frombuffer(self.keys, dtype=f"S{KEY}"), return_index=True, return_inverse=True)
        places = np.empty(first.size, dtype=np.intp)
        places[np.argsort(first)] = np.arange(first.size)
        numbers: np.ndarray = places[prompt]
        return numbers
