"""A dialogue as one text: the form of HH's prompts, and what is asked in one."""

from alignlib.records.dialogue import answer, dialogue_prompt, instruction


def test_the_prompt_of_a_dialogue():
    assert dialogue_prompt("Hi") == "\n\nHuman: Hi\n\nAssistant:"
    assert dialogue_prompt("a", "b", "c") == "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant:"
    assert instruction(dialogue_prompt("  Two\nlines ")) == "  Two\nlines "
    assert instruction("POST: x\nTL;DR:") == "POST: x\nTL;DR:"


def test_an_answer_is_one_space_from_its_prompt():
    assert answer("Hello.\n") == answer("  Hello.") == " Hello."
