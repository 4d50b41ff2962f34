"""Figures, written as PNG, SVG or PDF by the file's suffix. Drawn without a display; heavy imports inside.

The arguments are plain lists and dictionaries, as al-eval prints them. A mean is {mean, low, high, n}, or a bare
number where no interval is known.
"""

from collections.abc import Mapping, Sequence
from io import BytesIO
from itertools import pairwise
from math import inf
from pathlib import Path
from types import TracebackType
from typing import Any

from alignlib.records import disk

Figures = Mapping[str, Any]  # a point of a curve, a row of a table, or a mean

# Okabe and Ito's palette, which colour-blind readers can tell apart; the marks differ too, for print.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKS = ("o", "s", "^", "D", "v", "P", "X")
SUFFIXES = (".png", ".svg", ".pdf")
STYLE = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.8,
    "axes.edgecolor": "#888888",
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "svg.hashsalt": "align",  # else an SVG's ids differ from run to run
}


def check_suffix(path: str) -> None:
    """ValueError, before any work is done, for a file that could not be drawn."""
    if Path(path).suffix.lower() not in SUFFIXES:
        raise ValueError(f"{path}: a figure is written as one of {', '.join(SUFFIXES)}")


ACROSS = 5  # reliability diagrams side by side


def calibration(curves: Mapping[str, Sequence[Figures]], path: str, *, title: str = "") -> None:
    """Reliability curves, a diagram each under its name: observed against predicted share, the bins' sizes below.

    A curve is [{n, predicted, observed, low, high}], a point a bin. Diagrams side by side share their axes.
    """
    across = min(ACROSS, max(1, len(curves)))
    down = -(-max(1, len(curves)) // across)
    size = (5.0, 5.6) if across == 1 else (0.6 + 2.5 * across, 3.8 * down)
    with _figure(path, size) as figure:
        if title:
            figure.suptitle(title, fontsize=11)
        grid = figure.subplots(2 * down, across, sharex=True, squeeze=False, height_ratios=(4, 1) * down)
        for place in range(down * across):
            row, column = divmod(place, across)
            above, below = grid[2 * row][column], grid[2 * row + 1][column]
            if place >= max(1, len(curves)):
                above.set_axis_off(), below.set_axis_off()
                continue
            name, curve = list(curves.items())[place] if curves else ("", [])
            _diagram(above, below, curve)
            above.set_title(name, fontsize=11 if across == 1 else 9)
            below.tick_params(labelbottom=True)
            if across == 1:
                above.legend(loc="upper left")
            if column == 0:
                above.set(ylabel="share that is preferred")
                below.set(ylabel="n")


def _diagram(above: Any, below: Any, curve: Sequence[Figures]) -> None:
    """One reliability curve with its intervals, and the bins' sizes."""
    above.plot([0, 1], [0, 1], color="#999999", linestyle=(0, (4, 3)), linewidth=1.2, label="perfect calibration")
    x, y = [bin["predicted"] for bin in curve], [bin["observed"] for bin in curve]
    if curve:
        spread = _spread([{"mean": bin["observed"], **bin} for bin in curve])
        above.errorbar(x, y, yerr=spread, color=COLOURS[0], marker="o", markersize=5, linewidth=1.6,
                       elinewidth=1, capsize=2.5, label="reward model (95 % interval)")
    above.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xticks=(0, 0.25, 0.5, 0.75, 1))
    above.xaxis.set_major_formatter("{x:g}")
    gaps = [inf, *(right - left for left, right in pairwise(x)), inf]
    widths = [min(0.06, 0.9 * gap) for gap in map(min, pairwise(gaps))]  # no bar hides its neighbour
    below.bar(x, [bin["n"] for bin in curve], width=widths, color=COLOURS[0], edgecolor=COLOURS[0], alpha=0.55)
    below.set(xlabel="predicted probability")
    below.grid(axis="x", visible=False)


COSTS = {"kl": "KL(policy || reference) in nats per completion", "seconds": "seconds per completion",
         "share": "training prompts with the teacher's answers, %"}


def frontier(methods: Mapping[str, Sequence[Figures]], path: str, *, cost: str = "kl", title: str = "",
             reward: str = "reward") -> None:
    """Reward against a cost: one line a method, one point a checkpoint ({kl, reward} with intervals), by rising step.

    What has moved nowhere, its KL being 0, is the reference (SFT): a grey star. reward: the label of the axis.
    """
    with _figure(path, (6.6, 4.6)) as figure:
        axes = figure.subplots()
        lines = 0
        for name, points in methods.items():
            x, y = [_mean(p[cost]) for p in points], [_mean(p["reward"]) for p in points]
            bars = {"xerr": _spread([p[cost] for p in points]), "yerr": _spread([p["reward"] for p in points])}
            look: dict[str, Any] = {"marker": "*", "markersize": 13, "color": "#555555", "linestyle": "none"}
            if any(x):
                look = {**_look(lines), "markersize": 5.5}
                lines += 1
            drawn = axes.errorbar(x, y, **bars, **look, linewidth=1.7, elinewidth=1, capsize=2, label=name)
            for part in (*drawn.lines[1], *drawn.lines[2]):
                part.set_alpha(0.45)  # the intervals stay behind the points
        axes.set(xlabel=COSTS[cost], ylabel=f"{reward} (mean, 95 % interval)")
        _title_and_legend(axes, title, len(methods))


def _look(number: int) -> dict[str, str]:
    """Colour and mark of the line of that number; no two of the first 49 have both alike."""
    rounds, colour = divmod(number, len(COLOURS))
    return {"color": COLOURS[colour], "marker": MARKS[(colour + rounds) % len(MARKS)]}


def curves(series: Mapping[str, tuple[Sequence[float], Sequence[float]]], path: str, *, field: str = "loss",
           smooth: int = 1, title: str = "") -> None:
    """Training curves: {name: (steps, values)} on one axis. smooth > 1: a running mean over so many logged steps,
    the values themselves faint behind it."""
    with _figure(path, (6.6, 4.2)) as figure:
        axes = figure.subplots()
        for position, (name, (steps, values)) in enumerate(series.items()):
            colour = COLOURS[position % len(COLOURS)]
            if smooth > 1:
                axes.plot(steps, values, color=colour, alpha=0.22, linewidth=1)
            mark = "o" if len(steps) == 1 else None
            axes.plot(steps, running_mean(values, smooth), color=colour, linewidth=1.7, marker=mark, label=name)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set(xlabel="step", ylabel=field + (f" (mean of {smooth} logged steps)" if smooth > 1 else ""))
        _title_and_legend(axes, title, len(series))


def winrates(models: Mapping[str, Figures], path: str, *, title: str = "") -> None:
    """Models against one reference, a row each: win, tie and loss as a bar, the win rate with its interval on it, and
    the length-controlled one as a hollow mark. models: {name: {win, tie, loss, winrate, lc_winrate}}; best on top."""
    order = sorted(models, key=lambda name: _mean(models[name]["winrate"]) or 0)
    with _figure(path, (6.6, 1.6 + 0.45 * len(order))) as figure:
        axes = figure.subplots()
        places, left = range(len(order)), [0.0] * len(order)
        for part, colour in (("win", COLOURS[2]), ("tie", "#bbbbbb"), ("loss", COLOURS[1])):
            widths = [_mean(models[name][part]) or 0.0 for name in order]
            axes.barh(places, widths, left=left, height=0.5, color=colour, alpha=0.45, label=part)
            left = [start + width for start, width in zip(left, widths, strict=True)]
        for rate, above, look in (("winrate", 0.1, {"marker": "o", "label": "win rate (95 % interval)"}),
                                  ("lc_winrate", -0.1, {"marker": "D", "mfc": "white", "label": "length-controlled"})):
            shown = [place for place in places if _mean(models[order[place]][rate]) is not None]
            values = [models[order[place]][rate] for place in shown]
            axes.errorbar([_mean(value) for value in values], [place + above for place in shown], xerr=_spread(values),
                          color="#222222", linestyle="none", markersize=5, elinewidth=1.2, capsize=2.5, **look)
        axes.set_yticks(places, order)
        axes.axvline(0.5, color="#999999", linestyle=(0, (4, 3)), linewidth=1.2)
        axes.set(xlim=(0, 1), xlabel="share of comparisons with the reference")
        axes.grid(axis="y", visible=False)
        _title_and_legend(axes, title, len(order))


def conditions(rows: Sequence[Figures], path: str, *, title: str = "") -> None:
    """Mean reward under each condition, best condition first: a line a policy. rows: [{condition, reward, method?}]."""
    lines: dict[str, list[Figures]] = {}
    for row in rows:
        lines.setdefault(row.get("method", ""), []).append(row)
    labels = list(dict.fromkeys(row["condition"] for row in rows))
    with _figure(path, (6.6, 4.2)) as figure:
        axes = figure.subplots()
        for position, (name, points) in enumerate(lines.items()):
            rewards = [point["reward"] for point in points]
            axes.errorbar([labels.index(point["condition"]) for point in points], list(map(_mean, rewards)),
                          yerr=_spread(rewards), **_look(position), linewidth=1.7, elinewidth=1, markersize=5.5,
                          capsize=2.5, label=name or None)
        axes.set_xticks(range(len(labels)), [_short(label) for label in labels], rotation=15, ha="right")
        axes.set(ylabel="reward (mean, 95 % interval)")
        axes.grid(axis="x", visible=False)
        _title_and_legend(axes, title, len(lines) * ("" not in lines))


def histograms(groups: Mapping[str, Sequence[float]], path: str, *, title: str = "", bins: int = 30) -> None:
    """The distribution of each group's values, one below the other on one axis, its mean marked."""
    every = [value for values in groups.values() for value in values]
    with _figure(path, (6.6, 0.8 + 0.8 * max(1, len(groups)))) as figure:
        rows = figure.subplots(max(1, len(groups)), 1, sharex=True, squeeze=False)[:, 0]
        for position, (axes, (name, values)) in enumerate(zip(rows, groups.items(), strict=False)):
            colour = COLOURS[position % len(COLOURS)]
            axes.hist(values, bins=bins, range=(min(every), max(every)), color=colour, alpha=0.55)
            if values:
                axes.axvline(sum(values) / len(values), color=colour, linewidth=1.7)
            axes.set_yticks([])
            axes.set_ylabel(_short(name), rotation=0, ha="right", va="center")
        rows[0].set_title(title)
        rows[-1].set(xlabel="reward")


def _short(label: str, most: int = 32) -> str:
    return label if len(label) <= most else f"{label[:most - 1]}…"


def running_mean(values: Sequence[float], window: int) -> list[float]:
    """Mean of each value and the up to window - 1 before it: ([1, 3, 5], 2) -> [1, 2, 4]."""
    return [sum(part) / len(part) for end in range(1, len(values) + 1) if (part := values[max(0, end - window) : end])]


def _mean(figure: Figures | float) -> float:
    """The number itself, or the figure's mean."""
    return figure["mean"] if isinstance(figure, Mapping) else figure


def _spread(figures: Sequence[Figures | float]) -> list[list[float]] | None:
    """Lengths of the error bars, below and above: 2 lists of (n,); none of length 0 throughout.

    A mean may lie outside its percentile interval, by rounding or of very skew figures: that bar ends at the mean.
    """
    ends = [_ends(figure) for figure in figures]
    middles = [_mean(figure) for figure in figures]
    below = [max(0.0, middle - low) for middle, (low, _) in zip(middles, ends, strict=True)]
    above = [max(0.0, high - middle) for middle, (_, high) in zip(middles, ends, strict=True)]
    return [below, above] if any(below) or any(above) else None


def _ends(figure: Figures | float) -> tuple[float, float]:
    """(low, high); both the mean itself where no interval is known."""
    if isinstance(figure, Mapping) and figure.get("low") is not None:
        return figure["low"], figure["high"]
    return _mean(figure), _mean(figure)


def _title_and_legend(axes: Any, title: str, entries: int) -> None:
    """The legend beside the axes, where it hides no point."""
    if title:
        axes.set_title(title)
    if entries:
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))


class _figure:
    """`with _figure(path, inches) as figure`: in our style, saved at the end, without pyplot's global state."""

    def __init__(self, path: str, inches: tuple[float, float]) -> None:
        check_suffix(path)
        self.path, self.inches = path, inches

    def __enter__(self) -> Any:
        import matplotlib
        from matplotlib.figure import Figure

        self.style = matplotlib.rc_context(STYLE)
        self.style.__enter__()
        self.figure = Figure(figsize=self.inches, layout="constrained")
        return self.figure

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        if kind is None:
            # No date in it: the same numbers give the same file.
            form = Path(self.path).suffix.lower().removeprefix(".")
            metadata = {"Date": None} if form == "svg" else None
            picture = BytesIO()  # a library that seeks in it need not know where it goes
            self.figure.savefig(picture, format=form, dpi=160, metadata=metadata, bbox_inches="tight")
            with disk.whole(self.path) as handle:
                handle.write(picture.getbuffer())
        self.style.__exit__(kind, error, trace)
