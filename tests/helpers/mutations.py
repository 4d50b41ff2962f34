"""Mutations of JSON, of texts and of bytes, each drawn from a random.Random: the same seed makes the same ones.

    mutated(random.Random(1), {"prompt": "Hi", "rewards": [1, 0]})     # bytes, perhaps no JSON any more
"""

import json
from random import Random
from typing import Any

# What JSON's numbers may be and Python's json would not write: some are none, some are beyond 64 bits or a double.
RAW = ("NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1e-999", "01", "1.", ".5", "+1", "0x10", "1_0", "-", "-0",
       "9" * 400, "0." + "3" * 400, "1E5", "True", "None", "'a'", "undefined")
NUMBERS = (0, -1, 1, 2, 3.5, -0.0, 5e-324, 1.7976931348623157e308, 1e16, 2**31, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1,
           2**64, -2**63, -2**63 - 1, 10**30)
TEXTS = ("", " ", "\n", "\0", "\x1b[31m", "\x7f", "\u2028", "\u202e", "\ufeff", "\ud800", "\udfff\ud800",
         "\U0001f9d1\u200d\U0001f680", "e\u0301", "\u00e9", "\ufffd", "\ufffe", "NaN", "null", "</s>", "<s>",
         "<|im_start|>", "{{ x }}", "%s", "../..", "-1", "a" * 3000, "\u00df" * 700)
NAMES = ("id", "prompt", "messages", "chosen", "rejected", "completions", "rewards", "finish_reasons", "logps",
         "winner", "completion_ids", "end_ids", "role", "content", "domain", "label", "text", "tools", "", "\0")
SCALARS = (None, True, False, *NUMBERS, *TEXTS)
OTHERS: tuple[Any, ...] = ([], {}, [[]], [None], [{}], {"": None}, [1, "a"], [True], {"role": "user"},
                           [{"role": "user", "content": "Hi"}], [{"role": "assistant", "content": None}])
MARK = "raw-number-"  # a text that stands for RAW's n-th until all is JSON
BYTES = (b"\0", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xef\xbb\xbf", b"\r", b"\t", b'"', b"{", b"}",
         b"[", b"]", b",", b":", b"\\", b"\\u0000", b"\\ud800", b"\\x", b"\x1f\x8b", b"\n", b" ", b"\x0b", b"\xc2\x85")


def mutated(chance: Random, record: Any) -> bytes:
    """The JSON of a value after one to three mutations, of its parts or of its bytes; no newline at its end."""
    value = json.loads(json.dumps(record))
    for _ in range(chance.choice((1, 1, 2, 3))):
        value = mutate_value(chance, value)
    data = encode(chance, value)
    return mutate_bytes(chance, data) if chance.random() < 0.25 else data


def encode(chance: Random, value: Any) -> bytes:
    """A value's JSON; lone surrogates as escapes, or as the bytes that no UTF-8 has."""
    text = json.dumps(value, ensure_ascii=chance.random() < 0.5, separators=chance.choice(((", ", ": "), (",", ":"))))
    for number, raw in enumerate(RAW):
        text = text.replace(f'"{MARK}{number}."', raw)
    return text.encode("utf-8", "surrogatepass")


def mutate_value(chance: Random, value: Any) -> Any:
    """One part of it replaced, removed, doubled, renamed, wrapped, nested, swapped, or changed a little."""
    holder = {"": value}
    places = list(parts(holder))
    owner, key = chance.choice(places)
    part = owner[key]
    kind = chance.randrange(10)
    if kind == 0:
        owner[key] = chance.choice(SCALARS)
    elif kind == 1:
        owner[key] = json.loads(json.dumps(chance.choice(OTHERS)))
    elif kind == 2:
        owner[key] = f"{MARK}{chance.randrange(len(RAW))}."
    elif kind == 3 and owner is not holder:
        del owner[key]
    elif kind == 4 and isinstance(owner, list):
        owner.insert(chance.randrange(len(owner) + 1), json.loads(json.dumps(part)))
    elif kind == 5 and isinstance(owner, dict) and owner is not holder:
        owner[chance.choice(NAMES)] = owner.pop(key)
    elif kind == 6:
        owner[key] = chance.choice(([part], {chance.choice(NAMES): part}, [part, part]))
    elif kind == 7:
        owner[key] = nested(part, chance.choice((3, 100, 126, 250, 254, 300)), chance.random() < 0.5)
    elif kind == 8:
        other, at = chance.choice(places)
        if other is not holder and owner is not holder:
            owner[key], other[at] = json.loads(json.dumps((other[at], part)))
    else:
        owner[key] = changed(chance, part)
    return holder[""]


def parts(value: Any) -> list[tuple[Any, Any]]:
    """Where each part of a value stands: (the list or dict that has it, its place in there)."""
    found: list[tuple[Any, Any]] = []
    waiting = [value]
    while waiting:
        owner = waiting.pop()
        for key in owner if isinstance(owner, dict) else range(len(owner)):
            found.append((owner, key))
            if isinstance(owner[key], dict | list):
                waiting.append(owner[key])
    return found


def nested(part: Any, depth: int, lists: bool) -> Any:
    for _ in range(depth):
        part = [part] if lists else {"a": part}
    return part


def changed(chance: Random, part: Any) -> Any:
    """A text with another in it, cut, or doubled; a number near by, or of the other sign; else another kind."""
    if isinstance(part, str):
        at = chance.randrange(len(part) + 1)
        return chance.choice((part[:at] + chance.choice(TEXTS) + part[at:], part[:at], part * 2, part[::-1]))
    if isinstance(part, bool) or part is None:
        return chance.choice((None, True, False, str(part)))
    if isinstance(part, int | float):
        return chance.choice((part + 1, -part, part / 3, part * 1e300, str(part), bool(part)))
    if isinstance(part, list):
        return chance.choice((part[::-1], part[:1], part * 2, dict(enumerate(map(str, part)))))
    return [list(pair) for pair in part.items()]


def mutate_bytes(chance: Random, data: bytes) -> bytes:
    """One to four bytes changed, removed or put in, or its end cut off."""
    text = bytearray(data)
    for _ in range(chance.randrange(1, 5)):
        at, kind = chance.randrange(len(text) + 1), chance.randrange(5)
        if kind == 0:
            text[at:at] = chance.choice(BYTES)
        elif kind == 1:
            del text[at:at + chance.choice((1, 1, 2, 20))]
        elif kind == 2 and at < len(text):
            text[at] = chance.randrange(256)
        elif kind == 3 and at < len(text):
            text[at] ^= 1 << chance.randrange(8)
        elif kind == 4 and chance.random() < 0.3:
            del text[at:]
    return bytes(text)
