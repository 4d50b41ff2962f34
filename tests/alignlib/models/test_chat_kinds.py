"""Kinds of chat templates: those that read parts, that write something before an answer, that ask for the date."""

import click
import pytest

from alignlib.models import chat, encoding
from alignlib.models.encoding import Encoder
from helpers import tiny

HI = [{"role": "user", "content": "Hi <|im_end|>"}]
# What goes round the contents in templates of models that see: LLaVA's filters the parts, SmolVLM's looks at each.
FILTERED = "{% for part in m['content'] | selectattr('type', 'equalto', 'text') %}{{ part['text'] }}{% endfor %}"
LOOKED_AT = "{% for part in m['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}"
# LLaVA-NeXT's kind: an answer of words alone is refused, a question of words alone is none.
EITHER = ("{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['role'] == 'assistant' %}"
          "{{ m['content'][0]['text'] }}{% else %}" + FILTERED + "{% endif %}<|im_end|>\n{% endfor %}"
          "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")
# Qwen3's kind: an answer that has not thought gets a thought that is empty.
THINKING = tiny.CHATML.replace("{{ m['content'] }}", (
    "{% if m['role'] == 'assistant' and '</think>' not in m['content'] and loop.last %}"
    "<think>\n\n</think>\n\n{% endif %}{{ m['content'] }}"))
# gpt-oss's kind: what an answer is for stands before it, in control tokens, and is the model's to write.
CHANNELS = ("{% for m in messages %}<|im_start|>{{ m['role'] }}"
            "{% if m['role'] == 'assistant' %}<|bos|>final{% endif %}\n{{ m['content'] }}<|im_end|>{% endfor %}"
            "{% if add_generation_prompt %}<|im_start|>assistant{% endif %}")
DATED = "{{ strftime_now('%Y-%m-%d') }}" + tiny.CHATML


def coder(template, **settings):
    return Encoder(tiny.chat_tokenizer(template, bos=False), max_length=99, **settings)


@pytest.mark.parametrize("template", [tiny.CHATML.replace("{{ m['content'] }}", FILTERED),
                                      tiny.CHATML.replace("{{ m['content'] }}", LOOKED_AT), EITHER])
def test_templates_of_models_that_see_get_the_words(template):
    plain, parts = coder(tiny.CHATML), coder(template)
    record = {"messages": [{"role": "system", "content": "Be brief."}, *HI]}
    assert parts.template.end == tiny.TURN_END
    assert parts.encode(record, ["Yo"]) == plain.encode(record, ["Yo"])
    assert parts.begin(record, "Good. ") == plain.begin(record, "Good. ")
    turns = {"messages": [*HI, {"role": "assistant", "content": "Yo"}, *HI]}
    assert parts.encode_turns(turns, "Yes") == plain.encode_turns(turns, "Yes")


def test_one_that_leaves_out_what_the_user_says_is_none():
    with pytest.raises(click.UsageError, match="the chat template leaves out what the user says"):
        coder("{% for m in messages %}<|im_start|>{{ m['role'] }}<|im_end|>{% endfor %}")


@pytest.mark.parametrize("template", [THINKING, CHANNELS])
def test_what_leads_to_an_answer_is_learnt_with_it(template):
    """The ids are those of the whole conversation, as the template writes it; what was drawn stays what was drawn."""
    words = coder(template)
    turns = [{"role": "user", "content": "Hi"}]
    for answer in ("Yo", "<think>\nHm.\n</think>\n\nYo"):
        whole = words.tokenizer.apply_chat_template([*turns, {"role": "assistant", "content": answer}])["input_ids"]
        whole = whole[:len(whole) - whole[::-1].index(tiny.TURN_END)]
        example = words.encode({"messages": turns}, [answer, answer])
        assert [example.prompt + row for row in example.completions] == [whole, whole]
    drawn = {"messages": turns, "finish_reasons": ["stop"]}
    assert words.encode(drawn, ["Yo"]).completions == [[*b"Yo", tiny.TURN_END]]
    stored = {"messages": turns, "completion_ids": [[*b"Yo"]], "end_ids": [None]}
    assert words.encode(stored, ["Yo"]).completions == [[*b"Yo"]]
    hostile = words.encode({"messages": turns}, ["Yo <|im_end|>"]).completions[0]
    assert hostile.count(tiny.TURN_END) == 1 and words.tokens.decode(hostile).endswith("Yo <|im_end|>")


@pytest.mark.parametrize("written", ["", "<think></think>"])
def test_an_answer_behind_a_thought_that_is_begun_is_said(written, capsys):
    """DeepSeek's kind, and Nemotron's: asked for in the midst of a thought, where no answer is written."""
    encoding.note.cache_clear()
    answer = "{% if m['role'] == 'assistant' %}" + written + "{% endif %}{{ m['content'] }}"
    words = coder(tiny.CHATML.replace("{{ m['content'] }}", answer).replace("assistant\n{%", "assistant\n<think>\n{%"))
    record = {"messages": [{"role": "user", "content": "Hi"}]}
    words.encode({**record, "finish_reasons": ["stop"]}, ["Yo"])
    assert not capsys.readouterr().err
    assert words.encode(record, ["Yo"]).completions == [[*b"Yo", tiny.TURN_END]]
    said = capsys.readouterr().err
    assert r"assistant\n<think>\n', and" in said and rf"\n{written}'; here" in said
    encoding.note.cache_clear()


def test_a_date_is_one_for_all_of_a_run(monkeypatch, capsys):
    """The environment's, where that says one: another day then writes the same prompts. Else it is said."""
    encoding.note.cache_clear()
    monkeypatch.setenv(chat.EPOCH, "86400")
    assert coder(DATED).template.write(HI).startswith("1970-01-02<|im_start|>") and not capsys.readouterr().err
    monkeypatch.delenv(chat.EPOCH)
    words = coder(DATED)
    first = words.prompt({"messages": HI})
    monkeypatch.setattr(chat, "now", lambda: pytest.fail("asked again"))  # as it might be after midnight
    assert words.prompt({"messages": HI}) == first
    assert "writes today's date" in capsys.readouterr().err
    encoding.note.cache_clear()


def test_a_conditions_own_tokens_stay_tokens_in_a_conversation():
    """Quark's tags are tokens of their own; the data's names of such stay text."""
    words = tiny.chat_tokenizer(bos=False)
    words.add_tokens(["<|best|>"], special_tokens=True)
    tag = words.convert_tokens_to_ids("<|best|>")
    encoder = Encoder(words, max_length=99)
    for role in ("user", "system"):
        prompt = encoder.prompt({"messages": [{"role": "user", "content": "Hi <|best|>"}]}, "<|best|>", role)
        assert prompt.count(tag) == 1 and "Hi <|best|>" in encoder.tokens.decode(prompt)
