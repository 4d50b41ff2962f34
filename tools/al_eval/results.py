"""Results of al-eval: its subcommands' options, and results written, read again, joined by method and step."""

import functools
import sys
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import click
import orjson

from alignlib.cli import options, paths, tables
from alignlib.records import jsonl

READABLE = click.Path(exists=True, dir_okay=False, allow_dash=True)


def command(*reads: str, may: tuple[str, ...] = ()) -> Callable:
    """A subcommand that reads records with these fields, with --json/--table and -o, which `write` takes."""

    def decorate(function: Callable) -> click.Command:
        @functools.wraps(function)
        def body(files, output, **given):
            output = None if output == "-" else output
            names = tuple(file if isinstance(file, str) else file[1] for file in files)
            paths.keep_apart(names, output)
            return function(files=files, output=output, **given)

        made = click.option("--json/--table", "as_json", default=None, show_default=False,
                            help="Which to print; by default a table on a terminal, else JSON.")(body)
        return options.command(reads, options.FIGURES, may=may)(options.output_option(made))

    return decorate


def bootstrap_options(function: Callable) -> Callable:
    function = click.option("--seed", default=0, type=click.IntRange(0), help="Of the bootstrap.")(function)
    return click.option("--resamples", default=1000, type=click.IntRange(1), help="Of the bootstrap.")(function)


def _checked(parse: Callable) -> Callable:
    """`parse` as a click callback: its ValueError becomes a usage error that names the option."""

    def callback(context: click.Context, parameter: click.Parameter, value: object) -> object:
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


def _labels(pairs: Iterable[str]) -> dict:
    """["method=exo-rw", "step=20"] -> {"method": "exo-rw", "step": 20}."""
    found = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not (key and equals):
            raise ValueError(f"{pair}: expected KEY=VALUE")
        try:
            number = orjson.loads(value)
        except orjson.JSONDecodeError:
            number = None
        found[key] = number if type(number) in (int, float) else value
    return found


def _named_files(specs: Iterable[str]) -> list[tuple[str | None, str]]:
    """["a=x.json", "y.json"] -> [("a", "x.json"), (None, "y.json")]; standard input without any."""
    found = []
    for spec in specs or ("-",):
        name, path = spec.split("=", 1) if "=" in spec else (None, spec)
        found.append((name or None, path))
    paths.must_exist(path for _, path in found)
    return found


record_files = click.argument("files", nargs=-1, type=READABLE)
result_files = click.argument("files", nargs=-1, metavar="[[NAME=]FILE]...", callback=_checked(_named_files))
label_option = click.option("--set", "labels", multiple=True, metavar="KEY=VALUE", callback=_checked(_labels),
                            help="Put into the result, e.g. method=exo-rw: what frontier and table go by.")
plot_option = click.option("--plot", type=click.Path(dir_okay=False), callback=_checked(_plottable),
                           help="Draw here: .png, .svg or .pdf by the suffix.")


def write(what: str, figures: Mapping, labels: Mapping, output: str | None, as_json: bool | None) -> None:
    """{what, labels, figures} to `output` or stdout: a line of JSON or a table; None: a table on a terminal.

    orjson writes what is not finite as null: no NaN can leave.
    """
    write_all(what, [figures], labels, output, as_json)


def write_all(what: str, rows: Sequence[Mapping], labels: Mapping, output: str | None, as_json: bool | None) -> None:
    """Several results as `write` does one: a line of JSON each, or one table, which leaves their lists out."""
    taken = [name for name in labels if any(name in figures for figures in rows)]
    if taken:
        raise click.UsageError(f"--set {taken[0]}=...: the result has a {taken[0]} of its own")
    results = [{"what": what} | labels | {"what": what} | figures for figures in rows]  # first, and no label's
    if as_json is None:
        as_json = output is not None or not sys.stdout.isatty()
    if as_json:
        write_text(b"".join(map(jsonl.dumps, results)).decode(), output)
    else:
        flat = [{name: value for name, value in row.items() if not isinstance(value, list)} for row in rows]
        write_text((tables.evaluation(results[0]) if len(rows) == 1 else tables.text(flat)) + "\n", output)


def write_text(text: str, output: str | None) -> None:
    if output is None:
        sys.stdout.write(text)
        return
    with open(output, "w", encoding="utf-8") as handle:
        handle.write(text)


def read(files: Iterable[tuple[str | None, str]], *keys: str) -> dict[tuple, dict]:
    """Results joined by their `keys`: {(method, step): {figure: value}}, in order of appearance.

    A file's name, where it has one, is the `method` of its lines. Raises DataError for a line without a method
    and for two different values of one figure. Figures are means and numbers; the rest of a result is left.
    """
    joined: dict[tuple, dict] = {}
    places: dict[tuple, str] = {}
    for where, row in _rows(files):
        key = tuple(row.get(name) for name in keys)
        point = joined.setdefault(key, {})
        for name, value in row.items():
            if not (tables.is_mean(value) or type(value) in (int, float)) or name in ("step", "records"):
                continue
            if point.get(name, value) != value:
                raise jsonl.DataError(f"{where}: another {name} of {shown(*key)} is at {places[key, name]}")
            point[name] = value
            places[key, name] = where
    return joined


def _rows(files: Iterable[tuple[str | None, str]]) -> Iterator[tuple[str, dict]]:
    for name, path in files:
        given = {"method": name} if name else {}
        for line in jsonl.read_all((path,), lambda row, given=given: _check_row({**row, **given})):
            yield line.where, line.data


def _check_row(row: dict) -> dict:
    if not isinstance(row.get("method"), str):
        raise ValueError("method: expected a string (NAME=FILE gives one)")
    if type(row.get("step", 0)) not in (int, float):
        raise ValueError(f"step: expected a number, got {jsonl.kind(row['step'])}")
    for name, value in row.items():
        for part in ("mean", "low", "high") if tables.is_mean(value) else ():
            if type(value[part]) not in (int, float, type(None)):
                raise ValueError(f"{name}.{part}: expected a number or null, got {jsonl.kind(value[part])}")
    return row


def shown(method: str, step: float | None = None) -> str:
    return method if step is None else f"{method}, step {step}"


class Sample:
    """Numbers, each with the record it came from: all that is kept of the input."""

    def __init__(self) -> None:
        self.values, self.groups = array("d"), array("q")

    def add(self, record: int, values: Iterable[float]) -> None:
        for value in values:
            self.values.append(value)
            self.groups.append(record)

    def mean(self, bootstrap: dict) -> dict:
        from alignlib.stats.metrics import mean_interval

        return mean_interval(self.values, self.groups, **bootstrap)
