"""Dialogues as texts and as messages: the same turns, the same rule for where two of them part."""

from collections import Counter

import pytest

from al_data.dialogues import Dialogue, alternate, as_chat, as_chats, bare, first_difference, must_ask, question, read
from alignlib.records.dialogue import dialogue_prompt
from alignlib.records.jsonl import Skip, dumps, parse

SYSTEM, CALL = {"role": "system", "content": "Be brief."}, {"role": "assistant", "content": None, "tool_calls": [{}]}


def says(*texts, first="user"):
    """Turns by user and assistant, by turns."""
    roles = ("user", "assistant") if first == "user" else ("assistant", "user")
    return [{"role": roles[place % 2], "content": text} for place, text in enumerate(texts)]


def test_a_dialogue_is_its_text():
    turns = [SYSTEM, *says("Hi", "Hello.", "Who?")]
    prompt = Dialogue(turns)
    assert prompt == dialogue_prompt("Hi", "Hello.", "Who?") == alternate("Hi", "Hello.", "Who?", system=["Be brief."])
    assert prompt.messages == turns == alternate("Hi", "Hello.", "Who?", system=["Be brief."]).messages
    assert parse(dumps({"prompt": prompt})) == {"prompt": dialogue_prompt("Hi", "Hello.", "Who?")}
    assert Dialogue(turns, "as it was") == "as it was"


@pytest.mark.parametrize("text, turns", [
    ("Human: what is Assistant: meaning?", says("Human: what is Assistant: meaning?")),
    ("\n\nHuman: Hi\n\nAssistant:", says("Hi")), ("Human: Hi\n\nAssistant: ", says("Hi")),
    ("\n\nHuman: Hi \n\nAssistant:  Hello.\n\nHuman:Who?\n\nAssistant:", says("Hi", "Hello.", "Who?")),
    ("\n\nHuman: Hi", says("Hi")), ("Name a fruit.\n", says("Name a fruit.\n")), ("", says("")),
    ("Say \n\nHuman: Hi", says("Say \n\nHuman: Hi")),
])
def test_a_prompt_is_read_back(text, turns):
    assert read(text).messages == turns and read(text) == text


def test_where_two_conversations_part():
    one, other = says("a", "b ", "c", "d", "e"), says("a", "b", "c", "D")
    assert first_difference(one, other) == 3
    assert first_difference(says("a", "b"), [*says("a"), CALL]) == 1


@pytest.mark.parametrize("chosen, rejected, reason", [
    (says("a", "b"), says("a", "b "), "no answer differs by more than white space"),
    (says("a", "b", "c", "d"), says("a", "b"), "no answer differs by more than white space"),
    (says("a", "b"), says("A", "c"), "the user's turns differ"),
    ([SYSTEM, *says("a", "b")], [{**SYSTEM, "content": "x"}, *says("a", "c")], "the system's turns differ"),
    (says("a", "b"), [SYSTEM, *says("a", "c")], "the speakers differ"),
    (says("a", "b"), says("a", "\n"), "an empty answer"),
])
def test_where_they_do_not_part_at_an_answer(chosen, rejected, reason):
    with pytest.raises(Skip, match=f"^{reason}$"):
        first_difference(chosen, rejected)


@pytest.mark.parametrize("turns, reason", [
    ([], "no question"), ([SYSTEM], "no question"), (says("a", " ", "c"), "an empty turn"),
    (says("b", "a", first="assistant"), "begins with the assistant"),
    ([{"role": "tool", "content": "7"}, *says("a")], "begins with the tool"),
    (says("a", "b"), "no question before the answer"), ([*says("a"), SYSTEM], "no question before the answer"),
])
def test_messages_that_nothing_can_answer(turns, reason):
    with pytest.raises(Skip, match=f"^{reason}$"):
        must_ask(turns)


def test_a_tool_s_turn_can_be_answered():
    must_ask([SYSTEM, *says("a"), CALL, {"role": "tool", "content": "7"}])


def test_a_record_becomes_a_chat_in_place():
    record = {"id": "x", "prompt": alternate("Hi", system=["Be brief."]), "chosen": " Hello.", "rejected": "  Go.",
              "completions": [" a", "b "], "text": " as it is"}
    assert as_chat(record) == {"id": "x", "messages": [SYSTEM, *says("Hi")], "chosen": "Hello.", "rejected": " Go.",
                               "completions": ["a", "b "], "text": " as it is"}
    assert list(as_chat(record))[:3] == ["id", "messages", "chosen"]
    assert as_chat(as_chat(record)) == as_chat(record)


def test_answers_that_are_no_texts_are_left():
    assert bare([" a", None, 3]) == ["a", None, 3] and bare(None) is None


def test_what_has_no_messages_is_counted():
    dropped = Counter()
    records = [{"prompt": "\n\nAssistant: Hi\n\nHuman: Who?\n\nAssistant:"}, {"prompt": alternate("Hi")}]
    assert list(as_chats(records, dropped)) == [{"messages": says("Hi")}]
    assert dropped == {"begins with the assistant": 1}


def test_the_question_of_both_forms_is_one_text():
    record = {"prompt": alternate("Hi", "Hello.", "Who?", system=["Be brief."]), "chosen": " Me."}
    assert question(record) == question(as_chat(record)) == dialogue_prompt("Hi", "Hello.", "Who?")
    assert question({"text": "x"}) == ""
