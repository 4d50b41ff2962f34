"""Figures for people: aligned text and Markdown out of what al-eval prints as JSON.

A mean is {mean, low, high, n} and shows as "0.640 [0.621, 0.659]".
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard


def is_mean(value: object) -> TypeGuard[Mapping[str, Any]]:
    """Whether a figure is a mean with its interval."""
    return isinstance(value, Mapping) and {"mean", "low", "high", "n"} <= value.keys()


def mean_of(value: Any) -> float | None:
    """The mean of a figure, or the bare number that it is."""
    return value["mean"] if is_mean(value) else value


def cell(value: object) -> str:
    """One figure: a mean with its interval, two digits of the interval's width shown; "-" for none."""
    if value is None or (is_mean(value) and value["mean"] is None):
        return "-"
    if is_mean(value):
        if value["low"] is None:
            return number(value["mean"])
        width = value["high"] - value["low"]
        if not 0 < width < math.inf:
            return f"{number(value['mean'])} [{number(value['low'])}, {number(value['high'])}]"
        places = min(6, max(0, 1 - math.floor(math.log10(width))))
        return f"{value['mean']:.{places}f} [{value['low']:.{places}f}, {value['high']:.{places}f}]"
    if isinstance(value, list):
        return " to ".join(map(cell, value))
    return number(value) if isinstance(value, float) else str(value)


def number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.4g}"


def grid(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Header and cells of `rows`, whose keys are the columns. The n of means stands in the header where it is the
    same all the way down, else in each cell."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    header: list[str] = []
    body: list[list[str]] = [[] for _ in rows]
    for column in columns:
        values = [row.get(column) for row in rows]
        sizes = {value["n"] for value in values if is_mean(value)}
        label = column.replace("_", " ")
        header.append(f"{label} (n = {sizes.pop():,})" if len(sizes) == 1 else label)
        for out, value in zip(body, values, strict=True):
            out.append(cell(value) + (f" (n = {value['n']:,})" if sizes and is_mean(value) else ""))
    return header, body


def text(rows: Sequence[Mapping[str, Any]]) -> str:
    """`rows` as aligned columns, the first to the left, the others to the right."""
    header, body = grid(rows)
    widths = [max(map(len, column)) for column in zip(header, *body, strict=True)]
    lines = []
    for line in (header, *body):
        cells = [part.rjust(width) for part, width in zip(line, widths, strict=True)]
        cells[0] = line[0].ljust(widths[0])
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """`rows` as a Markdown table, the figures aligned to the right; nothing for no rows."""
    if not rows:
        return ""
    header, body = grid(rows)
    rule = ["---", *["---:"] * (len(header) - 1)]
    escaped = [[part.replace("|", "\\|") for part in line] for line in (header, rule, *body)]
    return "\n".join(f"| {' | '.join(line)} |" for line in escaped)


def evaluation(figures: Mapping[str, Any]) -> str:
    """One result of al-eval: its plain values and means one a line, then its lists of rows as tables."""
    plain, blocks = [], []
    for name, value in figures.items():
        label = name.replace("_", " ")
        if isinstance(value, list):
            blocks.append(f"{label}\n{text(value)}" if value else f"{label}: none")
        else:
            plain.append({"figure": label, "value": cell(value), "n": f"{value['n']:,}" if is_mean(value) else ""})
    return "\n\n".join([text(plain), *blocks])
