"""plots.py draws what it is given: checked in the figures' data, and in the files."""

import matplotlib.figure
import pytest

from al_eval import plots
from alignlib.records.disk import DiskFull
from helpers.disks import file_limit


@pytest.fixture
def drawn(monkeypatch):
    """The figures saved so far, to look at their data."""
    figures, save = [], matplotlib.figure.Figure.savefig

    def keep(figure, *args, **settings):
        figures.append(figure)
        save(figure, *args, **settings)

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", keep)
    return figures


def mean(value, half):
    return {"mean": value, "low": value - half, "high": value + half, "n": 10}


def test_frontier(tmp_path, drawn):
    methods = {
        "sft": [{"step": 0, "kl": 0, "reward": 0.5}],
        "exo-rw": [{"step": 1, "kl": mean(1, 0.25), "reward": mean(2, 0.5)}, {"step": 2, "kl": 2, "reward": 3}],
        "dpo-rw": [{"step": 1, "kl": 1.5, "reward": mean(2, 0.5)}],
    }
    plots.frontier(methods, str(tmp_path / "f.png"), title="toy", reward="oracle")
    axes = drawn[0].axes[0]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == list(methods)
    points = {c.get_label(): c.lines[0].get_xydata().tolist() for c in axes.containers}
    assert points == {"sft": [[0, 0.5]], "exo-rw": [[1, 2], [2, 3]], "dpo-rw": [[1.5, 2]]}
    exo = axes.containers[1]
    across, up = (bars.get_segments()[0].tolist() for bars in exo.lines[2])
    assert across == [[0.75, 2], [1.25, 2]] and up == [[1, 1.5], [1, 2.5]]
    looks = {(c.lines[0].get_marker(), c.lines[0].get_color()) for c in axes.containers}
    assert len(looks) == 3  # to tell apart even with one checkpoint each
    assert "nats" in axes.get_xlabel() and "oracle" in axes.get_ylabel() and axes.get_title(loc="left") == "toy"
    assert (tmp_path / "f.png").read_bytes().startswith(b"\x89PNG")


def test_more_methods_than_colours_are_told_apart(tmp_path, drawn):
    methods = {f"way-{i}": [{"step": 1, "kl": 1.0 + i, "reward": mean(2, 0.5)}] for i in range(20)}
    plots.frontier(methods, str(tmp_path / "f.png"))
    assert len({(c.lines[0].get_marker(), c.lines[0].get_color()) for c in drawn[0].axes[0].containers}) == 20


def test_conditions(tmp_path, drawn):
    rows = [{"method": method, "condition": tag, "reward": mean(value, 0.5)}
            for method, values in (("1", (2, 1)), ("2", (3, 0))) for tag, value in zip("AB", values, strict=True)]
    plots.conditions(rows, str(tmp_path / "c.png"), title="toy")
    axes = drawn[0].axes[0]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["1", "2"]
    assert [c.lines[0].get_xydata().tolist() for c in axes.containers] == [[[0, 2], [1, 1]], [[0, 3], [1, 0]]]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["A", "B"]
    plots.conditions([{"condition": "x" * 60, "reward": 1.0}], str(tmp_path / "d.png"))
    assert drawn[1].axes[0].get_legend() is None
    assert [label.get_text() for label in drawn[1].axes[0].get_xticklabels()] == ["x" * 31 + "…"]


def test_histograms(tmp_path, drawn):
    plots.histograms({"A": [0, 1, 1], "B": [4.0], "C": []}, str(tmp_path / "h.png"), bins=4)
    counts = [[bar.get_height() for bar in axes.patches] for axes in drawn[0].axes]
    assert counts == [[1, 2, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0]]  # of one range
    assert [axes.get_ylabel() for axes in drawn[0].axes] == ["A", "B", "C"]
    assert drawn[0].axes[0].lines[0].get_xdata()[0] == pytest.approx(2 / 3)
    plots.histograms({}, str(tmp_path / "e.png"))


def test_a_mean_outside_its_interval_has_no_negative_bar(tmp_path, drawn):
    odd = {"mean": 1.0, "low": 1.5, "high": 2.0, "n": 10}
    plots.frontier({"a": [{"step": 1, "kl": odd, "reward": {**odd, "low": 0.0, "high": 0.5}}]}, str(tmp_path / "f.png"))
    across, up = (bars.get_segments()[0].tolist() for bars in drawn[0].axes[0].containers[0].lines[2])
    assert across == [[1, 1], [2, 1]] and up == [[1, 0], [1, 1]]
    curve = [{"n": 8, "predicted": 0.2, "observed": 0.25, "low": 0.3, "high": 0.5}]
    plots.calibration({"": curve}, str(tmp_path / "c.png"))
    assert drawn[1].axes[0].containers[0].lines[2][0].get_segments()[0].tolist() == [[0.2, 0.25], [0.2, 0.5]]


def test_bars_of_bins_that_lie_close_do_not_overlap(tmp_path, drawn):
    places = [0.001, 0.004, 0.5, 0.97, 0.98, 0.999]
    curve = [{"n": 3, "predicted": at, "observed": at, "low": at, "high": at} for at in places]
    plots.calibration({"": curve}, str(tmp_path / "c.png"))
    bars = [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in drawn[0].axes[1].patches]
    assert all(end < start for (_, end), (start, _) in zip(bars, bars[1:], strict=False))
    assert [sum(bar) / 2 for bar in bars] == pytest.approx(places)
    assert bars[2][1] - bars[2][0] == pytest.approx(0.06)  # one with room around it is as wide as ever


def test_calibration(tmp_path, drawn):
    curve = [{"n": 8, "predicted": 0.2, "observed": 0.25, "low": 0.1, "high": 0.5},
             {"n": 4, "predicted": 0.9, "observed": 1.0, "low": 0.6, "high": 1.0}]
    plots.calibration({"12 pairs": curve}, str(tmp_path / "c.pdf"))
    above, below = drawn[0].axes
    assert above.containers[0].lines[0].get_xydata().tolist() == [[0.2, 0.25], [0.9, 1.0]]
    assert above.containers[0].lines[2][0].get_segments()[0].tolist() == [[0.2, 0.1], [0.2, 0.5]]
    assert [bar.get_height() for bar in below.patches] == [8, 4]
    assert (tmp_path / "c.pdf").read_bytes().startswith(b"%PDF")


def test_curves(tmp_path, drawn):
    plots.curves({"a": ([1, 2, 3], [1, 3, 5]), "b": ([1], [2])}, str(tmp_path / "c.svg"), field="margin", smooth=2)
    faint, line, *_ = drawn[0].axes[0].get_lines()
    assert faint.get_xydata().tolist() == [[1, 1], [2, 3], [3, 5]]
    assert line.get_xydata().tolist() == [[1, 1], [2, 2], [3, 4]]
    assert drawn[0].axes[0].get_ylabel() == "margin (mean of 2 logged steps)"


def test_the_same_numbers_give_the_same_file(tmp_path):
    for suffix in (".svg", ".png"):
        for name in ("one", "two"):
            plots.curves({"a": ([1, 2], [3, 4])}, str(tmp_path / (name + suffix)))
        assert (tmp_path / f"one{suffix}").read_bytes() == (tmp_path / f"two{suffix}").read_bytes()


def share(value, half=0.05):
    return {"mean": value, "low": value - half, "high": value + half, "n": 9}


def test_win_rates_have_a_row_each(tmp_path, monkeypatch):
    none = {"mean": None, "low": None, "high": None, "n": 0}
    drawn = []
    monkeypatch.setattr(plots, "_title_and_legend", lambda axes, *rest: drawn.append(axes))
    models = {"good": {"winrate": share(0.6), "lc_winrate": none, "win": share(0.5), "tie": share(0.2),
                       "loss": share(0.3)}, "bad": dict.fromkeys(("winrate", "lc_winrate", "win", "tie", "loss"), none)}
    plots.winrates(models, str(tmp_path / "w.svg"), title="t")
    assert [label.get_text() for label in drawn[0].get_yticklabels()] == ["bad", "good"]
    ends = [bar.get_x() + bar.get_width() for bar in drawn[0].patches]
    assert ends == pytest.approx([0, 0.5, 0, 0.7, 0, 1.0])
    assert [list(line.get_xdata()) for line in drawn[0].lines if line.get_marker() == "o"] == [[0.6]]


def test_nothing_to_draw_is_drawn(tmp_path):
    plots.winrates({}, str(tmp_path / "w.png"))
    plots.frontier({}, str(tmp_path / "f.png"))
    plots.calibration({}, str(tmp_path / "c.png"))
    plots.curves({"a": ([], [])}, str(tmp_path / "l.png"))
    assert all((tmp_path / f"{name}.png").stat().st_size > 1000 for name in "fclw")


def test_unknown_suffix():
    with pytest.raises(ValueError, match=r"figure\.txt: a figure is written as one of \.png, \.svg, \.pdf"):
        plots.check_suffix("figure.txt")


def test_running_mean():
    assert plots.running_mean([1, 3, 5], 2) == [1, 2, 4]
    assert plots.running_mean([1, 3], 1) == [1, 3]
    assert plots.running_mean([], 3) == []


@pytest.mark.parametrize("suffix", [".png", ".SVG", ".pdf"])
def test_a_full_disk_leaves_the_earlier_plot(tmp_path, suffix):
    (tmp_path / "far").write_bytes(b"dear")
    file = tmp_path / f"p{suffix}"
    file.symlink_to("far")
    rows = [{"condition": "x", "reward": 1.0}]
    with file_limit(100), pytest.raises(DiskFull, match=f"^file too large: {tmp_path}$"):
        plots.conditions(rows, str(file))
    assert (tmp_path / "far").read_bytes() == b"dear"
    plots.conditions(rows, str(file))
    assert file.is_symlink() and (tmp_path / "far").stat().st_size > 1000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["far", f"p{suffix}"]
