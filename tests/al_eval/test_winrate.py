"""al-eval winrate as a process: figures worked by hand, several models, bad lines, pipes."""

import json

import pytest

from alignlib.toy import world
from helpers.evaluation import NONE, evaluate, jsonl, judged, refused, save
from helpers.faulty import Server
from helpers.judging import pairs, right
from helpers.process import call


def test_shares_by_hand():
    rows = [judged(0, "a"), judged(0, "b"), judged(1, "c"), judged(None, "d")]
    figures = evaluate("winrate", stdin=jsonl(*rows))
    assert (figures["what"], figures["records"], figures["unparsed"]) == ("winrate", 4, 0)
    means = {name: figures[name]["mean"] for name in ("winrate", "win", "tie", "loss", "chars", "chars_of_reference")}
    assert means == {"winrate": 0.625, "win": 0.5, "tie": 0.25, "loss": 0.25, "chars": 3, "chars_of_reference": 5}
    assert figures["winrate"]["n"] == 4 and figures["winrate"]["low"] < 0.625 < figures["winrate"]["high"]
    assert figures["lc_winrate"] == {**NONE, "n": 4}  # fewer than five
    assert figures["orders_disagree"] == NONE and "human_kappa" not in figures
    assert "method" not in figures and "above_first" not in figures


def test_pairs_of_one_prompt_are_drawn_together():
    figures = evaluate("winrate", stdin=jsonl(judged(0), judged(1), judged(1)))
    assert figures["winrate"] == {"mean": pytest.approx(1 / 3), "low": None, "high": None, "n": 3}


def test_orders_and_unparsed():
    rows = [judged(None, "a", orders_agree=False), judged(None, "b", orders_agree=True),
            judged(0, "c", orders_agree=True), judged(0, "d"),
            judged(None, "e", orders_agree=None, unparsed=[None, "hm"]), judged(1, "f", orders_agree=True),
            judged(None, "g", orders_agree=None, unparsed=["", ""])]
    figures = evaluate("winrate", stdin=jsonl(*rows))
    assert (figures["records"], figures["unparsed"], figures["winrate"]["n"]) == (7, 2, 5)
    assert figures["winrate"]["mean"] == 0.6 and figures["tie"]["mean"] == 0.4
    assert (figures["orders_disagree"]["mean"], figures["orders_disagree"]["n"]) == (0.25, 4)


def test_a_judge_that_goes_by_the_order_alone_is_warned_of():
    """All ties, by which one would take the models for equal."""
    rows = [judged(None, name, orders_agree=False) for name in "abc"]
    done = call("al-eval", "winrate", stdin=jsonl(*rows))
    assert done.returncode == 0 and json.loads(done.stdout)["winrate"]["mean"] == 0.5
    assert done.stderr.startswith("warning: -: the orders disagree in all 3 pairs: the judge goes by the order alone")
    for more in (judged(0, "d", orders_agree=True), judged(None, "d", orders_agree=True)):
        assert "warning" not in call("al-eval", "winrate", stdin=jsonl(*rows, more)).stderr
    assert "warning" not in call("al-eval", "winrate", stdin=jsonl(judged(0), judged(1))).stderr


def test_agreement_with_people():
    verdicts = [(0, 0), (0, 1), (1, 1), (1, 1), (None, None)]
    figures = evaluate("winrate", stdin=jsonl(*(judged(judge, str(i), human_winner=human)
                                                for i, (judge, human) in enumerate(verdicts)), judged(0, "x")))
    assert figures["human_accuracy"]["mean"] == 0.8 and figures["human_accuracy"]["n"] == 5
    assert figures["human_kappa"]["mean"] == pytest.approx((20 - 9) / (25 - 9))


def test_rewards_tell_where_nobody_was_asked():
    rows = [{"prompt": str(i), "completions": ["x", "y"], "rewards": rewards}
            for i, rewards in enumerate(([2, 1], [1, 2], [3, 3]))]
    figures = evaluate("winrate", stdin=jsonl(*rows))
    assert [figures[name]["mean"] for name in ("win", "loss", "tie")] == [pytest.approx(1 / 3)] * 3


@pytest.mark.slow
def test_a_judge_compares_on_the_fly(tmp_path):
    records = pairs(6)
    answers = {name: [{**record, "completions": [record["completions"][at]]} for record in records]
               for name, at in (("good", 1), ("bad", 0))}
    files = [save(tmp_path / f"{name}.jsonl", *rows) for name, rows in answers.items()]
    with Server(right) as server:
        judge = f"overall --base-url {server.url} --question helpful"
        done = [call("al-eval", "winrate", *files, "--against", files[0], "--judge", judge) for _ in range(2)]
        questions = len(server.calls)
    assert [one.returncode for one in done] == [0, 0] and done[0].stdout == done[1].stdout
    same, other = map(json.loads, done[0].stdout.splitlines())
    worth = [[world.score("overall", r["prompt"], text) for text in r["completions"]] for r in records]
    wins = sum(first > second for first, second in worth)
    assert (same["method"], same["tie"]["mean"], other["method"]) == ("good", 1, "bad")
    assert other["win"]["mean"] == pytest.approx(wins / 6)
    assert questions == 6 + 2 * 6  # two equal texts make one question
    assert json.loads((tmp_path / "bad.jsonl.judged").read_text().splitlines()[0])["orders_agree"] is True


def test_a_judged_model_gets_its_name_before_a_judge_is_asked(tmp_path):
    """From --set or NAME=; what cannot be, both or a figure's, is refused while no question has been paid for."""
    records = pairs(2)
    mine, other = (save(tmp_path / f"{at}.jsonl", *({**record, "completions": [record["completions"][at]]}
                                                    for record in records)) for at in (1, 0))
    with Server(right) as server:
        judge = ("--against", other, "--judge", f"overall --base-url {server.url} --question helpful")
        for files, more, message in (
                ([f"x={mine}"], ["--set", "method=sft"], "--set method=...: the result has a method of its own"),
                ([mine, other], ["--set", "method=sft"], "--set method=...: the result has a method of its own"),
                ([mine, other], ["--set", "above_first=1"], "--set above_first=...: the result has a above_first"),
                ([mine], ["--set", "winrate=1"], "--set winrate=...: the result has a winrate of its own"),
                ([mine], ["--alpaca-eval", tmp_path / "o.json"], "--alpaca-eval: name the model, NAME=FILE or --set")):
            assert refused(2, "winrate", *files, *judge, *more).startswith(f"al-eval: {message}")
        assert not server.calls and not list(tmp_path.glob("*.judged"))
        figures = evaluate("winrate", mine, *judge, "--set", "method=sft", "--alpaca-eval", tmp_path / "o.json")
        assert len(server.calls) == 2 * 2
        assert "method" not in evaluate("winrate", mine, *judge)
        assert evaluate("winrate", f"x={mine}", *judge, "--set", "step=3")["method"] == "x"
    assert (figures["method"], figures["records"]) == ("sft", 2)
    assert [row["generator"] for row in json.loads((tmp_path / "o.json").read_text())] == ["sft"] * 2


@pytest.mark.parametrize(("args", "message"), [
    (["--judge", "m"], "--judge goes with FILEs and --against"),
    (["-", "--against", "FILE", "--judge", "m"], "--judge goes with FILEs and --against"),  # before any is asked about
    (["--against", "FILE", "--judge", "m --qestion helpful"], "No such option '--qestion'"),
])
def test_a_judge_that_cannot_be_asked(args, message, tmp_path):
    file = save(tmp_path / "a.jsonl", {"prompt": "p", "completions": ["x"]})
    done = call("al-eval", "winrate", file, *(file if arg == "FILE" else arg for arg in args))
    assert (done.returncode, done.stdout) == (2, "") and message in done.stderr


def scored(prompt, *rewards):
    return {"prompt": prompt, "completions": ["w " * (i + 1) for i in range(len(rewards))], "rewards": rewards}


@pytest.mark.slow
def test_two_files_are_joined_on_the_prompt(tmp_path):
    reference = save(tmp_path / "ref.jsonl", scored("b", 5, 9), scored("a", 1))
    figures = evaluate("winrate", "--against", reference, stdin=jsonl(scored("a", 2, 0), scored("b", 4)))
    assert [figures[name]["mean"] for name in ("winrate", "win", "loss")] == [0.5, 0.5, 0.5]
    message = refused(65, "winrate", "--against", reference, stdin=jsonl(scored("z", 1)))
    assert message == "al-eval: <stdin>:1: prompt: no record of --against has this one"
    message = refused(65, "winrate", "--against", reference, stdin=jsonl(scored("a", 1) | {"winner": 0}))
    assert "winner: these are compared already" in message


def test_a_judge_s_probability_is_its_verdict():
    rows = [judged(0, "a", win_probability=0.75), judged(1, "b", win_probability=0.25), judged(0, "c")]
    figures = evaluate("winrate", stdin=jsonl(*rows))
    assert figures["winrate"]["mean"] == pytest.approx(2 / 3) and figures["win"]["mean"] == pytest.approx(2 / 3)


@pytest.mark.slow
def test_models_against_one_reference(tmp_path):
    sft = save(tmp_path / "sft.jsonl", *(judged(i % 2, str(i)) for i in range(8)))
    dpo = save(tmp_path / "dpo.jsonl", *(judged(int(i == 3), str(i), [" a" * (i + 1), " b"]) for i in range(2, 10)))
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


def test_two_models_of_one_name_are_refused(tmp_path):
    """Before anything is read or asked: a row of one would be taken for the other's, a plot would lack it."""
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    file, other = (save(tmp_path / folder / "j.jsonl", judged(winner)) for folder, winner in (("a", 0), ("b", 1)))
    done = call("al-eval", "winrate", f"x={file}", other)
    assert [json.loads(line)["method"] for line in done.stdout.splitlines()] == ["x", "j"], done.stderr
    file.write_text("no record\n")
    for files, name in (((file, other), "j"), ((f"x={file}", f"x={other}"), "x"), ((f"j={file}", other), "j"),
                        (("-", "-"), "-"), ((file, other, "--against", file, "--judge", "m"), "j")):
        message = f"al-eval: {name}: two models of one name (NAME=FILE gives another)"
        assert refused(2, "winrate", *files, "--plot", tmp_path / "p.svg").startswith(message)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "b", "j.jsonl", "j.jsonl"]


# --- what goes wrong ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row, message", [
    (judged(2), "winner: expected 0, 1 or null, got 2"),
    (judged(0, completions=["a", "b", "c"]), "completions: expected 2, the reference's second, got 3"),
    (judged(0, completions=["a", None]), "completions[1]: expected a string, got null"),
    ({"prompt": "p", "completions": ["a", "b"]}, "winner: missing, and no rewards to tell it"),
    (judged(0, human_winner="a"), "human_winner: expected 0, 1 or null, got a string"),
    (judged(0, win_probability=1.5), "win_probability: expected 0 to 1, got 1.5"),
])
def test_bad_records_are_named(row, message):
    assert refused(65, "winrate", stdin=jsonl(judged(), row)) == f"al-eval: <stdin>:2: {message}"


def test_nothing_to_compare():
    figures = evaluate("winrate", stdin="")
    assert figures["records"] == 0 and figures["winrate"] == figures["lc_winrate"] == NONE


def test_usage():
    assert "--alpaca-eval takes one model's file" in refused(2, "winrate", "--alpaca-eval", "x", "-", "-")
    assert "a.bmp: a figure is written as" in refused(2, "winrate", "--plot", "a.bmp", stdin=jsonl(judged()))
