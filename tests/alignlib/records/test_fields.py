"""The fields' checks: each wrong value is named by its place."""

import orjson
import pytest

from alignlib.records import fields

GOOD = {
    "prompt": "p", "messages": [{"role": "user", "content": "p"}], "chosen": "", "rejected": "r",
    "completions": ["a", ""], "completion_ids": [[1, 2], []], "end_ids": [0, None],
    "finish_reasons": ["stop", "length"],
    "rewards": [1, -0.5], "rewards_temperature": 2.5, "logps": [-1.5, 0], "ref_logps": [-2, -0.0],
    "logps_temperature": 0.7, "ref_logps_temperature": 1, "perplexities": [3.5, 1],
    "winner": 0, "win_probability": 0.9, "human_winner": 1, "orders_agree": True,
    "feedbacks": ["Harmful", None], "scores": [7, None], "analyses": [None, "a"],
    "unparsed": [None, "Rating: high"], "unparsed_each": [None],
    "condition": "c", "pool": {"mode": "rm"}, "temperatures": [1, 0.5],
    "search": {"w": 1.5}, "seconds": [0.5, 2], "text": "t", "label": "l", "domain": "d",
    "answer": "4", "id": "7",
}


def test_every_field_has_a_good_value_here():
    assert set(GOOD) == set(fields.FIELDS)
    fields.check(GOOD, *fields.FIELDS)
    fields.require_completions(GOOD, "rewards", "logps")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("prompt", None, "prompt: expected a string, got null"),
        ("prompt", 3, "prompt: expected a string, got a number"),
        ("chosen", True, "chosen: expected a string, got a boolean"),
        ("rejected", ["r"], "rejected[0]: expected an object, got a string"),
        ("id", {}, "id: expected a string, got an object"),
        ("messages", [], "messages: empty"),
        ("messages", "hi", "messages: expected an array, got a string"),
        ("messages", ["hi"], "messages[0]: expected an object, got a string"),
        ("messages", [GOOD["messages"][0], {"content": "x"}], "messages[1].role: missing"),
        ("messages", [{"role": 1, "content": ""}], "messages[0].role: expected a string, got a number"),
        ("completions", "abc", "completions: expected an array, got a string"),
        ("completions", [], "completions: empty"),
        ("completions", ["a", "b", None], "completions[2]: expected a string, got null"),
        ("completion_ids", [[1], [1.0]], "completion_ids[1][0]: expected an integer, got a number"),
        ("completion_ids", [[1], [2, True]], "completion_ids[1][1]: expected an integer, got a boolean"),
        ("completion_ids", [[1], 2], "completion_ids[1]: expected an array, got a number"),
        ("finish_reasons", ["stop", "eos"], 'finish_reasons[1]: expected "stop" or "length", got eos'),
        ("finish_reasons", [["stop"]], 'finish_reasons[0]: expected "stop" or "length", got an array'),
        ("rewards", [1, "2"], "rewards[1]: expected a number, got a string"),
        ("rewards", [True], "rewards[0]: expected a number, got a boolean"),
        ("rewards", [0.5, float("nan")], "rewards[1]: not finite"),
        ("rewards", [float("-inf")], "rewards[0]: not finite"),
        ("winner", True, "winner: expected 0, 1 or null, got a boolean"),
        ("winner", 2, "winner: expected 0, 1 or null, got 2"),
        ("orders_agree", 1, "orders_agree: expected a boolean, got a number"),
        ("scores", [1, "7"], "scores[1]: expected a number, got a string"),
        ("feedbacks", [None, 3], "feedbacks[1]: expected a string, got a number"),
        ("logps_temperature", "1", "logps_temperature: expected a number, got a string"),
    ],
)
def test_a_wrong_value_is_named(name, value, words):
    with pytest.raises(ValueError) as caught:
        fields.check({name: value}, name)
    assert str(caught.value) == words


def test_null_is_a_verdict_that_was_not_given():
    fields.check({"winner": None, "orders_agree": None, "scores": [None], "feedbacks": [None]}, *fields.FIELDS)


def test_what_is_required_and_missing_is_named():
    with pytest.raises(ValueError, match=r"^chosen: missing$"):
        fields.require({"prompt": "p"}, "prompt", "chosen")
    fields.check({"prompt": "p"}, "prompt", "chosen")


def test_messages_stand_for_the_prompt():
    fields.require({"messages": GOOD["messages"]}, "prompt")
    with pytest.raises(ValueError, match=r"messages: empty"):
        fields.require({"prompt": "p", "messages": []}, "prompt")


@pytest.mark.parametrize("name", fields.ALIGNED)
def test_lists_that_go_with_the_completions_have_their_length(name):
    record = {"prompt": "p", "completions": ["a", "b", "c"], name: GOOD[name]}
    with pytest.raises(ValueError, match=rf"^{name}: 2 entries for 3 completions$"):
        fields.require_completions(record)
    fields.require_completions({**record, "completions": ["a", "b"]})


def test_fields_nobody_asked_for_are_nobodys_business():
    fields.require_completions({"prompt": "p", "completions": ["a"], "chosen": 3, "mine": [1, 2, 3]})


def test_the_schema_is_json_and_says_what_is_needed():
    made = fields.schema(("prompt", "completions"), ("finish_reasons",), ("rewards", "prompt"))
    schema = orjson.loads(orjson.dumps(made))
    assert schema["input"]["required"] == ["completions"]
    assert schema["input"]["anyOf"] == [{"required": ["prompt"]}, {"required": ["messages"]}]
    assert set(schema["input"]["properties"]) == {"prompt", "messages", "completions", "finish_reasons"}
    assert set(schema["output"]["properties"]) == {*schema["input"]["properties"], "rewards"}
    assert "one entry" in fields.schema((), ("text",), "one entry a step")["output"]["description"]
    assert schema["input"]["properties"]["completions"]["minItems"] == 1


def test_the_table_has_a_row_for_every_field():
    rows = fields.table().splitlines()
    assert len(rows) == 2 + len(fields.FIELDS)
    assert all(row.count("|") == 5 for row in rows)


def test_what_goes_with_the_completions_goes_with_them():
    record = {**GOOD, "mine": 1}
    assert [*fields.without_completions(record)] == [
        "prompt", "messages", "chosen", "rejected", "condition", "text", "label", "domain", "answer", "id", "mine"]
    assert [*fields.without_completions(record, "condition", "chosen")] == [
        "prompt", "messages", "rejected", "text", "label", "domain", "answer", "id", "mine"]
