"""The prompt of a record: its key, its text."""

from alignlib.records.prompts import prompt_key, prompt_of, prompt_text

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


def test_the_order_of_a_turns_keys_makes_no_other_prompt():
    turned = [dict(reversed(turn.items())) for turn in CHAT]
    assert prompt_key({"messages": turned}) == prompt_key({"messages": CHAT})
    assert prompt_key({"messages": CHAT[::-1]}) != prompt_key({"messages": CHAT})


def test_messages_read_as_a_dialogue():
    assert prompt_text({"prompt": "\n\nHuman: Hi\n\nAssistant:"}) == "\n\nHuman: Hi\n\nAssistant:"
    assert prompt_text({"messages": CHAT}) == "[user]\nHi\n\n[assistant]\nHello.\n\n[user]\n?"
    calls = {"role": "assistant", "tool_calls": [{}]}  # as OpenAI's clients leave out the content
    assert prompt_text({"messages": [CHAT[0], calls, CHAT[2]]}) == "[user]\nHi\n\n[assistant]\n\n\n[user]\n?"
