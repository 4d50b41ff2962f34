"""What is read of an answer: texts and why they ended, refusals, errors under 200, garbage."""

import json

import pytest

from alignlib.server.replies import (
    ErrorBody,
    Failure,
    NoAnswer,
    choice,
    error_status,
    error_words,
    read_body,
    usage,
)
from helpers.servers import BODIES, FILTERED, OTHERS, REFUSAL, message


def read(name: str) -> dict:
    return read_body(json.dumps(BODIES[name]).encode(), "application/json")


def test_a_choice_of_either_api_is_a_text_and_a_reason():
    plain = {"choices": [{"finish_reason": "stop", "text": "a"}, {"finish_reason": "length", "text": ""}]}
    assert choice(message("Hi")) == ("Hi", "stop", "") and choice(plain, 1) == ("", "length", "")


@pytest.mark.parametrize("reason", ["stop", "STOP", "eos", "eos_token", "end_turn", "stop_sequence", "COMPLETE", None,
                                    "", "null"])
def test_a_whole_text_is_a_stop_in_whatever_words(reason):
    assert choice(message("A", reason)) == ("A", "stop", "")
    assert choice({"choices": [{"finish_reason": reason, "text": "A"}]}) == ("A", "stop", "")


@pytest.mark.parametrize("reason", ["length", "max_tokens", "MAX_TOKENS", "model_length"])
def test_a_cut_text_is_one_in_whatever_words(reason):
    assert choice(message("A", reason)) == ("A", "length", "")


def test_parts_of_a_content_are_joined():
    assert choice(BODIES["parts"]).text == "A" and choice(BODIES["more parts"]).text == "A."
    with pytest.raises(ValueError, match=r"choices\[0\].message.content\[1\]: expected a text, got image_url"):
        choice(message(["a", {"type": "image_url", "image_url": {"url": "x"}}]))


def test_reasoning_stands_beside_the_text():
    assert choice(BODIES["reasoning"]) == ("", "stop", "The first is better.")
    assert choice(BODIES["reasoning, cut"]) == ("", "length", "The first is")
    assert choice(BODIES["empty"]) == ("", "stop", "")


@pytest.mark.parametrize(("name", "words", "says"), [
    ("refusal", REFUSAL, f"choices[0].message.refusal: {REFUSAL}"),
    ("refusal in parts", REFUSAL, f"choices[0].message.refusal: {REFUSAL}"),
    ("filter", "content_filter", "choices[0].finish_reason: content_filter"),
    ("filter, half of it there", "A, bec", "choices[0].finish_reason: content_filter: A, bec"),
    ("SAFETY", "safety", "choices[0].finish_reason: SAFETY"),
    ("tool_calls", "tool_calls", "choices[0].finish_reason: tool_calls"),
])
def test_a_refusal_is_no_answer_and_has_words(name, words, says):
    with pytest.raises(NoAnswer) as refused:
        choice(read(name))
    assert (refused.value.words, refused.value.message) == (words, says)
    again = refused.value.reworded("other")
    assert (type(again), again.words, again.message) == (NoAnswer, words, "other")


def test_a_reason_that_is_not_known_is_a_failure_and_one_that_passes_garbage():
    with pytest.raises(Failure, match=r"choices\[0\].finish_reason: tired$"):
        choice(BODIES["unknown"])
    with pytest.raises(ValueError, match=r"choices\[0\].finish_reason: abort$"):
        choice(BODIES["abort"])
    entry = {"message": {"content": ""}, "finish_reason": "error", "error": {"message": "upstream"}}
    with pytest.raises(ValueError, match=r"choices\[0\].finish_reason: error: upstream"):
        choice({"choices": [entry]})


@pytest.mark.parametrize(("body", "words"), [
    ({}, "choices: expected a list of some, got none"), ({"choices": 3}, "choices: expected a list of some, got a num"),
    ({"choices": ["a"]}, r"choices\[0\]: expected an object, got a string"),
    ({"choices": [{"text": "a", "finish_reason": 1}]}, r"choices\[0\].finish_reason: expected a string, got a number"),
    ({"choices": [{"finish_reason": "stop", "text": None}]}, r"choices\[0\].text: expected a text, got null"),
    (message(3), r"choices\[0\].message.content: expected a text, got a number"),
])
def test_garbage_is_no_choice(body, words):
    with pytest.raises(ValueError, match=words):
        choice(body)


@pytest.mark.parametrize(("name", "words", "status", "code"), [
    ("err200", "The model is overloaded, try later", 503, 503),
    ("err200b", "The model `m` does not exist.", 404, 404),
    ("err200c", "out of memory", None, None),
    ("quota200", "no credit", None, "insufficient_quota"),
    ("filter200", FILTERED, None, "content_filter"),
])
def test_an_error_under_200_is_named_with_the_status_that_it_says(name, words, status, code):
    with pytest.raises(ErrorBody) as refused:
        read(name)
    assert str(refused.value) == f"status 200, application/json, an error: {words}"
    assert (refused.value.words, refused.value.status, refused.value.code) == (words, status, code)


@pytest.mark.parametrize(("content", "kind", "says"), [
    (*OTHERS["html200"][:0:-1], "status 200, text/html, no JSON: <!doctype html>"),
    (*OTHERS["stream"][:0:-1], "status 200, text/event-stream, no JSON: data: {"),
    (b"", "", "status 200, no content type, no JSON: nothing"),
    (b"[1, 2]", "application/json", "status 200, application/json, expected an object: [1, 2]"),
    (b'{"detail": "Not here"}', "application/json", 'status 200, application/json, no choices: {"detail": "Not here"}'),
])
def test_a_body_that_is_none_is_named_with_its_kind_and_first_words(content, kind, says):
    kind = kind["Content-Type"] if isinstance(kind, dict) else kind
    with pytest.raises(ValueError) as garbage:
        read_body(content, kind)
    assert str(garbage.value).startswith(says) and not isinstance(garbage.value, ErrorBody)


def test_a_body_with_an_empty_error_is_an_answer():
    assert read_body(json.dumps(message("A") | {"error": None}).encode(), "application/json")["error"] is None


def test_tokens_that_a_server_does_not_count_are_none():
    assert usage({"usage": {"prompt_tokens": 7, "completion_tokens": 0}}) == (7, 0)
    assert usage({"usage": {"prompt_tokens": "7", "completion_tokens": True}}) == (None, None)
    assert usage({}) == usage({"usage": None}) == usage({"usage": [1]}) == (None, None)


@pytest.mark.parametrize("count", [-1, -10**9, 2**53 + 1, 2**63, 1e9, 7.0, "7", None, [7]])
def test_tokens_beyond_sense_are_not_counted(count):
    assert usage({"usage": {"prompt_tokens": count, "completion_tokens": 1}}) == (None, 1)
    assert usage({"usage": {"prompt_tokens": 2**53, "completion_tokens": count}}) == (2**53, None)


@pytest.mark.parametrize("depth", [260, 900])
def test_what_is_nested_too_deeply_is_garbage(depth):
    body = b'{"choices": [' + b"[" * depth + b"]" * depth + b"]}"
    with pytest.raises(ValueError, match="status 200, no content type, nested deeper than 250"):
        read_body(body, "")


def test_what_would_take_much_more_room_than_its_letters_is_garbage():
    with pytest.raises(ValueError, match="status 200, no content type, of more than 2,000,000 parts: {"):
        read_body(b'{"choices": [' + b"[]," * 1_000_000 + b"1]}", "")


def test_an_error_in_any_shape_has_words_and_a_status_or_none():
    deep: list = []
    for _ in range(100_000):
        deep = [deep]
    assert "nested too deeply" in error_words({"message": deep}) == error_words(deep)
    while deep:
        (deep,) = deep
    assert [error_status({"code": code}) for code in ("404", 503, "9" * 5000, 99, 600, "4040", None, [404])] == [
        404, 503, None, None, None, None, None, None]
