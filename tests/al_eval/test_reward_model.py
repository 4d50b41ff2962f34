"""al-eval rm as a real process: figures worked by hand, by domain and subset, its plot, its temperature, bad input."""

import json
import math
import os

import pytest

from helpers.commands import folders, lines, one_line, pairs, read, run
from helpers.evaluation import evaluate, jsonl, record, refused
from helpers.process import call


def pair(chosen, rejected, number=0, **more):
    return record(chosen, rejected, prompt=f"p{number}", **more)


def judge(*args, stdin):
    """The lines that al-eval rm prints, by their domain or subset."""
    done = call("al-eval", "rm", *args, stdin=stdin)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.slow
def test_rm_by_hand():
    # Margins 2, -1, 0, 1000: two right, one wrong, one tie.
    figures = evaluate("rm", stdin=jsonl(pair(3, 1), pair(0, 1, 1), pair(2, 2, 2), pair(1000, 0, 3)))
    assert figures["accuracy"]["mean"] == 0.625 and figures["accuracy"]["n"] == 4
    assert figures["margin"]["mean"] == 1001 / 4 and figures["chosen"]["mean"] == 1005 / 4
    assert figures["log_loss"]["mean"] == pytest.approx(
        (math.log1p(math.exp(-2)) + math.log1p(math.e) + math.log(2)) / 4)
    rows = figures["calibration"]
    assert [(row["strategy"], row["bins"]) for row in rows] == [
        (kind, n) for kind in ("uniform", "quantile") for n in (5, 10, 20)]
    assert sum(point["n"] for point in figures["reliability"]) == 8  # each pair in both directions
    # sigmoid(2) = .8808 and 1 in the top bin of five, sigmoid(1) = .7311 in the fourth and wrong, .5 twice, mirrored
    gaps = {"top": 1 - (0.880797 + 1) / 2, "fourth": 0.731059, "middle": 0.0}
    five = rows[0]
    assert five["MCE"]["mean"] == pytest.approx(gaps["fourth"], abs=1e-6)
    assert five["ECE"]["mean"] == pytest.approx((4 * gaps["top"] + 2 * gaps["fourth"]) / 8, abs=1e-6)
    assert five["ACE"]["mean"] == pytest.approx((2 * gaps["top"] + 2 * gaps["fourth"]) / 5, abs=1e-6)
    assert five["ECE"]["low"] < five["ECE"]["mean"] < five["ECE"]["high"] and five["ECE"]["n"] == 4
    assert "domain" not in figures


@pytest.mark.slow
def test_each_domain_is_a_line():
    data = jsonl(pair(2, 1, 0, domain="b"), pair(1, 2, 1, domain="b"), pair(3, 0, 2, domain="a"), pair(1, 2, 3))
    whole, a, b = judge(stdin=data)
    assert [row["domain"] for row in (whole, a, b)] == [None, "a", "b"]
    assert [row["records"] for row in (whole, a, b)] == [4, 1, 2]  # one has no domain
    assert [row["accuracy"]["mean"] for row in (whole, a, b)] == [0.5, 1, 0.5]
    assert a["accuracy"]["low"] is None and a["ECE"]["low"] is None  # a domain with one pair
    alone = evaluate("rm", stdin=jsonl(pair(2, 1, 0), pair(1, 2, 1)))
    assert {**b, "domain": 0} == {**alone, "domain": 0}
    shown = call("al-eval", "rm", "--table", stdin=data).stdout.splitlines()
    assert len(shown) == 4 and shown[0].split()[:2] == ["domain", "records"] and "reliability" not in shown[0]


@pytest.mark.slow
def test_subsets_as_in_reward_bench(tmp_path):
    """Published rows, prompt, chosen, rejected, subset: through the pipe, into a table of several models."""
    rows = [{"prompt": f"Q{i}", "chosen": "a", "rejected": "b", "subset": f"s{i % 2}", "id": i} for i in range(6)]
    records = read(call("al-pref2rw", stdin=jsonl(*rows)).stdout)
    for model, sign in (("one", 1), ("two", -1)):
        scored = [{**row, "rewards": [sign * (row["id"] - 2.5), 0]} for row in records]
        figures = judge("--by", "subset", "--set", f"method={model}", stdin=jsonl(*scored))
        assert [row["subset"] for row in figures] == [None, "s0", "s1"]
        (tmp_path / model).write_text("".join(json.dumps(row) + "\n" for row in figures))
    done = call("al-eval", "table", "--across", "subset", "--columns", "accuracy", "--json",
                tmp_path / "one", tmp_path / "two")
    one, two = json.loads(done.stdout)["rows"]
    assert list(one) == ["method", "all", "s0", "s1"] and [one["method"], two["method"]] == ["one", "two"]
    assert [round(one[name]["mean"], 3) for name in ("all", "s0", "s1")] == [0.5, 0.333, 0.667]
    assert [round(two[name]["mean"], 3) for name in ("all", "s0", "s1")] == [0.5, 0.667, 0.333]
    done = call("al-eval", "table", "--across", "subset", "--columns", "accuracy,ECE", "--markdown", tmp_path / "two")
    heads = done.stdout.splitlines()[0].split(" | ")
    assert heads[1:5] == ["accuracy all (n = 6)", "accuracy s0 (n = 3)", "accuracy s1 (n = 3)", "ECE all (n = 6)"]


@pytest.mark.slow
def test_pairs_of_one_prompt_are_drawn_together():
    rewards = [(i * i % 7 - 3, 0) for i in range(30)]
    apart = evaluate("rm", stdin=jsonl(*(pair(*both, i) for i, both in enumerate(rewards))))
    thrice = evaluate("rm", stdin=jsonl(*(pair(*both, i) for i, both in enumerate(rewards) for _ in range(3))))
    for name in ("accuracy", "margin", "log_loss", "ECE"):
        assert thrice[name] == {**{part: pytest.approx(apart[name][part]) for part in ("mean", "low", "high")}, "n": 90}


@pytest.mark.slow
def test_bins_and_strategy_of_the_figures():
    data = jsonl(*(pair((i - 9) / 10, 0, i) for i in range(40)))
    figures = evaluate("rm", "--bins", 20, "--strategy", "quantile", stdin=data)
    row = figures["calibration"][-1]
    assert (row["strategy"], row["bins"]) == ("quantile", 20) == (figures["strategy"], figures["bins"])
    assert row["ECE"]["mean"] == figures["ECE"]["mean"] and row["MCE"]["mean"] == figures["MCE"]["mean"]
    assert evaluate("rm", stdin=data)["ECE"] != figures["ECE"]
    assert "101 is not in the range 1<=x<=100" in refused(2, "rm", "--bins", 101, stdin=data)  # memory goes by them


@pytest.mark.slow
def test_diagrams(tmp_path):
    for name, domains in (("one.png", "a"), ("three.svg", "abc"), ("many.png", "abcdefg")):
        data = jsonl(*(pair(i % 3, 1, i, domain=domains[i % len(domains)]) for i in range(30)))
        judge("--plot", tmp_path / name, "--strategy", "quantile", stdin=data)
    assert (tmp_path / "one.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "many.png").stat().st_size > 2 * (tmp_path / "one.png").stat().st_size
    judge("--plot", tmp_path / "none.png", stdin="")
    message = refused(2, "rm", "--plot", "c.bmp", stdin=jsonl(pair(2, 1)))
    assert "c.bmp: a figure is written as one of .png, .svg, .pdf" in message


@pytest.mark.parametrize(("bad", "why"), [
    ({"completions": ["a"], "rewards": [1]}, "rewards: expected 2, the preferred completion's first, got 1"),
    ({"completions": [*"abc"], "rewards": [1, 2, 3]}, "rewards: expected 2, the preferred completion's first, got 3"),
    ({"completions": ["a", "b"], "rewards": None}, "rewards: expected an array, got null"),
    ({"completions": ["a", "b"], "rewards": [1, None]}, "rewards[1]: expected a number, got null"),
    ({"completions": ["a", "b"], "rewards": [1, -1e308]},
     "rewards[1]: -1e+308 is beyond 1.7e+38, half of float32's range"),
    ({"completions": ["a", "b"], "rewards": [1, 2], "domain": 3}, "domain: expected a string, got a number"),
    ({"completions": ["a", "b"], "rewards": [1, 2], "domain": None}, "domain: expected a string, got null"),
])
def test_bad_records(bad, why):
    message = refused(65, "rm", stdin=jsonl(pair(2, 1), {"prompt": "p", **bad}))
    assert message == f"al-eval: <stdin>:2: {why}"


@pytest.mark.slow
def test_many_completions_with_true_rewards():
    rows = [{**record(3, 1, 2, prompt="p"), "learned": [2, 0.5, -1]}, {**record(1, 1, prompt="q"), "learned": [5, 6]}]
    done = call("al-eval", "rm", "--field", "learned", "--json", stdin=jsonl(*rows))
    figures = json.loads(done.stdout)
    assert figures["records"] == 2 and figures["accuracy"]["n"] == 3  # 3 over 1, 3 over 2, 2 over 1
    assert figures["accuracy"]["mean"] == pytest.approx(2 / 3)
    assert figures["margin"]["mean"] == pytest.approx((1.5 + 3 - 1.5) / 3) and "1 without a preference" in done.stderr
    for value, why in ((None, "learned: expected an array, got null"), ([1], "learned: 1 entries for 3 completions")):
        bad = {**rows[0], "learned": value}
        assert refused(65, "rm", "--field", "learned", stdin=jsonl(bad)) == f"al-eval: <stdin>:1: {why}"
    huge = {**rows[0], "learned": [1, 2, 1e300]}
    assert "learned[2]: 1e+300 is beyond" in refused(65, "rm", "--field", "learned", stdin=jsonl(huge))
    assert refused(65, "rm", "--field", "other", stdin=jsonl(rows[0])).endswith("other: missing")


@pytest.mark.slow
def test_groups_that_are_not_there():
    assert refused(65, "rm", "--by", "subset", stdin=jsonl(pair(2, 1))) == "al-eval: <stdin>:1: subset: missing"
    assert refused(65, "rm", "--by", "domain", stdin=jsonl(pair(2, 1))) == "al-eval: <stdin>:1: domain: missing"
    assert "--by accuracy: the result has a accuracy of its own" in refused(
        2, "rm", "--by", "accuracy", stdin=jsonl(pair(2, 1, accuracy="x")))
    (even,) = judge(stdin=jsonl(pair(1, 1), pair(1, 1, 1)))  # all rewards equal
    assert even["accuracy"]["mean"] == 0.5 and even["ECE"]["mean"] == 0


# --- the temperature ---------------------------------------------------------------------------------------------


def gaps(*values, **more):
    return jsonl(*(pair(value, 0, number, **more) for number, value in enumerate(values)))


@pytest.mark.slow
def test_a_temperature_from_pairs_to_rewards():
    """Fitted on some pairs, kept in the folder, used by al-score: the sum is what dividing by hand gives."""
    model = str(folders().without(folders().reward))
    records = lines(*({**row, "completions": [row["chosen"], row["rejected"]]} for row in pairs(40)))
    plain = read(run("al-score", model, stdin=records).stdout)
    done = run("al-eval", "rm", "--json", "--fit-temperature", model, stdin=lines(*plain))
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)["temperature"]
    contents = json.loads((folders().root / model / "temperature.json").read_text())
    assert contents["temperature"] == figures["mean"] and contents["pairs"] == 40
    assert contents["low"] < figures["mean"] < contents["high"]
    scored = read(run("al-score", model, "--calibrated", stdin=records).stdout)
    for before, after in zip(plain, scored, strict=True):
        assert after["rewards"] == pytest.approx([value / figures["mean"] for value in before["rewards"]], rel=1e-4)
        assert after["rewards_temperature"] == figures["mean"] and "rewards_temperature" not in before
    again = run("al-score", model, stdin=lines(*scored))
    assert read(again.stdout) == plain  # scored anew, without: the mark goes
    message = one_line(run("al-eval", "rm", "--fit-temperature", model, stdin=lines(*scored)).stderr)
    assert message == ("al-eval: <stdin>:1: rewards_temperature: these rewards are calibrated already; "
                       "score without --calibrated")


@pytest.mark.slow
def test_a_temperature_is_of_its_model():
    model = folders().without(folders().reward)
    other = folders().changed(folders().reward, lambda weights: weights["score.weight"].mul_(2))
    refusal = one_line(run("al-score", model, "--calibrated", stdin=lines()).stderr)
    assert "no temperature.json; al-eval rm --fit-temperature" in refusal
    done = run("al-eval", "rm", "--fit-temperature", model, stdin=gaps(1, 2, -1, 3))
    assert done.returncode == 0, done.stderr
    (other / "temperature.json").write_bytes((model / "temperature.json").read_bytes())
    done = run("al-score", other, "--calibrated", stdin=lines())
    assert done.returncode == 2 and "fitted for other weights than this folder's" in one_line(done.stderr)
    for text, why in (("{", "not what al-eval rm --fit-temperature writes"), ("[1]", "not what al-eval rm"),
                      ('{"temperature": 0, "weights": ""}', "expected a number above 0")):
        (model / "temperature.json").write_text(text)
        done = run("al-score", model, "--calibrated", stdin=lines())
        assert done.returncode == 2 and why in one_line(done.stderr)


def test_what_calibrated_does_not_go_with():
    for args in ([folders().policy, "--logps"], [folders().classifier, "--label", "good"], ["toy:overall"],
                 [folders().reward, "--as", "prob"]):
        done = run("al-score", *args, "--calibrated", stdin=lines())
        assert done.returncode == 2 and "al-score" in one_line(done.stderr)


@pytest.mark.parametrize(("values", "why"), [
    ((1, 2), "every pair is right"), ((0, 0), "no pair has two different rewards"),
    ((3e-320, 1e-320, -1e-320), "no pair has two different rewards"), ((), "no pair has two different"),
    ((1, -2), "the rewards do not order")])
def test_pairs_that_no_temperature_fits(values, why):
    model = folders().without(folders().reward)
    done = run("al-eval", "rm", "--fit-temperature", model, stdin=gaps(*values))
    assert done.returncode == 65 and why in one_line(done.stderr) and done.stdout == ""
    assert not (model / "temperature.json").exists()


def test_a_label_of_a_figure_s_name_leaves_the_folder_as_it_was():
    model = folders().without(folders().reward)
    done = run("al-eval", "rm", "--fit-temperature", model, "--set", "temperature=1", stdin=gaps(1, 2, -1, 3))
    assert done.returncode == 2 and "the result has a temperature of its own" in one_line(done.stderr)
    assert not (model / "temperature.json").exists()


def test_folders_that_cannot_take_a_temperature(tmp_path):
    for folder, why in ((folders().policy, "not a reward model"), (tmp_path, "no config.json"),
                        (tmp_path / "none", "does not exist")):
        done = run("al-eval", "rm", "--fit-temperature", folder, stdin=gaps(1, -1, 2))
        assert done.returncode == 2 and why in one_line(done.stderr)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_is_not_writable():
    model = folders().without(folders().reward)
    model.chmod(0o500)
    done = run("al-eval", "rm", "--fit-temperature", model, stdin=gaps(1, -1, 2))
    model.chmod(0o700)
    assert done.returncode == 2 and "not writable" in one_line(done.stderr)
