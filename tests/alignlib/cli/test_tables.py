"""Figures as people read them."""

import pytest

from alignlib.cli import tables

MEAN = {"mean": 0.64, "low": 0.6213, "high": 0.6587, "n": 1200}


@pytest.mark.parametrize(("value", "text"), [
    (None, "-"),
    ({**MEAN, "mean": None}, "-"),
    (MEAN, "0.640 [0.621, 0.659]"),
    ({**MEAN, "low": None, "high": None}, "0.64"),
    ({**MEAN, "low": 0.64, "high": 0.64}, "0.64 [0.64, 0.64]"),
    ({"mean": 150.0, "low": 120.0, "high": 190.0, "n": 3}, "150 [120, 190]"),
    ([1, 20], "1 to 20"),
    (0.123456, "0.1235"),
    (123456, "123456"),
    ("exo-rw", "exo-rw"),
])
def test_a_cell_shows_two_digits_of_the_interval(value, text):
    assert tables.cell(value) == text


def test_the_number_of_values_stands_in_the_header_where_it_is_one():
    rows = [{"method": "sft", "reward": MEAN}, {"method": "exo", "reward": MEAN}]
    assert tables.grid(rows)[0] == ["method", "reward (n = 1,200)"]
    header, body = tables.grid([rows[0], {"method": "exo", "reward": {**MEAN, "n": 2}}])
    assert header == ["method", "reward"] and body[1][1].endswith(" (n = 2)")
    assert tables.grid([rows[0], {"method": "exo"}])[1][1] == ["exo", "-"]


def test_columns_are_aligned():
    assert tables.text([{"a": "x", "b_c": 10}, {"a": "long", "b_c": 2}]) == "a     b c\nx      10\nlong    2"


def test_markdown_escapes_what_would_end_a_cell():
    assert tables.markdown([{"a": "x|y", "b": 1}]) == "| a | b |\n| --- | ---: |\n| x\\|y | 1 |"
    assert tables.markdown([]) == ""


def test_a_results_lists_are_tables_below_its_figures():
    text = tables.evaluation({"what": "reward", "reward": MEAN, "by_length": [{"words": [1, 9]}], "pairs": []})
    figures, by_length, pairs = text.split("\n\n")
    assert figures.splitlines()[2].split() == ["reward", "0.640", "[0.621,", "0.659]", "1,200"]
    assert by_length == "by length\nwords\n1 to 9" and pairs == "pairs: none"


def test_a_mean_or_the_number_itself():
    assert tables.mean_of(MEAN) == 0.64 and tables.mean_of(2) == 2 and tables.mean_of(None) is None
