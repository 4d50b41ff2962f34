"""Rewards by program: the user's functions and programs, rules; what they get wrong is named with the record."""

import json
import sys

import click
import pytest

from alignlib.rewards.programs import RewardFailure, files_of, is_program, program_for, request_lines
from alignlib.toy import world

RECORD = {"prompt": "p", "completions": [" one two", " three 4"], "answer": "4", "finish_reasons": ["stop", "length"],
          "id": "7"}
FILE = """
import sys

import sibling
print("imported")


def words(record, completions):
    print("called")
    record["prompt"] = completions[0] = "changed"
    return [sibling.count(text) for text in completions]


def fails(record, completions):
    return {}[record["id"]]


def gives(record, completions):
    return record["gives"]


def leaves(record, completions):
    sys.exit(0)


def generates(record, completions):
    for text in completions:
        yield "4" in text


class Judge:
    def __call__(self, record, completions):
        return [1, 2]


judge = Judge()
number = 3
"""


@pytest.fixture
def file(tmp_path, monkeypatch):
    """A file of functions, and one beside it that it imports; both are forgotten afterwards."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "my_rewards.py").write_text(FILE)
    (tmp_path / "sibling.py").write_text("def count(text):\n    return len(text.split())\n")
    yield tmp_path / "my_rewards.py"
    for name in ("my_rewards", "sibling"):
        sys.modules.pop(name, None)


def rewards(name, record=None, **more):
    program = program_for(name)
    record = {**RECORD, **(record or {}), **more}
    with program:
        [row] = program.score([("in:3", program.prepare(record))])
    return row


def failure(name, **more) -> str:
    with pytest.raises(RewardFailure) as raised:
        rewards(name, **more)
    message = raised.value.format_message()
    assert message.startswith(f"in:3: {name}: ") and message == f"in:3: {raised.value.reason}"
    return message.removeprefix(f"in:3: {name}: ")


def refused(name) -> str:
    with pytest.raises(click.UsageError) as raised:
        program_for(name)
    assert "\n" not in raised.value.message
    return raised.value.message


# -- rules -----------------------------------------------------------------------------------------------------


def test_rules():
    assert rewards("length") == [2, 2] and rewards("length", completions=["", "a\nb  c"]) == [0, 3]
    assert rewards("math") == [0, 1] and rewards("math", answer=4) == [0, 1]
    assert rewards("re:^ t.*[0-9]$") == [0, 1] and rewards("re:") == [1, 1]
    expected = [world.score("polite", "p", text) for text in RECORD["completions"]]
    assert rewards("toy:polite") == expected


@pytest.mark.parametrize(("name", "message"), [
    ("re:(", "re:(: missing ), unterminated subpattern"), ("toy:nobody", "no such oracle; there are overall"),
    ("py:length", "expected py:FILE.py:FUNCTION"), ("py:none.py:f", "none.py: no such file"),
    ("py:/dev/null:f", "/dev/null: no such file"), ("cmd:no-such-program", "no-such-program: no such program"),
])
def test_what_is_not_there_is_refused(name, message):
    assert message in refused(name)


def test_a_record_that_a_rule_cannot_judge_is_a_bad_one():
    for name, record, message in (
        ("math", {"prompt": "p"}, "answer: missing: what math compares with"),
        ("math", {"prompt": "p", "answer": ["4"]}, "answer: expected"),
        ("toy:polite", {"messages": []}, "prompt: missing (an oracle reads no messages)"),
        ("toy:polite", {"prompt": 5}, "prompt: expected a string"),
    ):
        with pytest.raises(ValueError) as raised:
            program_for(name).prepare(record)
        assert message in str(raised.value)


def test_names_of_programs():
    assert all(map(is_program, ("py:a.py:f", "cmd:x", "re:x", "length", "math", "toy:polite")))
    assert not any(map(is_program, ("./length", "rm", "org/math", "python", "C:/rm")))


# -- functions ---------------------------------------------------------------------------------------------------


def test_a_function_gets_the_record_and_its_completions(file, capsys):
    assert rewards(f"py:{file}:words") == [1, 2]
    assert RECORD["prompt"] == "p" and RECORD["completions"][0] == " one two"  # what it changes is a copy
    out, err = capsys.readouterr()
    assert (out, err) == ("", "imported\ncalled\n")
    assert sys.modules["my_rewards"].words.__module__ == "my_rewards"
    assert rewards(f"py:{file}:generates") == [0, 1] and rewards(f"py:{file}:judge") == [1, 2]
    assert capsys.readouterr().err == ""  # one module, imported once


def test_who_leaves_is_named_too(file):
    assert failure(f"py:{file}:leaves").startswith("SystemExit: 0 (my_rewards.py:")


def test_an_exception_is_one_line_with_its_place(file):
    line = FILE.splitlines().index("    return {}[record[\"id\"]]") + 1
    assert failure(f"py:{file}:fails") == f"KeyError: '7' (my_rewards.py:{line})"


@pytest.mark.parametrize(("gives", "message"), [
    ([1.0], "expected 2 numbers, one a completion, got 1"), ([1, 2, 3], "one a completion, got 3"),
    (1.0, "one a completion, got float"), ("12", "one a completion, got str"), ({"a": 1, "b": 2}, "got dict"),
    (None, "got NoneType"), ([1, "2"], "completions[1]: expected a finite number, got '2'"),
    ([float("nan"), 1], "completions[0]: expected a finite number, got nan"), ([1, -float("inf")], "got -inf"),
    ([1, None], "completions[1]: expected a finite number, got None"), ([10**400, 1], "expected a finite number"),
    ([[1], [2]], "got [1]"),
])
def test_what_are_not_as_many_numbers_is_named(file, gives, message):
    assert message in failure(f"py:{file}:gives", gives=gives)


def test_numbers_of_any_kind(file):
    import numpy as np

    assert rewards(f"py:{file}:gives", gives=np.array([1, 2.5], dtype="float32")) == [1, 2.5]
    assert rewards(f"py:{file}:gives", gives=(True, np.int64(3))) == [1, 3]
    assert all(type(value) is float for value in rewards(f"py:{file}:gives", gives=(True, 2)))
    assert "completions[0]" in failure(f"py:{file}:gives", gives=np.ones((2, 2)))


def test_files_that_cannot_be_imported_are_refused(file):
    assert f"py:{file}:none: no function none there, only words, fails, gives, leaves, generates, Judge" in refused(
        f"py:{file}:none")
    assert "no function number" in refused(f"py:{file}:number")
    broken = file.parent / "broken_rewards.py"
    broken.write_text("x = 1\nraise SystemExit('no')\n")
    assert "cannot be imported: SystemExit: no (broken_rewards.py:2)" in refused(f"py:{broken}:f")
    broken.write_text("def f(:\n")
    assert "cannot be imported: SyntaxError: invalid syntax" in refused(f"py:{broken}:f")
    for name in ("json", "tomllib"):  # loaded already, and one that may be yet
        (file.parent / f"{name}.py").write_text("def f(record, completions): ...\n")
        assert f"there is a module {name} already: call the file otherwise" in refused(f"py:{file.parent}/{name}.py:f")
    (file.parent / "rewards.txt").write_text("")
    assert "rewards.txt: no .py file" in refused(f"py:{file.parent}/rewards.txt:f")


# -- programs ----------------------------------------------------------------------------------------------------

PROGRAM = """
import json, sys
for line in sys.stdin:
    record = json.loads(line)
    print(record["give"] if "give" in record else len(record["completion"]))
"""


@pytest.fixture
def command(tmp_path):
    (tmp_path / "judge.py").write_text(PROGRAM)
    return f"cmd:{sys.executable} -S {tmp_path}/judge.py"


def test_a_program_reads_a_line_a_completion(command):
    """The record's fields but for those that are of completions."""
    assert [json.loads(line) for line in request_lines(RECORD)] == [
        {"prompt": "p", "answer": "4", "id": "7", "completion": text} for text in RECORD["completions"]]
    assert rewards(command) == [8, 8]
    assert rewards(command, completions=["ä\n\u2028", ""]) == [3, 0]


def test_a_program_is_asked_about_many_records_at_once(command):
    with program_for(command) as program:
        asked = [(f"in:{i}", {"prompt": "p", "completions": ["x" * i, "y" * 1000]}) for i in range(30)]
        assert program.score(asked) == [[i, 1000] for i in range(30)]
        assert program.score([]) == []


@pytest.mark.parametrize(("give", "message"), [
    ("nan", "completions[0]: expected a finite number, got nan"), ("inf", "got inf"), ("", "got ''"),
    ("1 2", "got '1 2'"), ("1_0", "got '1_0'"), (None, "got 'None'"), ("yes" * 50, "got 'yesyes"),
])
def test_garbage_is_named(command, give, message):
    assert message in failure(command, give=give)


def test_what_it_fails_at_is_named_and_the_next_record_asks_it_anew(tmp_path):
    (tmp_path / "judge.py").write_text(PROGRAM + "    if 'die' in record: sys.exit(4)\n")
    with program_for(f"cmd:{sys.executable} -S {tmp_path}/judge.py") as program:
        with pytest.raises(RewardFailure) as raised:
            program.score([("in:1", RECORD), ("in:2", {**RECORD, "die": True}), ("in:3", RECORD)])
        assert raised.value.message == f"in:2: {program.name}: ended with exit code 4 (1 of 2 numbers)"
        assert program.score([("in:3", RECORD)]) == [[8, 8]]


def test_silence_is_named(tmp_path):
    program = program_for(f"cmd:{sys.executable} -S -c 'import sys; sys.stdin.read()'", 0.1)
    with pytest.raises(RewardFailure, match="in:1: .*silent for 0.1 s.*0 of 2 numbers"), program:
        program.score([("in:1", RECORD)])


def test_a_number_too_many_shows_at_the_end():
    program = program_for(f"cmd:{sys.executable} -S -c 'import sys\nfor line in sys.stdin: print(1)\nprint(2)'")
    with pytest.raises(RewardFailure, match="(?s)in:1: .*wrote more lines than it was given"), program:
        assert program.score([("in:1", RECORD)]) == [[1, 1]]


def test_what_a_resumed_run_must_find_as_it_was(tmp_path):
    (tmp_path / "a.py").write_text("")
    assert files_of(f"py:{tmp_path}/a.py:f") == (f"py:{tmp_path}/a.py:f", f"{tmp_path}/a.py")
    assert files_of(f"cmd:python {tmp_path}/a.py -x") == (f"cmd:python {tmp_path}/a.py -x", f"{tmp_path}/a.py")
    assert files_of("cmd:'") == ("cmd:'",) and files_of("length") == ("length",)
