"""al-eval winrate as a process: figures worked by hand, several models, AlpacaEval's files, bad lines, pipes."""

import csv
import json

import pytest

from alignlib.toy import world
from helpers.evaluation import NONE, evaluate, jsonl, refused, save
from helpers.faulty import Server
from helpers.judging import pairs, right
from helpers.process import call


def pair(winner=0, prompt="p", completions=(" aa", " bbbb"), **fields):
    return {"prompt": prompt, "completions": list(completions), "winner": winner, **fields}


def test_shares_by_hand():
    rows = [pair(0, "a"), pair(0, "b"), pair(1, "c"), pair(None, "d")]
    found = evaluate("winrate", stdin=jsonl(*rows))
    assert (found["what"], found["records"], found["unparsed"]) == ("winrate", 4, 0)
    means = {name: found[name]["mean"] for name in ("winrate", "win", "tie", "loss", "chars", "chars_of_reference")}
    assert means == {"winrate": 0.625, "win": 0.5, "tie": 0.25, "loss": 0.25, "chars": 3, "chars_of_reference": 5}
    assert found["winrate"]["n"] == 4 and found["winrate"]["low"] < 0.625 < found["winrate"]["high"]
    assert found["lc_winrate"] == {**NONE, "n": 4}  # fewer than five
    assert found["orders_disagree"] == NONE and "human_kappa" not in found
    assert "method" not in found and "above_first" not in found


def test_pairs_of_one_prompt_are_drawn_together():
    found = evaluate("winrate", stdin=jsonl(pair(0), pair(1), pair(1)))
    assert found["winrate"] == {"mean": pytest.approx(1 / 3), "low": None, "high": None, "n": 3}


def test_orders_and_unparsed():
    rows = [pair(None, "a", orders_agree=False), pair(None, "b", orders_agree=True), pair(0, "c", orders_agree=True),
            pair(0, "d"), pair(None, "e", orders_agree=None, unparsed=[None, "hm"]), pair(1, "f", orders_agree=True)]
    found = evaluate("winrate", stdin=jsonl(*rows))
    assert (found["records"], found["unparsed"], found["winrate"]["n"]) == (6, 1, 5)
    assert found["winrate"]["mean"] == 0.6 and found["tie"]["mean"] == 0.4
    assert (found["orders_disagree"]["mean"], found["orders_disagree"]["n"]) == (0.25, 4)


def test_agreement_with_people():
    said = [(0, 0), (0, 1), (1, 1), (1, 1), (None, None)]
    found = evaluate("winrate", stdin=jsonl(*(pair(judge, str(i), human_winner=human)
                                              for i, (judge, human) in enumerate(said)), pair(0, "x")))
    assert found["human_accuracy"]["mean"] == 0.8 and found["human_accuracy"]["n"] == 5
    assert found["human_kappa"]["mean"] == pytest.approx((20 - 9) / (25 - 9))


def test_rewards_tell_where_nobody_was_asked():
    rows = [{"prompt": str(i), "completions": ["x", "y"], "rewards": rewards}
            for i, rewards in enumerate(([2, 1], [1, 2], [3, 3]))]
    found = evaluate("winrate", stdin=jsonl(*rows))
    assert [found[name]["mean"] for name in ("win", "loss", "tie")] == [pytest.approx(1 / 3)] * 3


def test_a_judge_compares_on_the_fly(tmp_path):
    records = pairs(6)
    said = {name: [{**record, "completions": [record["completions"][at]]} for record in records]
            for name, at in (("good", 1), ("bad", 0))}
    files = [save(tmp_path / f"{name}.jsonl", *rows) for name, rows in said.items()]
    with Server(right) as server:
        judge = f"overall --base-url {server.url} --question helpful"
        done = [call("al-eval", "winrate", *files, "--against", files[0], "--judge", judge) for _ in range(2)]
        asked = len(server.calls)
    assert [one.returncode for one in done] == [0, 0] and done[0].stdout == done[1].stdout
    same, other = map(json.loads, done[0].stdout.splitlines())
    worth = [[world.score("overall", r["prompt"], text) for text in r["completions"]] for r in records]
    wins = sum(first > second for first, second in worth)
    assert (same["method"], same["tie"]["mean"], other["method"]) == ("good", 1, "bad")
    assert other["win"]["mean"] == pytest.approx(wins / 6) and asked == 6 + 2 * 6  # two equal texts make one question
    assert json.loads((tmp_path / "bad.jsonl.judged").read_text().splitlines()[0])["orders_agree"] is True


@pytest.mark.parametrize(("args", "said"), [
    (["--judge", "m"], "--judge goes with FILEs and --against"),
    (["--against", "FILE", "--judge", "m --qestion helpful"], "No such option '--qestion'"),
])
def test_a_judge_that_cannot_be_asked(args, said, tmp_path):
    file = save(tmp_path / "a.jsonl", {"prompt": "p", "completions": ["x"]})
    done = call("al-eval", "winrate", file, *(file if arg == "FILE" else arg for arg in args))
    assert (done.returncode, done.stdout) == (2, "") and said in done.stderr


def scored(prompt, *rewards):
    return {"prompt": prompt, "completions": ["w " * (i + 1) for i in range(len(rewards))], "rewards": rewards}


def test_two_files_are_joined_on_the_prompt(tmp_path):
    reference = save(tmp_path / "ref.jsonl", scored("b", 5, 9), scored("a", 1))
    found = evaluate("winrate", "--against", reference, stdin=jsonl(scored("a", 2, 0), scored("b", 4)))
    assert [found[name]["mean"] for name in ("winrate", "win", "loss")] == [0.5, 0.5, 0.5]
    message = refused(65, "winrate", "--against", reference, stdin=jsonl(scored("z", 1)))
    assert message == "al-eval: <stdin>:1: prompt: no record of --against has this one"
    message = refused(65, "winrate", "--against", reference, stdin=jsonl(scored("a", 1) | {"winner": 0}))
    assert "winner: these are compared already" in message


def test_a_judge_s_probability_is_its_verdict():
    rows = [pair(0, "a", win_probability=0.75), pair(1, "b", win_probability=0.25), pair(0, "c")]
    found = evaluate("winrate", stdin=jsonl(*rows))
    assert found["winrate"]["mean"] == pytest.approx(2 / 3) and found["win"]["mean"] == pytest.approx(2 / 3)


def test_models_against_one_reference(tmp_path):
    sft = save(tmp_path / "sft.jsonl", *(pair(i % 2, str(i)) for i in range(8)))
    dpo = save(tmp_path / "dpo.jsonl", *(pair(int(i == 3), str(i), [" a" * (i + 1), " b"]) for i in range(2, 10)))
    done = call("al-eval", "winrate", sft, f"mine={dpo}", "--plot", tmp_path / "w.png", "--set", "step=3")
    assert done.returncode == 0, done.stderr
    first, second = map(json.loads, done.stdout.splitlines())
    assert [(row["what"], row["step"], row["method"]) for row in (first, second)] == [
        ("winrate", 3, "sft"), ("winrate", 3, "mine")]
    assert first["above_first"] is None and first["winrate"]["mean"] == 0.5
    # In common: prompts 2 to 7; sft wins at 2, 4, 6, mine at all but 3.
    assert (second["above_first"]["mean"], second["above_first"]["n"]) == (pytest.approx(2 / 6), 6)
    assert second["lc_winrate"]["n"] == 8
    assert (tmp_path / "w.png").read_bytes().startswith(b"\x89PNG")
    shown = call("al-eval", "table", "--markdown", "--columns", "winrate,win", stdin=done.stdout)
    assert shown.stdout.splitlines()[2].startswith("| sft | 0.5")
    shown = call("al-eval", "winrate", "--table", sft, f"mine={dpo}")
    assert [line.split()[0] for line in shown.stdout.splitlines()] == ["method", "sft", "mine"]


# --- AlpacaEval's files ------------------------------------------------------------------------------------------


def test_outputs_for_its_leaderboard(tmp_path):
    prompt = "\n\nHuman: Add 1\nand 1.\n\nAssistant:"
    rows = [{"prompt": prompt, "completions": [" 2 \n"], "dataset": "sums"},
            {"prompt": "p", "instruction": " Kept as it is. ", "completions": ["x"]}]
    path = tmp_path / "outputs.json"
    found = evaluate("winrate", "--alpaca-eval", path, "--set", "method=exo", stdin=jsonl(*rows))
    assert found["winrate"] == NONE and found["unjudged"] == 2
    assert json.loads(path.read_text()) == [
        {"dataset": "sums", "instruction": "Add 1\nand 1.", "output": "2", "generator": "exo"},
        {"instruction": " Kept as it is. ", "output": "x", "generator": "exo"}]
    assert "name the model" in refused(2, "winrate", "--alpaca-eval", path, stdin=jsonl(*rows))
    message = refused(65, "winrate", stdin=jsonl(rows[0]))
    assert message == "al-eval: <stdin>:1: completions: expected 2, the reference's second, got 1"


def test_its_annotations_come_in(tmp_path):
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps([{"instruction": str(i), "output_1": "r" * i, "output_2": "m" * (20 - i),
                                 "preference": 1 + i / 10} for i in range(11)]))
    labelled = call("al-data", "alpaca-eval", "--from", path).stdout
    found = evaluate("winrate", stdin=labelled)
    assert found["winrate"]["mean"] == pytest.approx(0.5)  # the mean of 0, .1, ..., 1
    assert [found[name]["mean"] for name in ("win", "tie", "loss")] == pytest.approx([5 / 11, 1 / 11, 5 / 11])


def test_gamed_rows_change_the_fit(tmp_path):
    rows = [pair(int(i > 12 or i % 3 == 0), f"p{i}", [" m" * (i % 7 + 1), " r" * (i % 5 + 1)], id=f"alpaca-eval-{i}")
            for i in range(30)]
    path = tmp_path / "df_gamed.csv"
    with path.open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["", "preference", "index", "std_delta_len", "instruction_difficulty", "not_gamed_baseline"])
        for i in range(60):
            writer.writerow([i, "" if i == 7 else i % 2, i % 30, i % 4 - 1.5, (i % 30) / 10 - 1.5, False])
    plain = evaluate("winrate", stdin=jsonl(*rows))
    found = evaluate("winrate", "--gamed", path, stdin=jsonl(*rows))
    assert found["winrate"] == plain["winrate"]
    assert found["lc_winrate"]["n"] == 30 and found["lc_winrate"]["mean"] != plain["lc_winrate"]["mean"]
    assert "id: expected alpaca-eval-NUMBER, got None" in refused(65, "winrate", "--gamed", path, stdin=jsonl(pair()))
    message = refused(65, "winrate", "--gamed", path, stdin=jsonl(*({**row, "id": "alpaca-eval-99"} for row in rows)))
    assert message == "al-eval: --gamed: no difficulty of instruction 99"
    path.write_text("index,preference\n1,2\n")
    message = refused(65, "winrate", "--gamed", path, stdin=jsonl(*rows))
    assert f"{path}:2: expected numbers as index, std_delta_len" in message


# --- what goes wrong ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row, message", [
    (pair(2), "winner: expected 0, 1 or null, got 2"),
    (pair(0, completions=["a", "b", "c"]), "completions: expected 2, the reference's second, got 3"),
    (pair(0, completions=["a", None]), "completions[1]: expected a string, got null"),
    ({"prompt": "p", "completions": ["a", "b"]}, "winner: missing, and no rewards to tell it"),
    (pair(0, human_winner="a"), "human_winner: expected 0, 1 or null, got a string"),
    (pair(0, win_probability=1.5), "win_probability: expected 0 to 1, got 1.5"),
])
def test_bad_records_are_named(row, message):
    assert refused(65, "winrate", stdin=jsonl(pair(), row)) == f"al-eval: <stdin>:2: {message}"


def test_nothing_to_compare():
    found = evaluate("winrate", stdin="")
    assert found["records"] == 0 and found["winrate"] == found["lc_winrate"] == NONE


def test_usage():
    assert "--alpaca-eval takes one model's file" in refused(2, "winrate", "--alpaca-eval", "x", "-", "-")
    assert "a.bmp: a figure is written as" in refused(2, "winrate", "--plot", "a.bmp", stdin=jsonl(pair()))
