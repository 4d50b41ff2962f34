"""The forms that people's records have, and what commands see of them."""

import pytest

from alignlib.records import fields
from alignlib.records.conversations import canonical, with_completions, with_condition

USER, BLUE, NO = ({"role": "user", "content": "A colour?"}, {"role": "assistant", "content": "Blue."},
                  {"role": "assistant", "content": "No."})
MORE, GREEN = {"role": "user", "content": "Another?"}, {"role": "assistant", "content": "Green."}


def test_plain_records_are_seen_as_they_are():
    record = {"id": "7", "prompt": "a", "chosen": "b", "completions": ["c"], "extra": [{"role": "x"}]}
    assert canonical(record) is record


@pytest.mark.parametrize(("record", "seen"), [
    ({"prompt": [USER]}, {"messages": [USER]}),
    ({"messages": [USER, BLUE]}, {"messages": [USER], "chosen": "Blue."}),
    ({"messages": [USER, BLUE], "chosen": "Red."}, {"messages": [USER], "chosen": "Red."}),
    ({"chosen": [USER, BLUE], "rejected": [USER, NO]}, {"messages": [USER], "chosen": "Blue.", "rejected": "No."}),
    ({"prompt": [USER], "chosen": [BLUE], "rejected": [NO]},
     {"messages": [USER], "chosen": "Blue.", "rejected": "No."}),
    ({"prompt": [USER], "chosen": [USER, BLUE], "rejected": "No."},
     {"messages": [USER], "chosen": "Blue.", "rejected": "No."}),
    ({"prompt": [USER], "completions": [[BLUE], "No.", [USER, NO]]},
     {"messages": [USER], "completions": ["Blue.", "No.", "No."]}),
    ({"prompt": "A colour?", "messages": [USER]}, {"messages": [USER]}),
    ({"prompt": "A colour?", "messages": [USER, BLUE, MORE, GREEN]},
     {"messages": [USER, BLUE, MORE], "chosen": "Green."}),
    ({"prompt": "Another?", "messages": [USER, BLUE, MORE]}, {"messages": [USER, BLUE, MORE]}),
    ({"prompt": "A colour?", "chosen": [USER, BLUE], "rejected": [USER, NO]},
     {"messages": [USER], "chosen": "Blue.", "rejected": "No."}),
    ({"prompt": [USER], "messages": [USER, BLUE]}, {"messages": [USER], "chosen": "Blue."}),
    ({"prompt": "<u>A colour?<a>", "messages": [USER]}, {"messages": [USER], "prompt": "<u>A colour?<a>"}),
    ({"messages": [{"role": "user", "content": [{"type": "text", "text": "A "}, {"text": "colour?"}]}]},
     {"messages": [USER]}),
    ({"tools": [1], "messages": [USER, {"role": "assistant", "content": None, "tool_calls": [{}]}, MORE]},
     {"tools": [1], "messages": [USER, {"role": "assistant", "content": None, "tool_calls": [{}]}, MORE]}),
])
def test_a_conversation_ends_before_the_answer(record, seen):
    assert canonical(record) == seen
    assert canonical(seen) == seen
    fields.check(canonical(record), *(name for name in seen if name in fields.FIELDS))


def test_a_null_beside_the_prompt_is_no_prompt():
    assert canonical({"prompt": None, "messages": [USER, BLUE]}) == {"messages": [USER], "chosen": "Blue."}
    assert canonical({"messages": None, "prompt": "Hi", "chosen": "a"}) == {"prompt": "Hi", "chosen": "a"}
    for nothing in ({"prompt": None}, {"prompt": None, "messages": None}):
        with pytest.raises(ValueError, match="prompt: expected a string, got null"):
            fields.check(canonical(nothing), "prompt")


def test_an_answer_of_weight_0_is_none():
    lesson = {"messages": [USER, {**BLUE, "weight": 0}]}
    assert canonical(lesson) == {"messages": [USER]}
    assert canonical({**lesson, "chosen": "Red."}) == {"messages": [USER], "chosen": "Red."}
    assert canonical({"messages": [USER, {**BLUE, "weight": 1}]}) == {"messages": [USER], "chosen": "Blue."}


@pytest.mark.parametrize(("record", "words"), [
    ({"prompt": "A shape?", "messages": [USER]},
     "prompt: neither the user's first or last turn of messages, nor all of them"),
    ({"prompt": [MORE], "messages": [USER]}, "prompt: not the conversation in messages"),
    ({"prompt": [USER], "chosen": [MORE, BLUE]}, "chosen: what comes before its last turn is not the prompt"),
    ({"chosen": [USER, BLUE], "rejected": [MORE, NO]}, "rejected: what comes before its last turn is not the prompt"),
    ({"prompt": [USER], "completions": ["x", [MORE, BLUE]]},
     "completions[1]: what comes before its last turn is not the prompt"),
    ({"prompt": [USER], "chosen": [BLUE, MORE]}, "chosen: ends with a turn of user, not of assistant"),
    ({"messages": [BLUE]}, "messages: nothing before the answer"),
    ({"messages": [USER, {"role": "assistant"}]}, "messages[1].content: missing, and no tool_calls"),
    ({"messages": [USER, {"role": "user", "content": None}]}, "messages[1].content: null, and no tool_calls"),
    ({"messages": [USER, {"role": "assistant", "content": None, "tool_calls": [{}]}]},
     "messages[1].content: null: an answer that only calls tools is no text"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
     "messages[0].content[0]: expected a text, got image_url"),
    ({"messages": [{"role": "user", "content": 7}]}, "messages[0].content: expected a string, got a number"),
    ({"prompt": ["x"]}, "prompt[0]: expected an object, got a string"),
    ({"prompt": []}, "prompt: empty"),
    ({"prompt": [USER], "completions": ["a", None]}, "completions[1]: expected a string, got null"),
])
def test_what_does_not_agree_is_named(record, words):
    with pytest.raises(ValueError) as caught:
        canonical(record)
    assert str(caught.value) == words


def test_a_missing_field_names_what_makes_it():
    cases = {
        "completions: missing; al-pref2rw makes them of chosen and rejected": {"chosen": "a", "rejected": "b"},
        "completions: missing; al-pref2rw --to chosen makes them of chosen alone": {"chosen": "a"},
        "completions: missing; al-data chat makes records of the usual public forms": {"question": "a"},
        "completions: missing": {"id": "7"},
    }
    for words, record in cases.items():
        with pytest.raises(ValueError) as caught:
            fields.require(record, "completions")
        assert str(caught.value) == words


def test_a_condition_stands_in_the_turn_it_is_meant_for():
    system = {"role": "system", "content": "Be kind."}
    asked = [USER, BLUE, MORE]
    assert with_condition({"prompt": "x"}, "Good. ", "user") == {"prompt": "Good. x"}
    assert with_condition({"messages": asked}, "Good. ", "user") == {
        "messages": [USER, BLUE, {"role": "user", "content": "Good. Another?"}]}
    assert with_condition({"messages": asked}, "Good. ", "system") == {
        "messages": [{"role": "system", "content": "Good."}, *asked]}
    assert with_condition({"messages": [system, USER]}, "Good. ", "system") == {
        "messages": [{"role": "system", "content": "Good.\n\nBe kind."}, USER]}
    with pytest.raises(ValueError, match="no turn of the user"):
        with_condition({"messages": [system]}, "Good. ", "user")


def test_chosen_and_rejected_are_two_completions():
    assert with_completions({"chosen": "a", "rejected": "b"})["completions"] == ["a", "b"]
    for record in ({"chosen": "a"}, {"chosen": "a", "rejected": "b", "completions": ["c"]}):
        assert with_completions(record) is record
