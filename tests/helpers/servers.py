"""Answers as servers in the wild give them, each by a name: odd words, refusals, errors under 200, other APIs' habits.

    with Server(as_server("eos_token")) as server: ...      # a script of helpers.faulty
"""

import json
import zlib
from collections.abc import Callable
from itertools import chain, repeat

REFUSAL = "I cannot help with that request."
FILTERED = "The response was filtered due to the prompt triggering the content management policy."
STREAM = ('data: {"choices":[{"delta":{"content":"A"},"finish_reason":null,"index":0}]}\n\n'
          'data: {"choices":[{"delta":{},"finish_reason":"stop","index":0}]}\n\ndata: [DONE]\n\n')
PAGE = "<!doctype html><html><title>Sign in</title><body>\x1b[31mLog in to\x00\nthe proxy</body></html>"


def message(content: object, reason: object = "stop", **more: object) -> dict:
    """A chat's answer with one choice."""
    return {"object": "chat.completion", "usage": {"prompt_tokens": 10, "completion_tokens": 3},
            "choices": [{"index": 0, "message": {"role": "assistant", "content": content, **more},
                         "finish_reason": reason}]}


def without_reason(content: str) -> dict:
    body = message(content)
    del body["choices"][0]["finish_reason"]
    return body


# What they answer with status 200 as JSON; the answer is "A" where there is one.
BODIES = {
    **{reason: message("A", reason) for reason in ("eos_token", "end_turn", "STOP", "stop_sequence", "eos", "")},
    "nofinish": message("A", None),
    "no finish_reason": without_reason("A"),
    "parts": message([{"type": "text", "text": "A"}]),
    "more parts": message([{"type": "thinking", "thinking": [{"type": "text", "text": "B?"}]}, "A",
                           {"type": "output_text", "text": "."}]),
    "think": message("<think>\nAnswer A is short. B is wrong.\n</think>\n\nA"),
    "think, opened by the template": message("B is wrong.\nAnswer: B?\n</think>\n\nA"),
    "thinkcut": message("<think>\nAnswer A is short. B is", "length"),
    "thinkcut, said to be whole": message("<think>\nB is long.\nAnswer: B"),
    "refusal": message(None, refusal=REFUSAL),
    "refusal in parts": message([{"type": "refusal", "refusal": REFUSAL}]),
    "filter": message("", "content_filter"),
    "filter, half of it there": message("A, bec", "content_filter"),
    "SAFETY": message(None, "SAFETY"),
    "tool_calls": message(None, "tool_calls", tool_calls=[{"id": "1"}]),
    "reasoning": message(None, reasoning_content="The first is better."),
    "reasoning, cut": message("", "length", reasoning="The first is"),
    "empty": message(""),
    "unknown": message("A", "tired"),
    "abort": message("A", "abort"),
    "nochoices": {"id": "x", "choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 0}},
    "err200": {"error": {"message": "The model is overloaded, try later", "code": 503}},
    "err200b": {"object": "error", "message": "The model `m` does not exist.", "type": "NotFoundError", "code": 404},
    "err200c": {"error": "out of memory"},
    "quota200": {"error": {"message": "no credit", "code": "insufficient_quota"}},
    "filter200": {"error": {"message": FILTERED, "code": "content_filter"}},
}
OTHERS = {
    "html200": (200, {"Content-Type": "text/html; charset=utf-8"}, PAGE.encode()),
    "stream": (200, {"Content-Type": "text/event-stream"}, STREAM.encode()),
    "azure": (400, {}, json.dumps({"error": {"message": FILTERED, "param": "prompt", "code": "content_filter",
                                             "status": 400}}).encode()),
}


def as_server(name: str) -> Callable[[dict, int], tuple]:
    """A script that answers everything as the server `name` does; "o1" and "o1s" refuse parameters."""
    if name in OTHERS:
        return lambda request, nth: OTHERS[name]
    if name in ("o1", "o1s"):
        return particular(*(("max_tokens", "temperature") if name == "o1" else ("max_tokens", "seed")))
    return lambda request, nth: (200, {}, json.dumps(BODIES[name]).encode())


def particular(*refused: str) -> Callable[[dict, int], tuple]:
    """A script that answers "A" to a request without any of these parameters."""

    def script(request: dict, nth: int) -> tuple:
        for parameter in refused:
            if parameter in request:
                error = {"message": f"Unsupported parameter: '{parameter}'", "code": "unsupported_parameter"}
                return 400, {}, json.dumps({"error": error}).encode()
        return 200, {}, json.dumps(message("A")).encode()

    return script


# -- what means harm ---------------------------------------------------------------------------------------------


def endless(status: int = 200, beginning: bytes = b'{"choices": [{"message": {"content": "') -> tuple:
    """A body that never ends."""
    return status, {}, chain([beginning], repeat(b"A" * 65_536))


def bomb(status: int = 200, pieces: int = 1200) -> tuple:
    """A body that unpacks to so many megabytes, of a thousandth of that."""
    packing = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    piece = packing.compress(b" " * 1_000_000) + packing.flush(zlib.Z_FULL_FLUSH)
    header = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03"
    return status, {"Content-Encoding": "gzip"}, header + piece * pieces


def counted(prompt_tokens: object, completion_tokens: object) -> tuple:
    """A right answer, and what its tokens are said to be."""
    body = message("A") | {"usage": {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens}}
    return 200, {}, json.dumps(body).encode()


CONTROLS = "\x1b[31m\x1b]0;owned\x07\x9b2J\x7f\x00\u202e\u2066"
# By what they do; how each is named.
HOSTILE: dict[str, tuple[Callable[[], tuple], str]] = {
    "endless": (endless, "an answer of more than 16 MB: --max-answer takes longer ones"),
    "gzip bomb": (bomb, "an answer of more than 16 MB: --max-answer takes longer ones"),
    "endless error": (lambda: endless(400), 'the server says 400: {"choices": [{"message": {"content": "AAAA'),
    "gzip bomb as an error": (lambda: bomb(400), "the server says 400: "),
    "twice packed": (lambda: (200, {"Content-Encoding": ", ".join(["gzip"] * 9)}, b"x"), "no connection, or a broken"),
    "no gzip": (lambda: (200, {"Content-Encoding": "gzip"}, b"not packed"), "no connection, or a broken one"),
    "sent elsewhere": (lambda: (307, {"Location": "http://192.0.2.1/v1/chat/completions"}, b""),
                       "the server says 307: it sends elsewhere, which is for --base-url to say: http://192.0.2.1"),
    "deep": (lambda: (200, {}, b'{"choices": ' + b"[" * 900 + b"]" * 900 + b"}"), "nested deeper than 250"),
    "a deep error": (lambda: (400, {}, b'{"error": ' + b"[" * 900 + b"]" * 900 + b"}"), "the server says 400: "),
    "a date beyond time": (lambda: (429, {"Retry-After": "Mon, 01 Jan 99999999999 00:00:00 GMT"}, b"{}"),
                           "the server says 429"),
    "controls": (lambda: (400, {}, json.dumps({"error": {"message": f"no {CONTROLS} more"}}).encode()),
                 "the server says 400: no [31m ]0;owned 2J more"),
    "a page of controls": (lambda: (200, {"Content-Type": "text/html"}, f"<p>{CONTROLS}".encode() * 99),
                           "status 200, text/html, no JSON: <p> [31m"),
}
