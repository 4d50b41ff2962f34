"""What models read of a record."""

from alignlib.models.example import Example


def test_a_row_holds_the_prompt_once():
    example = Example([1, 2], [[3], [4, 5], []])
    assert example.length == 5 and Example([1, 2], []).length == 2


def test_what_a_cut_leaves_makes_no_other_example():
    assert Example([1], [[2]], head=1, tail=1) == Example([1], [[2]]) != Example([1], [[2]], {"rewards": [1.0]})
