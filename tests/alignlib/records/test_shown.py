"""Text of strangers, as a terminal may get it."""

import json

import pytest

from alignlib.records.shown import dumps_to_terminal, one_line


@pytest.mark.parametrize(("text", "shown"), [
    ("plain, with \u00e9 and \u4e2d", "plain, with \u00e9 and \u4e2d"), ("a\nb\r\n  c\td ", "a b c d"),
    ("a\u2028b\u00a0c\x85d", "a b c d"), ("\x1b[31mred\x07", r"\x1b[31mred\x07"), ("\x00\x7f\x9b", r"\x00\x7f\x9b"),
    ("\u202eabc\u2066\u200b", r"\u202eabc\u2066\u200b"), ("half \udcff", r"half \udcff"), ("\U000e0041", r"\U000e0041"),
])
def test_a_line_of_what_can_be_printed(text, shown):
    assert one_line(text) == shown and shown.isprintable()


def test_a_record_is_the_same_on_a_terminal_with_controls_as_escapes():
    record = {"text": "\x1b[31m\x00\x7f\x9b2J\u202e\u2066 \u00e9\u4e2d \U0001f600\u200d", "\x9b": [1.5, None]}
    line = dumps_to_terminal(record).decode()
    assert json.loads(line) == record and line.endswith("\n")
    assert not set(line[:-1]) & set(map(chr, [*range(32), *range(127, 160), 0x202e, 0x2066])) and "\U0001f600" in line
