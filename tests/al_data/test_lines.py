"""Lines that stay as they are."""

import gzip

import pytest

from al_data.lines import kept
from alignlib.records.jsonl import DataError


def test_lines_keep_their_bytes_and_get_a_newline(tmp_path):
    odd = b'{"b":1,  "a":"\\u00e9",\t"n":1.50}\r\n'
    (tmp_path / "a").write_bytes(b"\xef\xbb\xbf" + odd + b"\n  \n" + b'{"last":1}')
    (tmp_path / "b.gz").write_bytes(gzip.compress(odd))
    assert list(kept([str(tmp_path / "a"), str(tmp_path / "b.gz")])) == [odd, b'{"last":1}\n', odd]


def test_a_line_that_is_no_record_is_named(tmp_path):
    (tmp_path / "a").write_bytes(b'{"a":1}\n[1]\n')
    lines = kept([str(tmp_path / "a")])
    assert next(lines) == b'{"a":1}\n'
    with pytest.raises(DataError, match=f"^{tmp_path}/a:2: expected an object, got an array$"):
        next(lines)
