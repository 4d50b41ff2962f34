"""Instructions and answers -> records: ShareGPT, UltraChat, GSM8K, AlpacaEval in the forms they are published in."""

from collections import Counter

import pytest

from al_data.chats import alpaca_eval, gsm8k, numbered, sharegpt, teacher, ultrachat
from al_data.row import convert
from alignlib.records.dialogue import dialogue_prompt
from alignlib.records.jsonl import DataError, Skip
from alignlib.rewards.final_answers import is_right


def chat(*turns, name="c7"):
    return {"id": name, "conversations": [{"from": speaker, "value": text} for speaker, text in turns]}


TWO = chat(("human", "Name a fruit."), ("gpt", "A pear.\n"), ("human", "Another?"), ("gpt", "A plum."))


def test_sharegpt_gives_a_record_for_each_of_the_first_answers():
    first = {"id": "c7", "prompt": dialogue_prompt("Name a fruit."), "chosen": " A pear."}
    second = {"id": "c7-2", "prompt": dialogue_prompt("Name a fruit.", "A pear.", "Another?"), "chosen": " A plum."}
    assert sharegpt(TWO) == [first]
    assert sharegpt(TWO, turns=2) == sharegpt(TWO, turns=9) == [first, second]


def test_a_dialogue_ends_where_it_is_torn():
    assert len(sharegpt(chat(("human", "a"), ("gpt", "b"), ("gpt", "c"), ("human", "d"), ("gpt", "e")), turns=3)) == 1
    assert len(sharegpt(chat(("human", "a"), ("gpt", "b"), ("human", " "), ("gpt", "c")), turns=3)) == 1
    assert sharegpt(chat(("system", "Be short."), ("user", "a"), ("chatgpt", "b")))[0]["prompt"] == dialogue_prompt("a")


@pytest.mark.parametrize("row, reason", [
    (chat(("gpt", "b"), ("human", "c"), ("gpt", "d")), "begins with the assistant"),
    (chat(("human", "a"), ("gpt", "b</s>")), "a tokenizer's mark in it"),
    (chat(("human", "a"), ("human", "a"), ("gpt", "b")), "no answer to a first question"),
    (chat(("human", "a"), ("gpt", "\n")), "no answer to a first question"),
    (chat(), "no answer to a first question"),
])
def test_chats_without_a_lesson_are_skipped(row, reason):
    with pytest.raises(Skip, match=f"^{reason}$"):
        sharegpt(row)


def test_a_teacher_s_answer_joins_the_same_prompt():
    assert teacher({"key": "Name a fruit.", "value": [" An apple.", "x"]}) == {
        "prompt": sharegpt(TWO)[0]["prompt"], "chosen": " An apple."}


def test_both_forms_of_ultrachat():
    messages = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Me."}]
    records = [{"id": "u", "prompt": dialogue_prompt("Who?"), "chosen": " Me."}]
    assert ultrachat({"prompt": "Who?", "prompt_id": "u", "messages": messages}) == records
    assert ultrachat({"id": "u", "data": ["Who?", "Me.", "Why?", "So."]}) == records
    assert len(ultrachat({"id": "u", "data": ["Who?", "Me.", "Why?", "So."]}, turns=2)) == 2


def test_alpaca_eval_s_outputs_are_answers_to_compare_with():
    row = {"instruction": "Add 1 and 1.", "output": "2\n", "generator": "gpt4", "dataset": "sums", "raw_x": "y"}
    assert alpaca_eval({"id": "alpaca-eval-0", **row}) == {
        "id": "alpaca-eval-0", "prompt": dialogue_prompt("Add 1 and 1."), "completions": [" 2\n"],
        "instruction": "Add 1 and 1.", "generator": "gpt4", "dataset": "sums"}


ANNOTATED = {"instruction": "q", "output_1": "ref", "generator_1": "base", "output_2": "mine", "generator_2": "m"}


@pytest.mark.parametrize("preference, winner, probability", [
    (1, 1, None), (2.0, 0, None), (1.5, None, None), (0, None, None), (1.75, 0, 0.75), (1.25, 1, 0.25),
])
def test_annotations_are_preferences(preference, winner, probability):
    record = alpaca_eval({**ANNOTATED, "preference": preference})
    assert record["completions"] == [" mine", " ref"] and record["winner"] == winner
    assert record.get("win_probability") == probability and record["generator_2"] == "m"
    pair = None if winner is None else [record["completions"][winner], record["completions"][1 - winner]]
    assert pair == (None if winner is None else [record["chosen"], record["rejected"]])
    assert ("chosen" in record) == (winner is not None)


def test_an_annotation_that_failed_is_no_tie():
    with pytest.raises(Skip, match="^no preference$"):
        alpaca_eval({**ANNOTATED, "preference": None})


@pytest.mark.parametrize("function, row, message", [
    (sharegpt, {"conversations": {}}, "conversations: expected an array, got an object"),
    (sharegpt, chat(("human", None)), "value: expected a string, got null"),
    (sharegpt, {"id": "x"}, "conversations: missing"),
    (teacher, {"key": "a", "value": "b"}, "expected a list of answers, got a string"),
    (ultrachat, {"data": [1]}, "expected messages, or data: a list of texts"),
    (alpaca_eval, {"output": "x"}, "instruction: missing"),
    (alpaca_eval, {**ANNOTATED, "preference": 3}, "preference: expected 1 to 2, got 3"),
    (alpaca_eval, {**ANNOTATED, "preference": "1"}, "preference: expected a number, got a string"),
])
def test_rows_of_another_form_are_named(function, row, message):
    with pytest.raises(DataError, match=f"^f.json: item 2: {message}$"):
        list(convert([("f.json: item 2", row)], function, Counter()))


def test_alpaca_eval_numbers_its_rows_before_any_is_dropped():
    rows = [("f:1", {**ANNOTATED, "preference": None}), ("f:2", {**ANNOTATED, "preference": 2})]
    assert [record["id"] for record in convert(numbered(rows), alpaca_eval, Counter())] == ["alpaca-eval-1"]


# -- GSM8K -------------------------------------------------------------------------------------------------------


def test_gsm8k():
    """As published: the calculator's marks go, the number behind #### is the answer that `math` compares with."""
    row = {"question": "How many clips did she sell?",
           "answer": "In May 48/2 = <<48/2=24>>24 clips.\nIn all $<<1000+24=1024>>1,024.\n#### 1,024"}
    record = gsm8k(row)
    assert record == {"prompt": "\n\nHuman: How many clips did she sell?\n\nAssistant:",
                      "chosen": " In May 48/2 = 24 clips.\nIn all $1,024.\n#### 1,024", "answer": "1024"}
    assert is_right(record["chosen"], record["answer"])
    plain = {**record, "prompt": str(record["prompt"])}
    assert gsm8k(plain) is plain
    for answer in ("24 clips", "24\n#### "):
        with pytest.raises(ValueError, match="answer: expected a solution that ends with ####"):
            gsm8k({**row, "answer": answer})
    with pytest.raises(ValueError, match="question: missing"):
        gsm8k({"answer": "#### 1"})
