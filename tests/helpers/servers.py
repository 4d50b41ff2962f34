"""Answers as servers in the wild give them, each by a name: odd words, refusals, errors under 200, other APIs' habits.

    with Server(as_server("eos_token")) as server: ...      # a script of helpers.faulty
"""

import json
from collections.abc import Callable

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
