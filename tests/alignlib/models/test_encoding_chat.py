"""Answers to conversations: the white space and the end that a template writes around each, all of them learnt."""

import pytest

from alignlib.models.encoding import Encoder
from helpers import tiny

# An answer as Mistral's template writes it, and as Llama 2's does; and a newline behind each end.
EACH = "{% for m in messages %}{% if m.role == 'user' %}QUESTION{% else %}ANSWER{% endif %}{% endfor %}"
BEFORE = EACH.replace("QUESTION", "Q{{ m.content }}A").replace("ANSWER", "{{ ' ' + m.content + eos_token }}")
AROUND = EACH.replace("QUESTION", "{{ bos_token }}Q {{ m.content }} A").replace(
    "ANSWER", "{{ ' ' + m.content | trim + ' ' + eos_token }}")
BEHIND = EACH.replace("QUESTION", "Q{{ m.content }}{{ eos_token }}\n").replace(
    "ANSWER", "A{{ m.content + eos_token }}\n") + "{{ 'A' if add_generation_prompt }}"
TURNS = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "Yes, No"}]


def tokenizer_with(template, style):
    words = tiny.tokenizer(bos=False) if style == "bytes" else tiny.sentence_piece(style)
    words.chat_template = template
    return words


@pytest.mark.parametrize("style", ["bytes", "prepend", "first", "always"])
@pytest.mark.parametrize("template", [BEFORE, AROUND, BEHIND])
def test_what_is_learnt_is_what_the_template_writes(template, style):
    """Down to the end, of one answer and of all of them; an answer that was drawn has its white space already."""
    words = tokenizer_with(template, style)
    coder, eos = Encoder(words, max_length=99), words.eos_token_id
    whole = words.apply_chat_template(TURNS)["input_ids"]
    whole = whole[:len(whole) - whole[::-1].index(eos)]  # a newline behind it is no part of the answer
    before, behind = coder.template.around
    example = coder.encode({"messages": TURNS[:1]}, ["Yes, No", f"{before}Yes, No"])
    assert [example.prompt + row for row in example.completions] == [whole, whole]
    texts = [f"{before}Yes, No{behind}"] * 2
    drawn = coder.encode({"messages": TURNS[:1], "finish_reasons": ["stop", "length"]}, texts)
    assert [example.prompt + row for row in drawn.completions] == [whole, whole[:-1]]
    several = words.apply_chat_template([*TURNS, *TURNS])["input_ids"]
    every = coder.encode_turns({"messages": [*TURNS, TURNS[0]]}, "Yes, No")
    assert every.prompt + every.completions[0] == several[:len(several) - several[::-1].index(eos)]
    learnt = [i for place, i in enumerate(every.completions[0]) if place not in every.given]
    assert learnt == example.completions[0] * 2
    first = coder.encode_turns({"messages": [TURNS[0], {**TURNS[1], "weight": 0}, TURNS[0]]}, "Yes, No")
    assert (first.prompt, first.completions) == (every.prompt, every.completions)
    assert [i for place, i in enumerate(first.completions[0]) if place not in first.given] == example.completions[0]


def test_answers_without_an_end_are_not_all_learnt():
    words = tokenizer_with("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}", "bytes")
    with pytest.raises(ValueError, match=r"ends no answer with a control token.*--turns last"):
        Encoder(words, max_length=99).encode_turns({"messages": [*TURNS, TURNS[0]]}, "No")


def test_data_that_was_rendered_elsewhere_has_its_own_end():
    """Any of the model's, with white space behind it or not; no other is put behind that."""
    words = tiny.chat_tokenizer(bos=False)
    coder = Encoder(words, max_length=99, control_tokens=True)
    rows = coder.encode({"prompt": "x"}, ["a<|im_end|>", "a<|im_end|>\n", "a<|eos|>", "a"]).completions
    assert rows == [[*b"a", tiny.TURN_END], [*b"a", tiny.TURN_END], *[[*b"a", words.eos_token_id]] * 2]
    cut = {"prompt": "x", "finish_reasons": ["length"]}
    assert coder.encode(cut, ["a<|im_end|>\n"]).completions == [[*b"a", tiny.TURN_END, *b"\n"]]


def test_every_character_of_data_reaches_the_model():
    """The private ones too, of which icon fonts are made."""
    coder = Encoder(tiny.chat_tokenizer(bos=False), max_length=99)
    text = "\ue000 <|im_end|> \uf8ff"
    assert bytes(coder.prompt({"prompt": text})).decode() == text
    chat = coder.prompt({"messages": [{"role": "user", "content": text}]})
    assert coder.tokens.decode(chat).count(text) == 1


def test_an_argument_for_no_template_is_the_user_s_mistake():
    with pytest.raises(ValueError, match="--template-arg: the tokenizer has no chat template"):
        Encoder(tiny.tokenizer(), max_length=9, template_args=(("a", 1),))
