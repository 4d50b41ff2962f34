"""The prompt of a record: its key, its text, two files joined by it."""

import pytest

from alignlib.records.jsonl import DataError
from alignlib.records.prompts import prompt_key, prompt_of, prompt_text, read_by_prompt

CHAT = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}, {"role": "user", "content": "?"}]


def test_the_prompt_is_the_messages_where_there_are_some():
    assert prompt_of({"prompt": "Hi"}) == "Hi"
    assert prompt_of({"prompt": "Hi", "messages": CHAT}) == CHAT
    assert prompt_of({"text": "a text to classify"}) is None


def test_a_key_stands_for_the_prompt_and_nothing_else():
    key = prompt_key({"prompt": "Hi", "completions": [" Hello."]})
    assert key == prompt_key({"id": "1", "prompt": "Hi"}) and len(key) == 16
    others = [{"prompt": "Hi "}, {"messages": CHAT}, {"messages": CHAT[:1]}, {"prompt": ""}, {}]
    assert len({key, *map(prompt_key, others)}) == 6


def test_messages_read_as_a_dialogue():
    assert prompt_text({"prompt": "\n\nHuman: Hi\n\nAssistant:"}) == "\n\nHuman: Hi\n\nAssistant:"
    assert prompt_text({"messages": CHAT}) == "[user]\nHi\n\n[assistant]\nHello.\n\n[user]\n?"


def test_a_file_is_read_by_prompt(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_text('{"prompt": "b", "id": "1"}\n{"prompt": "a", "id": "2"}\n\n{"prompt": "b", "id": "3"}\n')
    ids = read_by_prompt(str(file), lambda record: record["id"])
    assert ids == {prompt_key({"prompt": "b"}): ["1", "3"], prompt_key({"prompt": "a"}): ["2"]}


def test_a_bad_record_is_named(tmp_path):
    def refuse(record):
        raise ValueError("id: missing")

    file = tmp_path / "a.jsonl"
    file.write_text('{"prompt": "b"}\n')
    with pytest.raises(DataError, match="a.jsonl:1: id: missing"):
        read_by_prompt(str(file), refuse)
