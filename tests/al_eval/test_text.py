"""al-eval text as a real process: figures worked by hand."""

import pytest

from helpers.evaluation import evaluate, jsonl, refused


def test_text_by_hand():
    one = {"prompt": "p", "completions": ["a b a b a", "no"], "finish_reasons": ["length", "stop"],
           "completion_ids": [[1, 2, 3], []]}
    two = {"prompt": "q", "completions": ["x y z w"]}
    figures = evaluate("text", stdin=jsonl(one, two))
    means = {name: value["mean"] for name, value in figures.items() if isinstance(value, dict)}
    assert means["rep_2"] == pytest.approx((3 / 5 + 1 / 4) / 2)
    assert means["diversity"] == pytest.approx((2 / 5 * 2 / 4 * 2 / 3 + 3 / 4 * 2 / 3 * 1 / 2) / 2)
    assert figures["too_short"] == 1 and figures["diversity"]["n"] == 2
    assert figures["dist_1"] == 7 / 10 and figures["dist_2"] == 5 / 10 and figures["dist_3"] == 4 / 10
    assert means["dist_1_per_record"] == pytest.approx((3 / 6 + 1) / 2)
    assert means["words"] == 10 / 3 and means["chars"] == 6.0
    assert means["tokens"] == 1.5 and figures["tokens"]["n"] == 2
    assert means["cut"] == 0.5 and figures["cut"]["n"] == 2
    assert "coherence" not in figures


@pytest.mark.parametrize(("seconds", "words"), [
    (3.2, "seconds: expected an array, got a number"), (["a"], "seconds[0]: expected a number, got a string"),
    ([1, 2], "seconds: 2 entries for 1 completions"),
])
def test_seconds_are_one_a_completion(seconds, words):
    message = refused(65, "text", stdin=jsonl({"prompt": "a", "completions": ["x y"], "seconds": seconds}))
    assert message == f"al-eval: <stdin>:1: {words}"
