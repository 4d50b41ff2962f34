"""The key, struck out of whatever a server says: servers and proxies quote it in errors, and models echo it.

    key = Key("sk-...")
    key.strike('{"error": "bad key sk-..."}')        # '{"error": "bad key ***"}'
"""

import base64
import html
import json
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import pairwise
from typing import Any
from urllib.parse import quote

SECRET = 8  # characters: a shorter "key" is a placeholder that local servers want, and may be part of any word
PIECE = 16  # characters: less of a longer key gives nothing away; many begin alike ("sk-proj-")
STRUCK = "***"

Span = tuple[int, int]  # of a text: [start, end)


class Key:
    """A key, maybe none (""), as it is and as it may come back: quoted, as base64 or hex, in capitals, backwards."""

    def __init__(self, key: str):
        self.forms = {form for form in forms(key) if len(form) >= SECRET}
        self.strike_name = lru_cache(1024)(self.strike)  # a server's replies have the same names again and again

    def strike(self, text: str) -> str:
        """The text with *** for the key, and for what a cut has left of it: PIECE characters, or all but one."""
        spans = merged(span for form in self.forms for span in pieces(text, form))
        kept = [(0, 0), *spans, (len(text), len(text))]
        return STRUCK.join(text[end:start] for (_, end), (start, _) in pairwise(kept)) if spans else text

    def strike_all(self, value: Any) -> Any:
        """`strike` for every string of a JSON object or array, names of fields too, in place; returns it."""
        nodes = [value] if self.forms else []
        while nodes:  # no recursion: a stranger says how deep it goes
            node = nodes.pop()
            if isinstance(node, dict):
                for name in [name for name in node if self.strike_name(name) != name]:
                    node[self.strike_name(name)] = node.pop(name)
            for place, child in node.items() if isinstance(node, dict) else enumerate(node):
                if isinstance(child, str):
                    node[place] = self.strike(child)
                elif isinstance(child, dict | list):
                    nodes.append(child)
        return value


def forms(key: str) -> list[str]:
    """The key as it is, in other letters, backwards, as JSON, Python, URLs and HTML quote it, as hex, and as base64,
    whatever stands around it there.
    """
    if len(key) < SECRET:
        return []
    quoted, urls = json.dumps(key)[1:-1], [quote(key, safe=""), quote(key)]
    texts = [key, quoted, quoted.replace("/", "\\/"), repr(key)[1:-1], html.escape(key), *urls]
    texts += [re.sub("%..", lambda code: code[0].lower(), url) for url in urls]
    texts += [key.upper(), key.lower(), key[::-1], key.encode().hex(), key.encode().hex().upper()]
    for before in range(3):  # bytes: base64 takes three at a time
        coded = base64.b64encode(bytes(before) + key.encode()).decode().rstrip("=")
        own = coded[(0, 2, 3)[before]:-1]
        texts += [own, own.replace("+", "-").replace("/", "_")]
    return texts


def pieces(text: str, form: str) -> Iterator[Span]:
    """Where in the text pieces of the form are, [start, end): those of PIECE characters, or all but one."""
    least = min(PIECE, len(form) - 1)
    size = (least + 1) // 2  # every piece holds a whole one of these blocks
    for begin in range(0, len(form) - size + 1, size):
        at = text.find(form[begin:begin + size])
        while at >= 0:
            start = at - common(text[max(at - begin, 0):at][::-1], form[:begin][::-1])
            end = at + size + common(text[at + size:at + len(form)], form[begin + size:])
            if end - start >= least:
                yield start, end
            at = text.find(form[begin:begin + size], max(end, at + 1))


def common(one: str, other: str) -> int:
    """How many characters two texts begin with together."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def merged(spans: Iterable[Span]) -> list[Span]:
    """The spans in order, those that touch as one."""
    whole: list[Span] = []
    for start, end in sorted(spans):
        if whole and start <= whole[-1][1]:
            whole[-1] = whole[-1][0], max(end, whole[-1][1])
        else:
            whole.append((start, end))
    return whole
