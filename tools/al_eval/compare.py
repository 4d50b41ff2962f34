"""The part of al-eval that compares: results and training logs side by side.

    in    {"what": "reward", "method": "exo-rw", "step": 20, "reward": {"mean": 1.1, "low": 1.0, "high": 1.2, "n": 400}}
          {"what": "kl", "method": "exo-rw", "step": 20, "kl": {"mean": 0.9, "low": 0.8, "high": 1.0, "n": 400}}
    out   {"what": "frontier", "points": [{"method": "exo-rw", "step": 20, "kl": {...}, "reward": {...}}], ...}

    al-eval reward --set method=exo-rw --set step=20 scored.jsonl >> results.jsonl
    al-eval frontier results.jsonl --plot frontier.png
"""

from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

import click

from al_eval import results
from al_eval.results import NamedFile, plot_option, result_files
from alignlib.cli import options, tables
from alignlib.records import jsonl
from alignlib.records.jsonl import Record


@results.command()
@result_files
@click.option("--reward", "name", default="reward", help="The figure that is the reward, e.g. learned_reward.")
@click.option("--cost", type=click.Choice(["kl", "seconds", "share"]), default="kl",
              help="What the reward is bought with; share: a part of the training prompts, in percent.")
@click.option("--title", default="", help="Of the plot.")
@plot_option
def frontier(files: list[NamedFile], name: str, cost: str, title: str, plot: str | None, output: str | None,
             as_json: bool | None) -> None:
    """Reward against KL, seconds or share: a point a checkpoint, a line a method. Reads all input first.

    Reads results of al-eval, one a line: {"method": "exo-rw", "step": 20, "reward": {...}} and {..., "kl": {...}}
    (made with --set method=exo-rw --set step=20; means or bare numbers); those of one method and step are joined.
    `NAME=FILE` gives a file's lines their method. `at_equal_kl` compares methods of several checkpoints: the reward at
    the given KL, on straight lines between checkpoints.
    """
    summary = options.Summary()
    methods: dict[str, list[Record]] = {}
    for (method, step), point in results.read(files, "method", "step", needs=(cost, name)).items():
        methods.setdefault(method, []).append({"step": step, cost: point[cost], "reward": point[name]})
        summary.count(points=1)
    for points in methods.values():
        points.sort(key=lambda point: (point["step"] is not None, point["step"]))
    if plot:
        from al_eval import plots

        plots.frontier(methods, plot, cost=cost, title=title, reward=name.replace("_", " "))
    flat = [{"method": method, **point} for method, points in methods.items() for point in points]
    figures: Record = {"reward_figure": name, "points": flat}
    if cost == "kl":
        figures["at_equal_kl"] = at_equal_kl(methods)
    results.write("frontier", figures, {}, output, as_json)
    summary.close()


def at_equal_kl(methods: dict[str, list[Record]], places: int = 5) -> list[dict[str, float]]:
    """The methods' rewards at KLs that all of them reach: [{"kl": 1.0, "exo-rw": 0.9, "dpo-rw": 0.8}, ...]."""
    from al_eval.metrics import reward_at

    lines = {method: (means(points, "kl"), means(points, "reward"))
             for method, points in methods.items() if len(points) > 1}
    if len(lines) < 2:
        return []
    low, high = max(min(kls) for kls, _ in lines.values()), min(max(kls) for kls, _ in lines.values())
    if low > high:
        return []
    kls = [low + (high - low) * i / (places - 1) for i in range(places)]
    columns = {method: reward_at(*line, at=kls).tolist() for method, line in lines.items()}
    return [{"kl": at, **{method: column[i] for method, column in columns.items()}} for i, at in enumerate(kls)]


def means(points: list[Record], figure: str) -> list[float]:
    """The mean of a figure at each of the points, all of which have it."""
    return [mean for point in points if (mean := tables.mean_of(point[figure])) is not None]


@results.command()
@result_files
@click.option("--field", default="loss", help="What to follow; 'lambda_*' follows all that begin so, a line each.")
@click.option("--smooth", default=1, type=click.IntRange(1),
              help="Plot a running mean over so many logged steps.")
@click.option("--title", default="", help="Of the plot.")
@plot_option
def curve(files: list[NamedFile], field: str, smooth: int, title: str, plot: str | None, output: str | None,
          as_json: bool | None) -> None:
    """Training logs side by side: one JSON object a step, with `step` and FIELD. Reads all input first.

    Lines without FIELD (evaluations, say) are counted as `other`, those where it is null (not finite) as `null`.
    """
    summary = options.Summary()
    logs: list[Record] = []
    series: dict[str, tuple[list[float], list[float]]] = {}
    log_names = [name or ("<stdin>" if path == "-" else str(Path(path).with_suffix(""))) for name, path in files]
    results.must_differ(log_names, "logs")
    for name, (_, path) in zip(log_names, files, strict=True):
        entries = [line.record for line in jsonl.read_all((path,), partial(check_step, field=field))]
        names = sorted({key for entry in entries for key in entry if fnmatchcase(key, field)})
        if entries and not names:
            raise jsonl.DataError(f"{name}: no line has {field}")
        for key in names or [field]:
            steps, values, figures = follow(entries, key)
            series[name if key == field else key if len(files) == 1 else f"{name} {key}"] = steps, values
            logs.append({"log": name, **({} if key == field else {"field": key}), **figures})
            summary.count(steps=len(values))
    if plot:
        from al_eval import plots

        plots.curves(series, plot, field=field.strip("*_").replace("_", " "), smooth=smooth, title=title)
    results.write("curve", {"field": field, "logs": logs}, {}, output, as_json)
    summary.close()


def follow(entries: list[Record], field: str) -> tuple[list[float], list[float], dict[str, float]]:
    """Steps, values of `field`, and its figures: how many, first, last and lowest and highest."""
    steps: list[float] = []
    values: list[float] = []
    skipped = {"other": 0, "null": 0}
    for entry in entries:
        value = entry.get(field)
        if value is None:
            skipped["null" if field in entry else "other"] += 1
        else:
            steps.append(entry["step"])
            values.append(value)
    ends = {"first": values[0], "last": values[-1], "lowest": min(values), "highest": max(values)} if values else {}
    return steps, values, {"n": len(values), **ends, **skipped}


def check_step(record: Record, field: str) -> None:
    """Check that a step of a log has a number as `step` and under each name that `field` matches. Raises ValueError."""
    followed = [name for name in record if fnmatchcase(name, field)]
    for name in ("step", *followed):
        value = record.get(name)
        missing = value is None and (name != "step" or not followed)
        if not missing and type(value) not in (int, float):
            raise ValueError(f"{name}: expected a number, got {jsonl.kind(value)}")


def wide(rows: dict[tuple[Any, ...], Record], wanted: list[str]) -> list[Record]:
    """{(method, value): {figure: mean}} -> a row a method, a column a figure and value; "all" is what has no value."""
    values = dict.fromkeys(value for _, value in rows)
    names = {(name, value): " ".join(([name] if len(wanted) > 1 else []) + ["all" if value is None else str(value)])
             for name in wanted for value in values}
    return [{"method": method, **{column: rows.get((method, value), {}).get(name)
                                  for (name, value), column in names.items()}}
            for method in dict.fromkeys(method for method, _ in rows)]


@results.command()
@result_files
@click.option("--columns", help="Figures to show, in order: reward,kl,winrate,words. By default all means.")
@click.option("--across", metavar="LABEL", help="A column for each value of this label, e.g. domain of al-eval rm.")
@click.option("--markdown", is_flag=True, help="Print Markdown.")
def table(files: list[NamedFile], columns: str | None, across: str | None, markdown: bool, output: str | None,
          as_json: bool | None) -> None:
    """Methods side by side: a row a method, a column a figure with its interval. Reads all input first.

    Reads results of al-eval reward, kl, text, rm (one a line): al-eval table sft=a.json sft=b.json exo-rw=c.json ...
    NAME is the row; lines without a NAME= say their "method" themselves (--set method=NAME). A row joins all files of
    its name; a figure that two of them give differently is an error, and one that none gives stays empty.
    """
    summary = options.Summary()
    rows = results.read(files, "method", *([across] if across else []))
    with_mean = dict.fromkeys(name for row in rows.values() for name, value in row.items() if tables.is_mean(value))
    wanted = columns.split(",") if columns else list(with_mean)
    for name in wanted:
        if rows and not any(name in row for row in rows.values()):
            raise click.UsageError(f"--columns: no file has {name}")
    flat = wide(rows, wanted) if across else [
        {"method": method, **{name: row.get(name) for name in wanted}} for (method,), row in rows.items()]
    summary.count(methods=len(flat))
    if markdown:
        results.write_text(tables.markdown(flat) + "\n", output)
    else:
        results.write("table", {"rows": flat}, {}, output, as_json)
    summary.close()
