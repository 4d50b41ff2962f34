"""Chat templates: what ends a turn, what reaches them, what is made of bad ones."""

import click
import pytest

from alignlib.models import chat
from alignlib.models.chat import ChatTemplate
from alignlib.models.tokens import MARK, Tokens
from helpers import tiny

HI = [{"role": "user", "content": "Hi"}]


def template(source=tiny.CHATML, **arguments):
    words = tiny.chat_tokenizer(source)
    return ChatTemplate(words, Tokens(words), arguments=arguments)


def test_the_end_of_a_turn_is_the_first_control_token_behind_an_answer():
    assert template().end == tiny.TURN_END
    ended = "{% for m in messages %}{{ m.role }}: {{ m.content | trim }}<|eos|><|im_end|>\n{% endfor %}"
    assert template(ended).end == tiny.tokenizer().eos_token_id
    assert template("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}").end is None
    assert template("{{ raise_exception('never') }}").end is None


def test_what_is_written_is_what_transformers_writes():
    conversation = template()
    answered = [*HI, {"role": "assistant", "content": "Hello."}]
    words = conversation.tokenizer
    assert conversation.ids(HI) == words.apply_chat_template(HI, add_generation_prompt=True)["input_ids"]
    assert conversation.ids(HI, "Hello.") == words.apply_chat_template(answered)["input_ids"]
    assert conversation.is_written("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n", HI, {})
    assert not conversation.is_written("Human: Hi", HI, {})


def test_arguments_and_fields_that_are_asked_for_reach_it():
    source = ("{{ tone }}{{ messages[0].content }}{% for t in tools or [] %}[{{ t.name }}]{% endfor %}"
              "{{ place }}{{ id }}")
    written = template(source, tone="low").write(HI, record={"tools": [{"name": "f"}], "place": "here", "id": "7",
                                                             "other": "x"})
    assert written == "lowHi[f]here"  # id is a field of ours, other nobody asked for
    assert template(source).write(HI, record={"chat_template_kwargs": {"tone": "high"}}) == "highHi"
    for name in ("tokenize", "messages"):
        with pytest.raises(click.UsageError, match=f"--template-arg {name}"):
            template(**{name: True})


def test_control_tokens_in_messages_and_tools_are_marked():
    source = "<|im_start|>{{ messages[0].content }}{{ tools[0].name }}"
    written = template(source).write([{"role": "user", "content": "<|eos|>"}], record={"tools": [{"name": "<|pad|>"}]})
    assert written == f"<|im_start|>{MARK}<|eos|>{MARK}<|pad|>"


@pytest.mark.parametrize("source", ["{{ raise_exception('Roles must alternate') }}", "{{ messages[0].content + 1 }}",
                                    "{{ nothing.at.all }}", "{{ 1 / 0 }}", "{{ messages[7].content.x }}"])
def test_one_that_refuses_a_record_is_bad_data(source):
    with pytest.raises(ValueError, match=r"^messages: the chat template refuses them \(.+\)$"):
        template(source).write(HI)


def test_one_that_does_not_parse_is_a_usage_error():
    for source in ("{% for %}", "{{ 'x' | no_such_filter }}"):
        words = tiny.chat_tokenizer(source)
        words.name_or_path = "a/folder"
        with pytest.raises(click.UsageError, match="^a/folder: the chat template: line 1: "):
            ChatTemplate(words, Tokens(words))
        with pytest.raises(click.UsageError, match="^the chat template: line 2: "):
            ChatTemplate(words, Tokens(words), f"\n{source}")


def test_one_that_does_not_end_is_cut_off(monkeypatch):
    monkeypatch.setattr(chat, "SECONDS", 0.3)
    loop = "{% for a in range(99999) %}{% for b in range(99999) %}{% set c = a %}{% endfor %}{% endfor %}"
    with pytest.raises(ValueError, match="takes too long"):
        template("{% if messages[0].content == 'Hi' %}" + loop + "{% endif %}").write(HI)
    monkeypatch.undo()
    assert template().write(HI)  # and others go on


def test_one_that_grows_is_cut_off(monkeypatch):
    monkeypatch.setattr(chat, "CHARACTERS", 1000)
    long = "{% if messages[0].content == 'Hi' %}{% for a in range(2000) %}x{% endfor %}{% endif %}"
    with pytest.raises(ValueError, match="makes 2,000 characters"):
        template(long).write(HI)


@pytest.mark.slow
def test_one_that_takes_memory_is_cut_off(monkeypatch):
    """Also in a process that has had more memory before: what counts is what it has now."""
    had = bytearray(b"x") * (800 << 20)
    del had
    monkeypatch.setattr(chat, "BYTES", 1 << 28)
    double = ("{% for a in range(99999) %}{% if n.s | length < 300000000 %}{% set n.s = n.s ~ n.s %}{% endif %}"
              "{% for b in range(99999) %}{% set c = a %}{% endfor %}{% endfor %}")
    with pytest.raises(ValueError, match="takes too much memory"):
        template("{% if messages[0].content == 'Hi' %}{% set n = namespace(s='x' * 1000000) %}" + double + "{% endif %}"
                 ).write(HI)


def test_between_two_answers():
    conversation = template()
    before, more = conversation.write(HI), [*HI, {"role": "assistant", "content": " Yo "}, HI[0]]
    after = conversation.write(more)
    assert conversation.between(before, " Yo ", after) == conversation.tokens.rendered(
        "\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")
    with pytest.raises(ValueError, match="writes earlier answers otherwise"):
        conversation.between(before, "Ya", after)
