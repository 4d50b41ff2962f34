"""The examples of the commands' pages: what they print is what they say; and what counts as a difference."""

import os

import pytest

import examples
from helpers import forks
from helpers.process import COMMANDS, environment


def test_every_command_has_one_which_calls_it():
    assert sorted(examples.STORY) == COMMANDS == sorted(path.stem for path in examples.EXAMPLES.glob("*"))
    for name in COMMANDS:
        text = (examples.EXAMPLES / f"{name}.txt").read_text().splitlines()
        assert text[0].startswith("$ ") and any(line.startswith("$ ") and f"{name} " in line for line in text)
        assert not all(line.startswith("$ ") for line in text), "what it prints is missing: `make doc-examples`"


@pytest.mark.long
def test_they_print_what_the_pages_say(tmp_path):
    """All of them, one after the other: a later one takes what an earlier one made."""
    env = environment() | examples.THREADS | {"DS_ACCELERATOR": "cpu"}  # a fork has imported what would set it
    env["PATH"] = f"{forks.folder() / 'bin'}{os.pathsep}{env['PATH']}"
    for name in examples.STORY:
        text = (examples.EXAMPLES / f"{name}.txt").read_text()
        changed = examples.difference(text, examples.run(text, tmp_path, env))
        assert changed is None, f"{name}; where it should be so, `make doc-examples`:\n{changed}"


@pytest.mark.parametrize(("line", "other", "same"), [
    ("al-x: 8 records, 0.1 s, 300 tokens/s", "al-x: 8 records, 12.4 s, 1,234 tokens/s", True),
    ("al-x: 8 records, 0.1 s + 3.1 s loading", "al-x: 8 records, 0.1 s + 99.0 s loading", True),
    ("al-x: 8 records, 0.0 s + 0.1 s loading, 3 records/s", "al-x: 8 records, 0.0 s, 9 records/s", True),
    ("al-x: 8 records, 0.1 s", "al-x: 12 records, 0.1 s", False),
    ("al-x: 1,000 tokens, 0.1 s", "al-x: 1,100 tokens, 0.1 s", True),
    ("al-x: 8 records, 0.1 s", "al-x: 8 lines, 0.1 s", False),
    ("note: a", "note: b", False),
    ('{"loss": 1.4, "tokens_per_second": 10}', '{"loss": 1.5, "tokens_per_second": 900.5}', True),
    ('{"loss": 1.4}', '{"loss": 2.4}', False),
    ('{"loss": 1.4}', '{"lost": 1.4}', False),
    ('{"loss": 1.4}', '{"loss": "1.4"}', False),
    ('{"a": [1, 2]}', '{"a": [1]}', False),
    ('{"prompt": "Hi", "completions": ["a"]}', '{"prompt": "Hi", "completions": ["b"]}', True),
    ('{"prompt": "Hi", "completions": ["a"]}', '{"prompt": "Ho", "completions": ["a"]}', False),
    ('{"completions": ["a"], "rewards": [1.1]}', '{"completions": ["b"], "rewards": [-2.0]}', False),
    ('{"completions": ["a"], "rewards": [1.1]}', '{"completions": ["a"], "rewards": [-2.0]}', False),
    ('{"completions": ["a"], "rewards": [1.1]}', '{"completions": ["b"], "rewards": ["x"]}', False),
    ('{"completions": ["a"], "rewards": [1.1]}', '{"completions": ["b"], "rewards": [1.1, 1.1]}', False),
    ('{"completions": ["a", "b"], "winner": 0}', '{"completions": ["a", "b"], "winner": null}', False),
    ('{"done": true}', '{"done": false}', False),
])
def test_the_clock_and_rounding_make_no_difference(line, other, same):
    assert examples.alike(line, other) == same
    assert (examples.difference(f"$ x\n{line}\n", f"$ x\n{other}\n") is None) == same


def test_a_line_more_or_less_is_a_difference():
    assert examples.difference("a\nb\n", "a\n") == "2 lines, now 1"


def test_a_command_that_fails_is_named(tmp_path):
    text = "$ echo 1 > a; echo 2\n2\n$ cat a\n1\n"
    assert examples.run(text.replace("1\n", "old\nmore\n"), tmp_path, os.environ) == text
    with pytest.raises(RuntimeError, match="false [|] cat: exit code 1"):
        examples.run("$ false | cat\n", tmp_path, os.environ)
