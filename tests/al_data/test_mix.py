"""al-data mix: what is drawn, in what proportion, and what happens where a source ends."""

from collections import Counter
from random import Random

import pytest

from al_data.mix import mixed
from helpers.process import call


def source(name: str, count: int) -> bytes:
    return b"".join(b'{"%s":  %d}\n' % (name.encode(), i) for i in range(count))


@pytest.fixture
def files(tmp_path):
    for name, count in (("a", 60), ("b", 30), ("c", 5)):
        (tmp_path / name).write_bytes(source(name, count))
    return tmp_path


def test_every_record_once_in_its_source_s_order(files):
    done = call("al-data", "mix", "0.7:a", "0.2:b", "0.1:c", "--seed", 3, cwd=files)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.encode().splitlines(keepends=True)
    for name in "abc":
        assert b"".join(line for line in lines if name.encode() in line[:3]) == (files / name).read_bytes()
    assert len(lines) == 95 and lines != sorted(lines)
    again = call("al-data", "mix", "0.7:a", "0.2:b", "0.1:c", "--seed", 3, "-o", "out", cwd=files)
    assert again.returncode == 0 and (files / "out").read_text() == done.stdout
    assert call("al-data", "mix", "0.7:a", "0.2:b", "0.1:c", cwd=files).stdout != done.stdout
    assert "note: c: ended after 5 records; the others go on\n" in done.stderr
    assert "note: 60 of a, 30 of b, 5 of c\n" in done.stderr and done.stderr.count("ended") == 2


def test_until_first_stops_where_the_first_source_ends(files):
    done = call("al-data", "mix", "1:a", "9:c", "--until", "first", cwd=files)
    assert done.stdout.count('"c"') == 5 and done.stdout.count('"a"') < 6 and "ended" not in done.stderr
    lines = call("al-data", "mix", "1:a", "9:c", "--until", "first", "--limit", 4, cwd=files).stdout
    assert done.stdout.startswith(lines) and lines.count("\n") == 4


def test_standard_input_may_be_one_of_them(files):
    done = call("al-data", "mix", "1:a", "1:-", cwd=files, stdin=source("s", 3))
    assert done.stdout.count('"s"') == 3 and "3 of -" in done.stderr
    done = call("al-data", "mix", "1:-", "1:-", cwd=files)
    assert done.returncode == 2 and "one source only" in done.stderr


@pytest.mark.parametrize(("arguments", "message"), [
    (["a"], "a: expected a weight above 0 and a file, as in 0.7:a.jsonl"),
    (["0:a"], "0:a: expected a weight above 0"),
    (["nan:a"], "expected a weight above 0"),
    (["1:"], "expected a weight above 0 and a file"),
    (["1:none"], "none: no such file"),
    (["1:a", "1:b", "-o", "a"], "a: would be overwritten while it is in use"),
    ([], "Missing argument 'SOURCES...'"),
])
def test_what_it_is_not_given(files, arguments, message):
    done = call("al-data", "mix", *arguments, cwd=files)
    assert (done.returncode, done.stdout) == (2, "") and message in done.stderr
    assert (files / "a").read_bytes() == source("a", 60)


def test_a_bad_line_is_named_and_no_output_is_left(files):
    (files / "bad").write_bytes(b'{"x":1}\n{broken\n')
    done = call("al-data", "mix", "1:bad", "-o", "out", cwd=files)
    assert done.returncode == 65 and "bad:2: broken JSON" in done.stderr and not (files / "out").exists()


def test_weights_are_shares_as_long_as_no_source_ends():
    def endless(name):
        while True:
            yield name

    taken = Counter()
    lines = mixed([(3.0, "a", endless(b"a")), (1.0, "b", endless(b"b"))], Random(0), True, taken)
    drawn = Counter(next(lines) for _ in range(4000))
    assert abs(drawn[b"a"] - 3000) < 4 * (4000 * 0.75 * 0.25) ** 0.5 and taken == {"a": drawn[b"a"], "b": drawn[b"b"]}


def test_what_is_left_goes_on_in_its_proportion(capsys):
    taken = Counter()
    sources = [(8.0, "a", iter([b"a"] * 10)), (3.0, "b", iter([b"b"] * 3000)), (1.0, "c", iter([b"c"] * 3000))]
    lines = list(mixed(sources, Random(1), False, taken))
    assert taken == {"a": 10, "b": 3000, "c": 3000} and len(lines) == 6010
    tail = Counter(lines[100:2100])
    assert abs(tail[b"b"] - 1500) < 4 * (2000 * 0.75 * 0.25) ** 0.5
    assert capsys.readouterr().err == ("note: a: ended after 10 records; the others go on\n"
                                       "note: b: ended after 3,000 records; the others go on\n")


def test_a_files_name_cannot_write_to_the_terminal(tmp_path, capfd):
    """What its note says of it is one line, in which ESC is no more than its name."""
    odd = tmp_path / "e\x1b[31m\nred"
    odd.write_bytes(b'{"prompt": "a"}\n')
    done = call("al-data", "mix", f"1:{odd}", "-o", tmp_path / "m")
    assert done.returncode == 0 and "1 of " in done.stderr and "e\\x1b[31m red" in done.stderr
    assert "\x1b" not in done.stderr
