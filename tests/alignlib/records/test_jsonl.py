"""Lines of JSON: every bad one is named by file and line."""

import bz2
import gzip
import lzma
import os

import pytest

from alignlib.records.jsonl import DataError, Skip, dumps, parse, read, read_all
from helpers.numbered import BAD, GOOD, write

# -- parse and read ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"{broken", "broken JSON: "),
        (b'{"a": NaN}', "NaN is no number in JSON"),
        (b'{"a": [-Infinity]}', "-Infinity is no number in JSON"),
        (b'{"a": "\\ud800"}', "broken JSON: no low surrogate"),
        (b'{"a": 1e999}', "1e999: beyond what a number of 64 bits can be"),
        (b'{"a": "\xff"}', "invalid UTF-8 at byte 8 of the line"),
        (b"[1, 2]", "expected an object, got an array"),
        (b"null", "expected an object, got null"),
        (b"true", "expected an object, got a boolean"),
        (b"1.5", "expected an object, got a number"),
        (b'"text"', "expected an object, got a string"),
    ],
)
def test_what_is_no_object_is_named(raw, words):
    with pytest.raises(ValueError, match=words):
        parse(raw)


@pytest.mark.parametrize(("content", "words"), [
    (b'[{"a": 1},\n{"a": 2}]\n', "a JSON array, not an object a line"),
    (b'{\n"a": 1\n}\n', "a JSON object over several lines"),
    (gzip.compress(b'{"a": 1}\n', mtime=0), "gzip, under a name that does not end in .gz"),
    (b"PAR1\x15\x04\n", "a Parquet file"),
    ('{"a": 1}\n'.encode("utf-16"), "UTF-16, not UTF-8"),
    (b"(\xb5/\xfd\x04\n", "packed by zstd"), (lzma.compress(b'{"a": 1}\n'), "packed by xz: unpack it first"),
    (bz2.compress(b'{"a": 1}\n'), "packed by bzip2: unpack it first"), (b"\x04\"M\x18\n", "packed by lz4"),
    ('{"a": 1}\n'.encode("utf-32"), "UTF-32, not UTF-8"), (b"<!doctype html>\n", "HTML or XML, not JSONL"),
    (bytes(100), "a NUL at byte 1 of the line, which is no text"),
])
def test_a_file_that_is_no_jsonl_is_said_to_be_what_it_is(tmp_path, content, words):
    with pytest.raises(DataError, match=f"a.jsonl:1: {words}"):
        list(read_all([write(tmp_path / "a.jsonl", content)]))


def test_gzip_on_standard_input_is_said_to_be_what_it_is(monkeypatch, tmp_path):
    monkeypatch.setattr("sys.stdin", open(write(tmp_path / "a", gzip.compress(b'{"a": 1}\n', mtime=0))))
    with pytest.raises(DataError, match=r"<stdin>:1: gzip: unpack it first \(gzip -dc FILE \| ...\)"):
        list(read_all())


@pytest.mark.parametrize(("raw", "words"), [
    (b'{"a": %s}' % (b"1" * 5000), "a number of 5,000 digits: beyond what a number of 64 bits can be"),
    (b'{"a": [-1e999]}', "-1e999: beyond what"), (b'{"a": "x\0"}', "a NUL at byte 9 of the line"),
    (b"\0" * 50 + b"\n", "a NUL at byte 1 of the line"), (b'{"a": 1' + b"2" * 5000, "a number of 5,001 digits"),
    (b'{"a": 1 2' + b"2" * 5000 + b"}", "broken JSON"),
])
def test_what_json_has_no_room_for_is_named(raw, words):
    with pytest.raises(ValueError, match=words):
        parse(raw)


def test_minus_0_is_what_the_page_says():
    assert dumps(parse(b'{"a":-0,"b":-0.0,"c":1E2}')) == b'{"a":0,"b":-0.0,"c":100.0}\n'


def test_a_record_keeps_its_order_and_text():
    raw = '{"z":1,"a":{"y":null,"b":[true,-0.5,1e-7]},"ü":"\u2028 \U0001f600 \\n\\u0000"}\n'.encode()
    assert dumps(parse(raw)) == raw


def test_marks_ends_and_blank_lines_are_taken_in_stride(tmp_path):
    name = write(tmp_path / "a", b"\xef\xbb\xbf", b'{"n": 1}\r\n', b"\n", b" \t\r\n", b'{"n": 2}')
    other = write(tmp_path / "b", b"\xef\xbb\xbf", b'{"n": 3}\n')
    lines = list(read([name, other]))
    assert [line.record for line in lines] == [{"n": 1}, {"n": 2}, {"n": 3}]
    assert [line.index for line in lines] == [0, 1, 2]
    assert [line.where for line in lines] == [f"{name}:1", f"{name}:4", f"{other}:1"]


def test_a_mark_in_the_middle_is_no_mark(tmp_path):
    lines = list(read([write(tmp_path / "a", GOOD[0], b"\xef\xbb\xbf", GOOD[1])]))
    assert lines[0].error is None and "broken JSON" in str(lines[1].error)


def test_gz_and_a_cut_gz(tmp_path):
    (tmp_path / "a.gz").write_bytes(gzip.compress(b"".join(GOOD)))
    assert [line.record["n"] for line in read([str(tmp_path / "a.gz")])] == list(range(10))
    big = gzip.compress(b"".join(b'{"n": %d, "r": "%s"}\n' % (n, os.urandom(64).hex().encode()) for n in range(5000)))
    name = write(tmp_path / "cut.gz", big[: len(big) // 2])
    with pytest.raises(DataError, match=r"cut\.gz:\d+: broken gzip"):
        list(read([name]))
    with pytest.raises(DataError, match=r"no\.gz:1: broken gzip"):
        list(read([write(tmp_path / "no.gz", *GOOD)]))


def test_read_all_fails_on_bad_lines_and_leaves_out_skipped_ones(tmp_path):
    def odd_only(record):
        if record["n"] % 2 == 0:
            raise Skip("even")
        return record["n"]

    name = write(tmp_path / "a", *GOOD[:5], BAD)
    seen = []
    with pytest.raises(DataError, match=r"a:6: broken JSON"):
        for line in read_all([name], odd_only):
            seen.append(line.data)
    assert seen == [1, 3]


def test_what_could_not_be_written_again_is_not_read():
    deep = b'{"a":' + b"[" * 400 + b"]" * 400 + b"}"
    with pytest.raises(ValueError, match="nested deeper"):
        parse(deep)
    deepest = b'{"a":' + b"[" * 249 + b"]" * 249 + b"}"
    assert dumps(parse(deepest)) == deepest + b"\n"
    with pytest.raises(ValueError, match="nested deeper"):
        parse(deepest.replace(b"[]", b"[[[[[[]]]]]]"))
    wide = b'{"a":[' + b"[]," * 400 + b"[]]}"
    assert len(parse(wide)["a"]) == 401
