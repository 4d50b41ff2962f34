"""Reading a judge's answers: what was asked for is read, and nothing else becomes a label."""

import json

import pytest

from al_label_ai.answers import (
    AnswerForm,
    category_form,
    preference,
    review_form,
    score_form,
    two_scores_form,
    verdict_form,
)

CATEGORIES = ["Harmless and helpful", "Harmful"]
A_REVIEW = "Analysis: Clear.\nFeedback: Good.\nScore: 3"


def unread(form: AnswerForm, text: str) -> bool:
    try:
        form.read(text)
    except ValueError:
        return True
    return False


@pytest.mark.parametrize("text", ["A", " A\n", "A.", '"A"', "**A**", "(A)", "Answer: A", "Answer A", "Verdict: A",
                                  'First is clearer.\nMore helpful: "A"', "I compare.\n\nAnswer: **A**",
                                  "<think>B is long. Answer: B</think>\nA", '{"verdict": "A"}',
                                  "<think>B?</think>\n<think>\nAnswer: B\n</think>\nA", "B?\nAnswer: B\n</think>\nA",
                                  '```json\n{"verdict": "A"}\n```', '{"why": "short", "verdict": "A"}'])
def test_a_verdict_is_read(text):
    assert verdict_form().read(text) == {"verdict": "A"}


@pytest.mark.parametrize("text", ["", "D", "a", "A B", "A or B", "A, B", "A is better", "Both A", "Not better: A",
                                  "Less helpful: A", "I compare.\nA", "Answer: A\nAnswer: or B", "<think>A",
                                  "<think>\nB is wrong.\nAnswer: A", "<think>B?</think>\n<think>\nMore helpful: A",
                                  "<think>\nA\n</think>", "Answer: A\n</think>",
                                  "Answer: A\n\nBut B is close.", '{"verdict": "A or B"}', '{"verdict": null}',
                                  '{"verdict": ["A"]}', '{"answer": "A"}', '{"verdict": "A"', "{}", "[]"])
def test_what_is_no_verdict_is_none(text):
    assert unread(verdict_form(), text)


@pytest.mark.parametrize(("text", "value"), [("8", 8), ("10", 10), ("1", 1), ("Score: 8", 8), ("rating: 8/10", 8),
                                             ("8.", 8), ('{"score": 8}', 8), ("8 out of 10", 8),
                                             ("Score: 10 Out of 10.", 10), ("8 / 10", 8), ("Score: 4/10.", 4)])
def test_a_score_is_read(text, value):
    assert score_form(1, 10).read(text) == {"score": value}


@pytest.mark.parametrize("text", ["Rating: high", "7.5", "0.8", '"0.8"', '{"score": "8"}', '{"score": "0.8"}',
                                  '{"score": 7.5}', '{"score": 8.0}', '{"score": true}', '{"score": null}', "0", "11",
                                  "-3", "80", "8/5", "8 9", "8 of 10", "8 out of 5",
                                  "8 out of 100", "7.5 out of 10", "7.5.", "7.5/10", "Score: 3 out of 3", "4/5",
                                  "Rating: 4 / 5", "8 out of ten", "8/10/10", "8\n/10", "about 8", "1e1", "nan",
                                  "eight", "³", ""])
def test_what_is_no_score_is_none(text):
    assert unread(score_form(1, 10), text)


@pytest.mark.parametrize(("text", "pair"), [("8 7", (8, 7)), ("8\t7\nThe first is better.", (8, 7)),
                                            (" 10 1 \n\nbecause", (10, 1)), ("6 4.", (6, 4)),
                                            ("5 5\r", (5, 5)), ("5 5\r\nAlike.", (5, 5)), ("5 5\rAlike.", (5, 5)),
                                            ("6 4. \nThe first.", (6, 4)), ("8/10 7/10", (8, 7)),
                                            ("8 out of 10 7 out of 10.", (8, 7)), ("8/10 7\nClose.", (8, 7)),
                                            ('{"A": 8, "B": 7}', (8, 7))])
def test_two_scores_are_read(text, pair):
    assert tuple(two_scores_form(1, 10).read(text).values()) == pair


@pytest.mark.parametrize("text", ["8", "8, 7", "8\n7", "8 7 6", "8/5 7/5", "8/10 7/5", "8.5 9", "8/10, 7/10", "8 7.5",
                                  "8. 7", "8 7..", "8 7. 6", "8 7. The first.", "0 5", "11 5", "-1 2", "nan 5",
                                  "A: 8 B: 7", '{"A": 8}', '{"A": 8, "B": "7"}'])
def test_what_is_not_two_scores_is_none(text):
    assert unread(two_scores_form(1, 10), text)


def test_a_category_is_read_as_it_is_written():
    form = category_form(CATEGORIES)
    for text in ("Harmful", "harmful.", '"HARMFUL"', "Category: Harmful", '{"category": "harmful"}'):
        assert form.read(text) == {"category": "Harmful"}
    assert form.read("harmless and Helpful") == {"category": "Harmless and helpful"}
    for text in ("Harm", "Harmful or not", "Not Harmful", "Harmless and helpful, Harmful", '{"category": "bad"}', ""):
        assert unread(form, text)


def test_a_review_is_read_whole():
    form = review_form()
    parts = {"analysis": "Clear.", "feedback": "Good.", "score": 3}
    for text in (A_REVIEW, A_REVIEW + ".", A_REVIEW + "/3", A_REVIEW + " / 3", A_REVIEW + " out of 3",
                 A_REVIEW + " out of 3.", "Analysis: Clear. Feedback: Good. Score: 3",
                 json.dumps(parts)):
        assert form.read(text) == parts
    quotes = A_REVIEW.replace("Clear.", "It leaves a <think> and a </think> in.")  # which is no reasoning
    assert form.read(quotes) == parts | {"analysis": "It leaves a <think> and a </think> in."}
    for text in (A_REVIEW + "0", A_REVIEW + ".5", A_REVIEW + " out of 5", A_REVIEW + "/5", A_REVIEW + ".5 out of 3",
                 A_REVIEW + "\nScore: 0", A_REVIEW + "\nThat is all.",
                 A_REVIEW.replace("3", "4"), A_REVIEW.replace("Clear.", ""), "Sure.\n" + A_REVIEW,
                 json.dumps(parts | {"score": "3"}), json.dumps(parts | {"feedback": " "}),
                 json.dumps(parts | {"analysis": None})):
        assert unread(form, text)


@pytest.mark.parametrize("form", [verdict_form(), score_form(1, 10), two_scores_form(1, 10),
                                  category_form(CATEGORIES), review_form()])
def test_the_schema_is_strict_and_the_options_can_be_read(form):
    schema = form.response_format["json_schema"]["schema"]
    assert schema["required"] == list(schema["properties"]) and schema["additionalProperties"] is False
    assert all(name in form.as_json for name in schema["properties"])
    assert [str(next(iter(form.read(text).values()))) for text in form.options] == list(form.options)


def test_preference():
    assert [preference({"verdict": letter}) for letter in "ABC"] == [1, -1, 0]
    assert [preference({"A": a, "B": b}) for a, b in ((9, 3), (3, 9), (5, 5))] == [1, -1, 0]


# -- against the papers' own code ----------------------------------------------------------------------------------


def test_reviews_as_alt_reads_them(fixtures):
    """Where ALT reads a review, so do we, but for what it reads wrongly: a feedback that ends at the word "Score", an
    analysis at the word "Feedback", the first of two scores; and a fraction, which is no score of ours."""
    cases = json.loads((fixtures / "ALT" / "parsers.json").read_text())["parse_feedback"]
    ours = {
        "Analysis: a\nFeedback: The Score of the game is missing.\nScore: 2":
            {"analysis": "a", "feedback": "The Score of the game is missing.", "score": 2},
        "Analysis: a\nFeedback: b\nScore:2": {"analysis": "a", "feedback": "b", "score": 2},  # ALT wants a space there
        "  \nAnalysis: the Feedback loop is described well.\nFeedback: fine\nScore: 3\nScore: 0": None,
        "Analysis: a\nFeedback: b\nScore: 2.5": None,
    }
    assert ours.keys() <= {case["text"] for case in cases}
    for case in cases:
        expected = ours.get(case["text"], case["output"])
        if expected is None:
            assert unread(review_form(), case["text"]), case
        else:
            assert review_form().read(case["text"]) == expected, case


def test_pairs_of_scores_as_args_reads_them(fixtures):
    """The same scores and winner where both are whole numbers from 1 to 10 (ARGS also takes fractions, negative
    numbers and nan); what ARGS counts as a tie of 0 to 0 is either read, or nothing."""
    cases = json.loads((fixtures / "args" / "gpt4_eval_parsing.json").read_text())["parse"]
    form, both = two_scores_form(1, 10), 0
    for case in cases:
        theirs = [case["red_score"], case["blue_score"]][:: -1 if case["side"] else 1]
        if unread(form, case["content"]):
            assert theirs == [0, 0] or any(value == "NaN" or value != int(value) or value < 1 or "e" in case["content"]
                                           for value in theirs)
            continue
        read = form.read(case["content"])
        if theirs == [0, 0]:  # a space too many, or a tab
            assert [read["A"], read["B"]] == [8, 7]
            continue
        both += 1
        assert [read["A"], read["B"]] == theirs
        won = preference(read) * (-1 if case["side"] else 1)
        assert (case["win"], case["tie"], case["lose"]) == (won == 1, won == 0, won == -1)
    assert both >= 8
