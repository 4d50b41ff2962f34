"""Text of strangers, as a terminal may get it."""

import pytest

from alignlib.records.shown import one_line


@pytest.mark.parametrize(("text", "shown"), [
    ("plain, with \u00e9 and \u4e2d", "plain, with \u00e9 and \u4e2d"), ("a\nb\r\n  c\td ", "a b c d"),
    ("a\u2028b\u00a0c\x85d", "a b c d"), ("\x1b[31mred\x07", r"\x1b[31mred\x07"), ("\x00\x7f\x9b", r"\x00\x7f\x9b"),
    ("\u202eabc\u2066\u200b", r"\u202eabc\u2066\u200b"), ("half \udcff", r"half \udcff"), ("\U000e0041", r"\U000e0041"),
])
def test_a_line_of_what_can_be_printed(text, shown):
    assert one_line(text) == shown and shown.isprintable()
