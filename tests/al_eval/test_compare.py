"""al-eval frontier, curve and table as real processes: results joined, training logs followed, what is wrong named."""

import json

import pytest

from helpers.evaluation import NONE, evaluate, jsonl, record, refused, save
from helpers.process import call

pytestmark = pytest.mark.slow


def mean(value, half=0.1, n=9):
    return {"mean": value, "low": value - half, "high": value + half, "n": n}


def test_frontier_joins_sorts_and_compares(tmp_path):
    rows = save(
        tmp_path / "rows.jsonl",
        {"what": "reward", "method": "exo", "step": 20, "reward": mean(3), "by_length": [{"words": [1, 2]}]},
        {"what": "kl", "method": "exo", "step": 20, "kl": mean(2), "kl_per_token": None},
        {"method": "exo", "step": 10, "reward": 2, "kl": 1},
        {"method": "dpo", "step": 10, "reward": 1.0, "kl": 1.5},
        {"method": "dpo", "step": 20, "reward": 2.0, "kl": 3.5},
    )
    sft = save(tmp_path / "sft.json", {"reward": mean(0.5), "kl": 0})
    figures = evaluate("frontier", f"sft={sft}", rows, "--plot", tmp_path / "f.svg")
    assert figures["points"] == [
        {"method": "sft", "step": None, "kl": 0, "reward": mean(0.5)},
        {"method": "exo", "step": 10, "kl": 1, "reward": 2},
        {"method": "exo", "step": 20, "kl": mean(2), "reward": mean(3)},
        {"method": "dpo", "step": 10, "kl": 1.5, "reward": 1.0},
        {"method": "dpo", "step": 20, "kl": 3.5, "reward": 2.0},
    ]
    assert [row["kl"] for row in figures["at_equal_kl"]] == [1.5, 1.625, 1.75, 1.875, 2.0]
    assert figures["at_equal_kl"][0] == {"kl": 1.5, "exo": 2.5, "dpo": 1.0}
    assert figures["at_equal_kl"][-1] == {"kl": 2.0, "exo": 3.0, "dpo": 1.25}
    assert (tmp_path / "f.svg").read_text().startswith("<?xml")


def test_a_method_that_falls_beyond_its_best_is_lower_there():
    """And --help says so: the best up to a KL would be another figure."""
    rows = [{"method": method, "step": step, "kl": kl, "reward": reward} for method, points in (
        ("falls", [(1, 2.0), (3, 0.0)]), ("level", [(1, 1.0), (3, 1.0)])) for step, (kl, reward) in enumerate(points)]
    figures = evaluate("frontier", stdin=jsonl(*rows))
    assert [row["falls"] for row in figures["at_equal_kl"]] == [2.0, 1.5, 1.0, 0.5, 0.0]
    shown = " ".join(call("al-eval", "frontier", "--help").stdout.split())
    assert "the reward at the given KL, on straight lines between checkpoints" in shown and "best" not in shown


def test_frontier_from_records(tmp_path):
    """The way the experiments go: reward and kl of each checkpoint, appended, then drawn."""
    rows = b""
    for step in (1, 2):
        scored = jsonl(*({**record(step, step + 1), "logps": [step, 0], "ref_logps": [0, 0]} for _ in range(3)))
        for what in ("reward", "kl"):
            done = call("al-eval", what, "--set", "method=exo", "--set", f"step={step}", stdin=scored)
            rows += done.stdout.encode()
    figures = evaluate("frontier", stdin=rows)
    points = figures["points"]
    assert [(p["step"], p["kl"]["mean"], p["reward"]["mean"]) for p in points] == [(1, 0.5, 1.5), (2, 1, 2.5)]
    assert points[0]["reward"]["n"] == 6


def test_frontier_names_what_is_wrong(tmp_path):
    assert "<stdin>:1: method: expected a string" in refused(65, "frontier", stdin=jsonl({"kl": 1, "reward": 2}))
    row = {"method": "exo", "step": 1, "reward": 2}
    other = {**row, "step": 2, "kl": 1}
    assert refused(65, "frontier", stdin=jsonl(other, row, other)) == "al-eval: <stdin>:2: exo, step 1: no kl"
    assert refused(65, "frontier", stdin=jsonl({**row, "kl": NONE})) == "al-eval: <stdin>:1: exo, step 1: no kl"
    message = refused(65, "frontier", stdin=jsonl(row, {**row, "reward": 3}))
    assert message == "al-eval: <stdin>:2: another reward of exo, step 1 is at <stdin>:1"
    assert "step: expected a number, got a string" in refused(65, "frontier", stdin=jsonl({**row, "step": "x"}))
    assert "none.json: no such file" in refused(2, "frontier", "a=none.json")
    assert "/: a folder, not a file" in refused(2, "frontier", "a=/")


def test_a_win_rate_by_the_share_of_the_prompts(tmp_path):
    rows = [{"method": "sft", "step": share, "share": share, "winrate": share / 200} for share in (60, 10)]
    done = call("al-eval", "frontier", "--cost", "share", "--reward", "winrate", "--plot", tmp_path / "plot.png",
                "--json", stdin=jsonl(*rows))
    assert done.returncode == 0 and (tmp_path / "plot.png").stat().st_size > 1000, done.stderr
    points = json.loads(done.stdout)["points"]
    assert [(point["share"], point["reward"]) for point in points] == [(10, 0.05), (60, 0.3)]


def test_reward_against_seconds(tmp_path):
    """text gives the mean of what --time wrote; frontier takes it for KL."""
    records = [{"prompt": "p", "completions": ["a b c d e"], "rewards": [1.0], "seconds": [0.25]},
               {"prompt": "q", "completions": ["f g h i j"], "rewards": [3.0], "seconds": [0.75]}]
    data = "".join(json.dumps(record) + "\n" for record in records)
    rows = ""
    for what in ("text", "reward"):
        done = call("al-eval", what, "--json", "--set", "method=greedy", stdin=data)
        assert done.returncode == 0, done.stderr
        rows += done.stdout
    assert json.loads(rows.splitlines()[0])["seconds"]["mean"] == 0.5
    done = call("al-eval", "frontier", "--cost", "seconds", "--plot", tmp_path / "plot.png", "--json", stdin=rows)
    assert done.returncode == 0, done.stderr
    (point,) = json.loads(done.stdout)["points"]
    assert point["seconds"]["mean"] == 0.5 and point["reward"]["mean"] == 2.0
    assert (tmp_path / "plot.png").stat().st_size > 1000
    assert "no kl" in call("al-eval", "frontier", "--json", stdin=rows).stderr


def test_table(tmp_path):
    sft = save(tmp_path / "sft.json", {"what": "reward", "reward": mean(0.5), "length": 3})
    oracle = save(tmp_path / "a.json", {"what": "reward", "reward": mean(1.25, 0.04), "words": mean(12, 1, 8)})
    kl = save(tmp_path / "b.json", {"what": "kl", "kl": mean(2, 0.5), "kl_per_token": None})
    names = [f"sft={sft}", f"exo|rw={oracle}", f"exo|rw={kl}"]
    figures = evaluate("table", *names)
    assert figures["rows"] == [
        {"method": "sft", "reward": mean(0.5), "words": None, "kl": None},
        {"method": "exo|rw", "reward": mean(1.25, 0.04), "words": mean(12, 1, 8), "kl": mean(2, 0.5)},
    ]
    done = call("al-eval", "table", "--markdown", "--columns", "kl,reward,length", *names)
    assert done.stdout == (
        "| method | kl (n = 9) | reward (n = 9) | length |\n"
        "| --- | ---: | ---: | ---: |\n"
        "| sft | - | 0.50 [0.40, 0.60] | 3 |\n"
        "| exo\\|rw | 2.0 [1.5, 2.5] | 1.250 [1.210, 1.290] | - |\n"
    )
    assert "no file has winrate" in refused(2, "table", "--columns", "winrate", *names)


def test_two_logs_of_one_name_are_refused(tmp_path):
    log, other = save(tmp_path / "a.jsonl", {"step": 1, "loss": 2}), save(tmp_path / "a.json", {"step": 1, "loss": 3})
    assert refused(2, "curve", f"x={log}", f"x={other}").startswith("al-eval: x: two logs of one name")
    assert refused(2, "curve", log, other).startswith(f"al-eval: {tmp_path / 'a'}: two logs of one name")
    assert [row["log"] for row in evaluate("curve", f"x={log}", f"y={log}")["logs"]] == ["x", "y"]
    log.write_text("no log\n")  # nothing has been read by then
    assert refused(2, "curve", f"x={log}", f"x={other}").startswith("al-eval: x: two logs of one name")


def test_curve(tmp_path):
    log = save(tmp_path / "log.jsonl", {"step": 1, "loss": 3.0}, {"step": 1, "eval_accuracy": 0.5},
               {"step": 2, "loss": None}, {"step": 3, "loss": 2}, {"done": True})
    result = evaluate("curve", f"exo={log}", log, "--plot", tmp_path / "c.png", "--smooth", 2)
    figures = {"n": 2, "first": 3.0, "last": 2, "lowest": 2, "highest": 3.0, "other": 2, "null": 1}
    assert result["logs"] == [{"log": "exo", **figures}, {"log": str(tmp_path / "log"), **figures}]
    assert (tmp_path / "c.png").stat().st_size > 1000
    assert refused(65, "curve", "--field", "nothing", log).endswith("no line has nothing")
    assert "<stdin>:1: step: expected a number, got null" in refused(65, "curve", stdin=jsonl({"loss": 1}))
    assert "<stdin>:1: loss: expected a number, got a string" in refused(
        65, "curve", stdin=jsonl({"step": 1, "loss": "x"}))


def test_curves_of_all_fields_that_begin_so(tmp_path):
    log = save(tmp_path / "log", {"step": 1, "lambda_a": 0.5, "lambda_b": 0.5}, {"step": 2, "lambda_b": 1.0},
               {"step": 2, "eval_loss": 1})
    figures = evaluate("curve", "--field", "lambda_*", f"more={log}", "--plot", tmp_path / "l.svg")
    assert figures["logs"] == [
        {"log": "more", "field": "lambda_a", "n": 1, "first": 0.5, "last": 0.5, "lowest": 0.5, "highest": 0.5,
         "other": 2, "null": 0},
        {"log": "more", "field": "lambda_b", "n": 2, "first": 0.5, "last": 1.0, "lowest": 0.5, "highest": 1.0,
         "other": 1, "null": 0}]
    assert (tmp_path / "l.svg").stat().st_size > 1000
    assert refused(65, "curve", "--field", "lambda_*", stdin=jsonl({"step": 1, "lambda_a": "x"})) == (
        "al-eval: <stdin>:1: lambda_a: expected a number, got a string")
    assert refused(65, "curve", "--field", "mu_*", log).endswith("no line has mu_*")
    assert refused(2, "curve", f"a={log}", f"a={log}", "--field", "lambda_*").endswith("(NAME=FILE gives another)")
