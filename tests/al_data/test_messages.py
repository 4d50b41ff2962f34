"""The turns of chats as others publish them -> messages."""

import pytest

from al_data.messages import ROLES, message, messages, parted, tools
from alignlib.records.jsonl import Skip

CALL = {"name": "add", "arguments": '{"a": 1}'}
CALLED = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}


@pytest.mark.parametrize("turn, expected", [
    ({"from": "human", "value": "Hi"}, {"role": "user", "content": "Hi"}),
    ({"role": "developer", "content": "Be brief."}, {"role": "system", "content": "Be brief."}),
    ({"from": "gpt", "value": " Hi ", "weight": 0}, {"role": "assistant", "content": " Hi ", "weight": 0}),
    ({"role": "user", "content": [{"type": "text", "text": "a"}, "b"]}, {"role": "user", "content": "ab"}),
    ({"role": "user", "content": "Hi", "name": "Ann", "tool_calls": None}, {"role": "user", "content": "Hi",
                                                                            "name": "Ann"}),
    ({"role": "tool", "content": "7", "tool_call_id": "x"}, {"role": "tool", "content": "7", "tool_call_id": "x"}),
    ({"role": "function", "name": "add", "content": "7"}, {"role": "tool", "content": "7", "name": "add"}),
    ({"role": "assistant", "content": None, "tool_calls": [{"id": "x", "type": "function", "function": CALL}]},
     {"role": "assistant", "content": None, "tool_calls": [{"id": "x", **CALLED}]}),
    ({"role": "assistant", "tool_calls": [{"function": {"name": "add", "arguments": "1 +"}}, "odd", {"id": "y"}]},
     {"role": "assistant", "content": None,
      "tool_calls": [{"function": {"name": "add", "arguments": "1 +"}}, "odd", {"id": "y"}]}),
    ({"role": "assistant", "content": None, "function_call": CALL},
     {"role": "assistant", "content": None, "tool_calls": [CALLED]}),
    ({"from": "function_call", "value": '{"name": "add", "arguments": {"a": 1}}'},
     {"role": "assistant", "content": None, "tool_calls": [CALLED]}),
    ({"from": "function_call", "value": "add 1"}, {"role": "assistant", "content": "add 1"}),
    ({"from": "observation", "value": "7"}, {"role": "tool", "content": "7"}),
])
def test_turns_of_every_kind(turn, expected):
    assert message(turn, "messages[0]") == expected


@pytest.mark.parametrize("turn, message", [
    ({"content": "Hi"}, r"messages\[1\]: role: expected a string, got null"),
    ({"role": 3, "content": "Hi"}, r"messages\[1\]: role: expected a string, got a number"),
    ({"role": "user", "text": "Hi"}, r"messages\[1\]: content: missing"),
    ({"role": "user", "content": 3}, r"messages\[1\]: content: expected a string, got a number"),
    ({"role": "assistant", "content": "", "tool_calls": {}, "function_call": 1}, None),
    ({"role": "assistant", "tool_calls": "add"}, "tool_calls: expected an array, got a string"),
    ("Hi", r"messages\[1\]: expected an object, got a string"),
])
def test_what_is_no_turn_is_named(turn, message):
    row = {"messages": [{"role": "user", "content": "Hi"}, turn]}
    if message is None:
        assert messages(row, "messages")[1] == {"role": "assistant", "content": ""}
        return
    with pytest.raises(ValueError, match=f"^{message}$"):
        messages(row, "messages")


@pytest.mark.parametrize("turn, reason", [
    ({"role": "narrator", "content": "x"}, "an unknown role"),
    ({"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}, "a part that is no text"),
])
def test_turns_that_are_no_text_are_skipped(turn, reason):
    with pytest.raises(Skip, match=f"^{reason}$"):
        message(turn, "messages[0]")


def test_roles_are_four():
    assert set(ROLES.values()) == {"system", "user", "assistant", "tool"}


def test_tools_are_as_templates_ask_for_them():
    tool = {"type": "function", "function": {"name": "add"}}
    assert tools([tool]) == tools([{"name": "add"}]) == tools('[{"name": "add"}]') == [tool]
    assert tools("add") == "add" and tools(None) is None


def turn(role, content, **more):
    return {"role": role, "content": content, **more}


def test_the_answer_is_the_last_that_has_weight():
    talk = [turn("user", "a"), turn("assistant", " b\n"), turn("user", "c"), turn("assistant", "d", weight=0)]
    assert parted(talk) == (talk[:1], "b")
    assert parted(talk[:3]) == (talk[:3], None) and parted([]) == ([], None)
    assert parted([*talk[:3], turn("assistant", "d", weight=1)]) == (talk[:3], "d")


@pytest.mark.parametrize("answer, reason", [
    (turn("assistant", "b", weight=0), "no answer with a weight"),
    (turn("assistant", " "), "an empty answer"), (turn("assistant", None), "an empty answer"),
    (turn("assistant", "b", tool_calls=[CALLED]), "an answer that calls a tool"),
    (turn("assistant", "b", reasoning_content="Hm."), "an answer whose reasoning stands apart"),
])
def test_answers_that_are_more_or_less_than_a_text(answer, reason):
    with pytest.raises(Skip, match=f"^{reason}$"):
        parted([turn("user", "a"), answer])
