"""AlpacaEval's files, through al-eval winrate as a process: outputs, its verdicts, its gamed baselines."""

import csv
import json

import pytest

from helpers.evaluation import NONE, evaluate, jsonl, judged, refused
from helpers.process import call


def test_outputs_for_its_leaderboard(tmp_path):
    prompt = "\n\nHuman: Add 1\nand 1.\n\nAssistant:"
    rows = [{"prompt": prompt, "completions": [" 2 \n"], "dataset": "sums"},
            {"prompt": "p", "instruction": " Kept as it is. ", "completions": ["x"]}]
    path = tmp_path / "outputs.json"
    figures = evaluate("winrate", "--alpaca-eval", path, "--set", "method=exo", stdin=jsonl(*rows))
    assert figures["winrate"] == NONE and figures["unjudged"] == 2
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
    figures = evaluate("winrate", stdin=labelled)
    assert figures["winrate"]["mean"] == pytest.approx(0.5)  # the mean of 0, .1, ..., 1
    assert [figures[name]["mean"] for name in ("win", "tie", "loss")] == pytest.approx([5 / 11, 1 / 11, 5 / 11])


@pytest.mark.slow
def test_gamed_rows_change_the_fit(tmp_path):
    rows = [judged(int(i > 12 or i % 3 == 0), f"p{i}", [" m" * (i % 7 + 1), " r" * (i % 5 + 1)], id=f"alpaca-eval-{i}")
            for i in range(30)]
    path = tmp_path / "df_gamed.csv"
    with path.open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["", "preference", "index", "std_delta_len", "instruction_difficulty", "not_gamed_baseline"])
        for i in range(60):
            writer.writerow([i, "" if i == 7 else i % 2, i % 30, i % 4 - 1.5, (i % 30) / 10 - 1.5, False])
    plain = evaluate("winrate", stdin=jsonl(*rows))
    figures = evaluate("winrate", "--gamed", path, stdin=jsonl(*rows))
    assert figures["winrate"] == plain["winrate"]
    assert figures["lc_winrate"]["n"] == 30 and figures["lc_winrate"]["mean"] != plain["lc_winrate"]["mean"]
    assert "id: expected alpaca-eval-NUMBER, got None" in refused(65, "winrate", "--gamed", path, stdin=jsonl(judged()))
    message = refused(65, "winrate", "--gamed", path, stdin=jsonl(*({**row, "id": "alpaca-eval-99"} for row in rows)))
    assert message == "al-eval: --gamed: no difficulty of instruction 99"
    path.write_text("index,preference\n1,2\n")
    message = refused(65, "winrate", "--gamed", path, stdin=jsonl(*rows))
    assert f"{path}:2: expected numbers as index, std_delta_len" in message


def test_outputs_of_conversations(tmp_path):
    """A chat's instruction is what the user asks; AlpacaEval has no second turn."""
    system, asks = ({"role": role, "content": text} for role, text in (("system", "Be brief."), ("user", " Add 1. ")))
    path = tmp_path / "outputs.json"
    ask = ("winrate", "--alpaca-eval", path, "--set", "method=exo")
    evaluate(*ask, stdin=jsonl({"messages": [system, asks], "completions": ["2"]}))
    assert json.loads(path.read_text()) == [{"instruction": " Add 1. ", "output": "2", "generator": "exo"}]
    longer = {"messages": [asks, {"role": "assistant", "content": "To what?"}, asks], "completions": ["2"]}
    assert refused(65, *ask, stdin=jsonl(longer)) == \
        "al-eval: <stdin>:1: messages: expected one turn of the user, for AlpacaEval"


def test_a_new_verdict_replaces_its_judges(tmp_path):
    """A probability that its annotations brought goes when another judge decides."""
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps([{"instruction": "Hi", "output_1": "a long one", "output_2": "m", "preference": 1.97}]))
    brought = call("al-data", "alpaca-eval", "--from", path).stdout
    figures = evaluate("winrate", stdin=call("al-label-ai", "--judge-rm", "length", stdin=brought).stdout)
    assert (figures["winrate"]["mean"], figures["loss"]["mean"]) == (0, 1)
