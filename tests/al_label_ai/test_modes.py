"""What each mode asks, and what the answers of both orders, or about each completion, come to."""

import json
import re

import pytest

from al_data import toy_judge
from al_label_ai.answers import verdict_form
from al_label_ai.modes import Answer
from alignlib.toy import world
from helpers.judging import KINDS, RECORD, mode, texts


def verdicts(*letters: str | None) -> list[Answer]:
    return [Answer({"verdict": letter}) if letter else Answer(None, "hm") for letter in letters]


def test_a_pair_is_asked_about_in_both_orders():
    first, second = (query.messages[0]["content"] for query in mode("pair").queries(RECORD))
    for content, shown in ((first, RECORD["completions"]), (second, RECORD["completions"][::-1])):
        assert texts(content, "prompt", "answer A", "answer B") == [RECORD["prompt"], *shown]
        assert "What counts." in content and "{" not in content


@pytest.mark.parametrize(("record", "words"), [
    ({"completions": ["a", "b"]}, "prompt: missing"), ({"prompt": "p"}, "completions: missing"),
    ({"prompt": "p", "completions": ["a"]}, "completions: expected 2, got 1"),
    ({"prompt": "p", "completions": ["a", None]}, "completions[1]: expected a string, got null"),
])
def test_records_that_cannot_be_asked_about(record, words):
    with pytest.raises(ValueError, match=f"^{re.escape(words)}"):
        mode("pair").queries(record)


@pytest.mark.parametrize(("answers", "winner", "agree"), [
    ("AB", 0, True), ("BA", 1, True), ("CC", None, True), ("AA", None, False), ("BB", None, False), ("AC", None, False),
    ("CB", None, False), ("CA", None, False), ("BC", None, False),
])
def test_a_verdict_holds_if_both_orders_give_it(answers, winner, agree):
    """By hand: the second answer is about the completions the other way round."""
    labelled = mode("pair").label(RECORD, verdicts(*answers))
    assert (labelled["winner"], labelled["orders_agree"]) == (winner, agree) and "unparsed" not in labelled
    if winner is None:
        assert "chosen" not in labelled and "rejected" not in labelled
    else:
        best, other = RECORD["completions"][winner], RECORD["completions"][1 - winner]
        assert (labelled["chosen"], labelled["rejected"]) == (best, other)


def test_orders_as_more_judges_them(fixtures):
    """The winners of MORE's code for every pair of answers. Where one order prefers a completion and the other finds
    both good, MORE takes the preferred one; to us, as to its paper, only what both orders say is a verdict."""
    cases = json.loads((fixtures / "MORE" / "judge_position_swap.json").read_text())["pairs"]
    letters = {"model_A is better": "A", "model_B is better": "B", "both are equally good": "C",
               "both are equally bad": "C"}
    form, seen = verdict_form(), set()
    for case in cases:
        texts = [letters.get(text, text) for text in (case["first_call_answer"], case["swapped_call_answer"])]
        if "<" in "".join(texts):  # a call that failed: never a verdict
            assert case["winner"] in ("error", "<asks again for ever>")
            continue
        answers = [Answer(form.read(text)) for text in texts]
        winner = mode("pair").label(RECORD, answers)["winner"]
        theirs = {"model_A": 0, "model_B": 1}.get(case["winner"])
        both = [answer.parts["verdict"] for answer in answers]
        assert winner == (None if "C" in both else theirs), case
        seen.add((winner, "C" in both))
    assert seen == {(0, False), (1, False), (None, False), (None, True)}


def test_what_could_not_be_read_is_no_verdict():
    """Not even a coin's; what the record said before goes too."""
    before = {**RECORD, "chosen": "x", "rejected": "y", "winner": 0, "win_probability": 0.9, "id": "7"}
    for ties in ("keep", "random"):
        labelled = mode("pair", ties=ties).label(before, verdicts("A", None))
        assert labelled == {**RECORD, "id": "7", "winner": None, "orders_agree": None, "unparsed": [None, "hm"]}


def test_one_order_draws_the_sides_from_the_texts():
    """About as many each way, the same ones for the same seed, and the verdict is of the completion, not the side."""
    swaps = []
    for i in range(200):
        record = {"prompt": f"p{i}", "completions": ["a", "b"]}
        one = mode("pair", one_order=True)
        (query,) = one.queries(record)
        assert query.messages == one.queries(dict(record, id="x"))[0].messages
        labelled = one.label(record, verdicts("A"))
        assert labelled["chosen"] == query.texts[0] and labelled["orders_agree"] is None
        assert record["completions"][labelled["winner"]] == query.texts[0]
        assert one.label(record, verdicts("C"))["winner"] is None
        swaps.append((query.texts[0] == "b", mode("pair", one_order=True, seed=1).queries(record)[0].texts[0] == "b"))
    assert all(70 < sum(column) < 130 for column in zip(*swaps, strict=True)) and len(set(swaps)) == 4


def test_ties_at_random_are_still_marked():
    records = [mode("pair", ties="random").label({**RECORD, "prompt": str(i)}, verdicts("A", "A")) for i in range(200)]
    assert {one["winner"] for one in records} == {None} and {one["orders_agree"] for one in records} == {False}
    assert 70 < sum(one["chosen"] == "The first." for one in records) < 130
    assert all({one["chosen"], one["rejected"]} == set(RECORD["completions"]) for one in records)


def test_two_scores_together_are_means_over_the_orders():
    def label(first: tuple[int, int], swapped: tuple[int, int]) -> dict:
        answers = [Answer(dict(zip("AB", pair, strict=True))) for pair in (first, swapped)]
        return mode("together").label(RECORD, answers)

    labelled = label((8, 3), (4, 7))
    assert (labelled["scores"], labelled["winner"], labelled["chosen"]) == ([7.5, 3.5], 0, "The first.")
    labelled = label((8, 3), (8, 3))
    assert (labelled["scores"], labelled["winner"], labelled["orders_agree"]) == ([5.5, 5.5], None, False)


def test_scores_of_another_run_stay_beside_a_verdict():
    rated = {**RECORD, "scores": [7, 2]}
    assert mode("pair").label(rated, verdicts("A", "B"))["scores"] == [7, 2]
    assert "scores" not in mode("together").label(rated, verdicts(None, None))


def test_a_verdict_and_a_score_of_each_are_each_their_own():
    """What could not be read of a pair stays, whatever is asked of each; a tie is none that could not be read."""
    pair = mode("pair").label(RECORD, verdicts("A", None))
    rated = mode("rate").label(pair, [Answer({"score": 3}), Answer({"score": 8})])
    assert rated == {**pair, "scores": [3, 8]} and rated["unparsed"] == [None, "hm"]
    tie = mode("pair").label(RECORD, verdicts("C", "C"))
    rated = mode("rate").label(tie, [Answer({"score": 3}), Answer(None, "8, or so")])
    assert rated == {**tie, "scores": [3, None], "unparsed_each": [None, "8, or so"]}


def test_each_completion_for_itself():
    record = {"prompt": "p", "completions": ["a", "b"], "scores": ["old"], "rewards": [1, 2]}
    reviews = [Answer({"analysis": "x", "feedback": "y", "score": 0}), Answer(None, "no idea")]
    labelled = mode("lmu").label(record, reviews)
    assert labelled == {"prompt": "p", "completions": ["a", "b"], "rewards": [1, 2], "analyses": ["x", None],
                    "feedbacks": ["y", None], "scores": [0, None], "unparsed_each": [None, "no idea"]}
    assert len(mode("lmu").queries(record)) == 2
    assert mode("rate").label(RECORD, [Answer({"score": 3}), Answer({"score": 10})])["scores"] == [3, 10]
    sorted_ = [Answer({"category": "Harmful"}), Answer({"category": "Harmless and helpful"})]
    assert mode("lmc").label(RECORD, sorted_)["feedbacks"] == ["Harmful", "Harmless and helpful"]


def test_attributes_as_steerlm_has_them(fixtures):
    cases = json.loads((fixtures / "ALT" / "parsers.json").read_text())["map_to_SteerLM"]
    attributes = {case["feedback"]: case["output"] for case in cases if case["output"]}
    assert attributes == {kind.name: kind.attributes for kind in KINDS} and len(attributes) == 4
    answers = [Answer({"category": name}) for name in attributes]
    record = {"prompt": "p", "completions": list("abcd")}
    assert mode("steerlm").label(record, answers)["feedbacks"] == list(attributes.values())


def test_the_oracle_judges_as_it_scores():
    for record in world.records("dialogue", limit=50):
        record["completions"] = [record["chosen"], record["rejected"]]
        for oracle in ("overall", "harmless"):
            bodies = (toy_judge.answer({"model": oracle, "messages": query.messages})
                      for query in mode("pair").queries(record))
            answers = [Answer(verdict_form().read(body["choices"][0]["message"]["content"])) for body in bodies]
            labelled = mode("pair").label(record, answers)
            one, two = (world.score(oracle, record["prompt"], text) for text in record["completions"])
            assert labelled["winner"] == (None if one == two else int(two > one)) and labelled["orders_agree"] is True
