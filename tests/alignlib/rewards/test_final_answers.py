"""The final answer of a worked solution, found and compared as verifiers of the field do."""

import pytest

from alignlib.rewards.final_answers import final_number, is_right, last_box, normal


@pytest.mark.parametrize(("completion", "answer"), [
    ("48 + 24 = 72.", "72"), ("It is 72", 72), ("It is 72", 72.0), (" She has 72 clips.\n#### 72", "72"),
    ("#### 72", "He sold 24.\n#### 72"), ("#### 1,000\nfor 3 days", "1000"), ("She has $1,072.50 left.", "1072.5"),
    ("1,234,567", "1234567"), ("5, and then 10,000.", "10,000"), ("50%", "50"), (r"\boxed{50\%}", "50"),
    ("-$5", "-5"), ("$-5", -5), ("It costs −7 dollars", "-7"), ("10-5", "5"), ("x = -3", -3), ("42km", 42),
    ("**42**", 42), ("(42)", "42"), ("42.0", "42"), ("half: 1/2", "0.5"), (r"it is \frac{3}{4}.", "3/4"),
    (r"\boxed{\frac{1}{2}}", "0.5"), (r"\boxed{\dfrac12}", r"\frac{1}{2}"), (r"\boxed{-\frac{1}{2}}", "-0.5"),
    (r"\boxed{\tfrac{x+1}{2}}", r"\frac{x+1}{2}"), (r"\boxed{\frac{\sqrt{2}}{2}}", r"\frac{\sqrt{2}}{2}"),
    (r"\boxed{x=5}", "5"), (r"\boxed{42 \text{ km}}", "42"), (r"$\boxed{90^\circ}$", "90"), (r"\boxed 72", 72),
    (r"\boxed{3}, no, \boxed{4}", "4"), (r"\boxed{ (1, 2) }", "(1,2)"), (r"\boxed{\left(1,2\right)}", "(1, 2)"),
    (r"\boxed{B}", "B"), (r"\boxed{\text{Evelyn}}", r"\text{Evelyn}"), ("#### B", "B"), (r"\fbox{7}", 7),
    (r"\boxed{7} is it, after 3 tries", 7), ("7", r"so \boxed{7}"), ("1e3", 1000), ("2 eggs", 2),
    ("The total is:\n- 5 apples", 5), ("Total - $72", 72), ("It is 10 - 5", 5), (r"\boxed{1{,}000}", "1000"),
    ("#### **72**", 72), ("#### 72 (dollars)", 72), ("#### 72 of 100", 72), ("#### 5 + 3 = 8", 8), ("#### x = -8.", -8),
    ("#### Final Answer\nThe answer is 72.", 72), ("#### Answer: 72", 72), (r"\boxed{- 3}", -3), ("#### **B**", "B"),
])
def test_right(completion, answer):
    assert is_right(completion, answer)


@pytest.mark.parametrize(("completion", "answer"), [
    ("73", "72"), ("", "72"), ("no number", "72"), ("72 or 73", "72"), (r"\boxed{10 or 12}", "12"), ("10-5", -5),
    (r"72, so \boxed{71}", "72"), (r"72 \boxed{}", "72"), (r"\boxed{1", "2"), ("the answer is B", "B"), ("", ""),
    ("1/0", "0"), ("9" * 5000, "9"), ("1e400", "1"), (r"\boxed{(1,2)}", "(2,1)"), ("0.33", "1/3"),
    ("72", "seventy-two"), ("It is 10 - 5", -5), ("#### None\nat all", "1"), (r"\boxed{} #### 72", 72),
])
def test_wrong(completion, answer):
    assert not is_right(completion, answer)


def test_a_box_comes_before_a_mark_and_a_mark_before_a_number():
    text = r"\boxed{1} and #### 2" + "\nand 3"
    assert final_number(text) == 1 and final_number(text.replace("boxed", "bold")) == 2
    assert final_number("1, 2 and 3") == 3 and final_number("none") is None
    assert last_box(r"\boxed{\frac{1}{2}} of \boxed{a{b}c}") == "a{b}c" and last_box("{1}") is None


def test_what_does_not_change_an_answer_is_left_out():
    for text in ("1000", "$1,000", r"\$1,000.", "x = 1000", "1 000".replace(" ", r"\,"), r"\left1000\right"):
        assert normal(text) == "1000"
    assert normal("x + 1") == normal("x+1") != normal("x1")
