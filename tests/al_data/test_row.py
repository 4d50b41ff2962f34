"""Rows and the records they become: what is dropped is counted, what is wrong is named, shares meet."""

import math
from collections import Counter

import pytest

from al_data.row import convert, number, objects, own, share, string, unmarked
from alignlib.records.jsonl import DataError, Skip


def double(row):
    """A row function: two records of a row, none of one without a lesson."""
    if row["x"] == 0:
        raise Skip("nothing in it")
    return [{"y": number(row, "x")}, {"y": 2 * number(row, "x")}]


def test_rows_become_records_and_the_rest_is_counted():
    dropped = Counter()
    rows = [("f:1", {"x": 1}), ("f:2", {"x": 0}), ("f:3", {"x": 3})]
    assert list(convert(rows, double, dropped)) == [{"y": 1}, {"y": 2}, {"y": 3}, {"y": 6}]
    assert dropped == {"nothing in it": 1}
    with pytest.raises(DataError, match="^f:4: x: expected a number, got a string$"):
        list(convert([("f:4", {"x": "1"})], double, dropped))


@pytest.mark.parametrize("first, last, taken", [(0, 0.29, range(29)), (0.29, 1, range(29, 100)), (0, 1, range(100)),
                                                (0.1, 0.1, range(0)), (0, 0.005, range(0))])
def test_shares_meet_without_a_gap(first, last, taken):
    assert list(share(range(100), first, last)) == list(taken)


@pytest.mark.parametrize("read, value, message", [
    (string, 1, "x: expected a string, got a number"), (number, "1", "x: expected a number, got a string"),
    (number, True, "x: expected a number, got a boolean"),
    (number, 2**64 - 1, "x: expected a number of 64 bits, got 18446744073709551615"),  # 1 - it is none of JSON's
    (number, math.nan, "x: not finite"),  # of a .parquet file
    (objects, {}, "x: expected an array, got an object"),
    (objects, [{}, 1], r"x\[1\]: expected an object, got a number"),
])
def test_a_field_of_another_type_is_named(read, value, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        read({"x": value}, "x")
    with pytest.raises(ValueError, match="^x: missing$"):
        read({}, "x")


def test_a_record_of_our_own_form_is_the_row_itself():
    row = {"prompt": "p", "chosen": " c", "extra": 1}
    assert own(row, "prompt", "chosen") is row
    with pytest.raises(ValueError, match="^rejected: missing$"):
        own(row, "rejected")


def test_conversations_of_our_own_form_become_what_commands_see():
    asked, pair = [{"role": "user", "content": "p"}], [[{"role": "assistant", "content": text}] for text in "cr"]
    trl = {"id": 1, "prompt": asked, "chosen": pair[0], "rejected": pair[1]}
    assert own(trl, "prompt", "chosen", "rejected") == {"id": 1, "messages": asked, "chosen": "c", "rejected": "r"}
    assert own({"messages": [*asked, *pair[0]]}, "prompt", "chosen") == {"messages": asked, "chosen": "c"}
    with pytest.raises(ValueError, match="^rejected: ends with a turn of user, not of assistant$"):
        own({**trl, "rejected": asked}, "prompt")


def test_a_tokenizer_s_mark_is_skipped():
    unmarked("a < b", "<S>")
    with pytest.raises(Skip, match="^a tokenizer's mark in it$"):
        unmarked("fine", "not </s> so")
