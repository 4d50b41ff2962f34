"""The key, struck out of what a server says: whole, cut, quoted, packed; and nothing else."""

import base64
import html
import json
import re
from urllib.parse import quote

import pytest

from alignlib.server.key import PIECE, Key

KEY = "sk-a-secret-that-nobody-may-see"
ODD = "s/ecret+with \"quotes\" & <signs> \\ '%'"


@pytest.mark.parametrize("key", [KEY, ODD, "8letters", "sk-proj-" + "aB3_" * 39])
def test_it_is_struck_out_wherever_it_stands(key):
    ours = Key(key)
    assert ours.strike(f"bad key {key}!") == "bad key ***!" and ours.strike(key * 3) == "***"
    assert ours.strike(f"{key} and {key}") == "*** and ***"
    assert ours.strike(key[1:]) == ours.strike(key[:-1]) == "***"


def lower_hex(key: str) -> str:
    return re.sub("%..", lambda code: code[0].lower(), quote(key, safe=""))


@pytest.mark.parametrize("write", [json.dumps, repr, quote, html.escape, lambda key: quote(key, safe=""), lower_hex,
                                   lambda key: json.dumps(key).replace("/", r"\/")])
@pytest.mark.parametrize("key", [KEY, ODD])
def test_it_is_struck_out_however_it_is_quoted(write, key):
    assert Key(key).strike(f"({write(key)})").strip("()'\"") == "***"


@pytest.mark.parametrize("write", [str.upper, str.lower, lambda key: key[::-1], lambda key: key.encode().hex(),
                                   lambda key: key.encode().hex().upper()])
@pytest.mark.parametrize("key", [KEY, ODD, "sk-proj-" + "aB3_" * 39])
def test_it_is_struck_out_in_other_letters_backwards_and_in_hex(write, key):
    ours = Key(key)
    assert ours.strike(f"({write(key)})") == "(***)" and ours.strike(f"({write(key)[1:-2]})") == "(***)"
    assert Key("EMPTY").strike("empty YTPME") == "empty YTPME"


@pytest.mark.parametrize("before", ["", "x", "xy", "Bearer "])
@pytest.mark.parametrize("coded", [base64.b64encode, base64.urlsafe_b64encode])
@pytest.mark.parametrize("key", [KEY, ODD])
def test_it_is_struck_out_of_base64_wherever_it_falls(before, coded, key):
    """But for what it shares a letter with."""
    text = coded(f"{before}{key} and more".encode()).decode()
    left, right = Key(key).strike(text).split("***")
    assert text.startswith(left) and len(left) <= len(before) * 4 / 3 + 1
    assert text.endswith(right) and len(right) <= len(" and more==") * 4 / 3 + 2


def test_what_a_cut_leaves_of_it_is_struck_out_but_for_what_many_keys_share():
    ours = Key(KEY)
    for start in range(len(KEY) - PIECE + 1):
        for end in range(start + PIECE, len(KEY) + 1):
            assert ours.strike(f"<{KEY[start:end]}>") == "<***>"
    for start in range(len(KEY) - PIECE + 2):
        part = f"<{KEY[start:start + PIECE - 1]}>"
        assert ours.strike(part) == part


def test_of_what_is_no_key_nothing_is_struck_out():
    for placeholder in ("", "none", "EMPTY", "e"):
        assert Key(placeholder).strike(f"EMPTY none {placeholder} e") == f"EMPTY none {placeholder} e"
        assert Key(placeholder).strike_all({"a": placeholder}) == {"a": placeholder}
    assert Key("localhost-key").strike("localhost") == "localhost"


def test_every_string_of_a_json_value_is_looked_at():
    value: dict = {"n": 1, "list": [None, KEY, {"deep": [f"a {KEY} b", True]}], "text": f"{KEY}", KEY: "name"}
    assert Key(KEY).strike_all(value) is value
    assert value == {"n": 1, "list": [None, "***", {"deep": ["a *** b", True]}], "text": "***", "***": "name"}
    deep: list = [KEY]
    for _ in range(5000):
        deep = [deep]
    Key(KEY).strike_all(deep)
    while isinstance(deep, list):
        (deep,) = deep
    assert deep == "***"
