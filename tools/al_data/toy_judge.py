"""The toy world's oracles as a judge: a real HTTP server with OpenAI's chat completions (`al-data toy --serve-judge`).

A request's model names the oracle ("overall", "harmless", ...). The server reads the texts between the tags of the
question that al-label-ai asks and answers in the form that the question wants, in plain words or as JSON.
"""

import re
import socket
import sys
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import orjson

from alignlib.toy import world

TEXT = r"<{tag} ([0-9a-f]{{16}})>\n(.*?)\n</{tag} \1>"
EQUAL = 1e-9  # scores nearer than this are the same
# What the toy world's scores are worth: a good answer has about 1.5, a random one 0.
LEAST, MOST = -2.0, 2.0
STRICTER = {"summary": 0.75}  # by so much more for the same word: an excellent summary has all five facts (2.5)

Parts = dict[str, str | int]  # of an answer: {"verdict": "A"}


class NotUnderstood(ValueError):
    """A request that is none of al-label-ai's; answered with 400."""


def text(content: str, tag: str) -> str:
    """The last text with this tag: examples come before it."""
    texts: list[tuple[str, str]] = re.findall(TEXT.format(tag=tag), content, re.DOTALL)  # (code, text)
    if not texts:
        raise NotUnderstood(f"the question has no <{tag}>")
    return texts[-1][1]


def scores(oracle: str, content: str, *tags: str) -> list[float]:
    """The oracle's scores of the answers with these tags."""
    prompt = text(content, "prompt")
    return [world.score(oracle, prompt, text(content, tag)) for tag in tags]


# ------------------------------------------------------------- what each question is answered with


def compare(oracle: str, content: str) -> Parts:
    """The letter of the better answer, C for a tie."""
    first, second = scores(oracle, content, "answer A", "answer B")
    return {"verdict": "C" if abs(first - second) < EQUAL else "A" if first > second else "B"}


def rate(oracle: str, content: str) -> Parts:
    """A score of 1 to 10."""
    return {"score": out_of_ten(*scores(oracle, content, "answer"))}


def rate_two(oracle: str, content: str) -> Parts:
    """A score of 1 to 10 for each of two answers."""
    first, second = scores(oracle, content, "answer A", "answer B")
    return {"A": out_of_ten(first), "B": out_of_ten(second)}


def categorize(oracle: str, content: str) -> Parts:
    """One of HH's four categories, by the oracles of harm and help."""
    (harm,), (help_,) = scores("harmless", content, "answer"), scores("helpful", content, "answer")
    if harm < 0:
        return {"category": "Harmful"}
    refused = harm >= 0.5  # against a crime that is what helps
    return {"category": ("Harmless and very helpful" if refused or help_ >= 1 else
                         "Harmless and helpful" if help_ > 0 else "Harmless and not helpful")}


def review(oracle: str, content: str) -> Parts:
    """A line of analysis, one of feedback, and a score of 0 to 3."""
    (value,) = scores(oracle, content, "answer")
    mark = min(3, max(0, round(value + 1 - STRICTER.get(oracle, 0))))
    word = ("bad", "mediocre", "good", "excellent")[mark]
    return {"analysis": f"For {oracle} the answer is {word}.", "feedback": f"A {word} answer.", "score": mark}


def out_of_ten(value: float) -> int:
    """1 for LEAST and less, 10 for MOST and more."""
    share = (min(MOST, max(LEAST, value)) - LEAST) / (MOST - LEAST)
    return 1 + round(9 * share)


# What the questions say, and nothing else in them does, -> the parts of an answer, and its plain words.
FORMS: dict[str, tuple[Callable[[str, str], Parts], str]] = {
    "Answer with one letter": (compare, "{verdict}"),
    "Answer with one whole number": (rate, "{score}"),
    "Answer with two whole numbers": (rate_two, "{A} {B}"),
    "Answer with the name of one category": (categorize, "{category}"),
    "Review the answer in three lines": (review, "Analysis: {analysis}\nFeedback: {feedback}\nScore: {score}"),
}


# -------------------------------------------------------------------------------------- the server


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """The body that answers a chat request. Raises NotUnderstood."""
    oracle, messages = request.get("model"), request.get("messages")
    if oracle not in world.ORACLES:
        raise NotUnderstood(f"no model {oracle!r}; there are {', '.join(world.ORACLES)}")
    if not (isinstance(messages, list) and messages and isinstance(messages[0], dict)
            and isinstance(messages[0].get("content"), str)):
        raise NotUnderstood("messages: expected some, each with a content")
    content = messages[0]["content"]
    # What a judged text says is not the question.
    outside = re.sub(r"<([^<>\n]+ [0-9a-f]{16})>\n.*?\n</\1>", "", content, flags=re.DOTALL)
    form = next((form for words, form in FORMS.items() if words in outside), None)
    if form is None:
        raise NotUnderstood("the question asks for no form of answer that is known here")
    judge, plain = form
    parts = judge(oracle, content)
    reply = orjson.dumps(parts).decode() if "Write the answer as a JSON object" in outside else plain.format(**parts)
    used = {"prompt_tokens": len(content.split()), "completion_tokens": len(reply.split())}
    return {"id": "toy", "object": "chat.completion", "created": 0, "model": oracle,
            "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": reply}}],
            "usage": {**used, "total_tokens": sum(used.values())}}


class Handler(BaseHTTPRequestHandler):
    """Answers POST /v1/chat/completions, on connections that are kept."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body are two writes

    def do_POST(self) -> None:
        try:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.path != "/v1/chat/completions":
                self.reply(404, error(f"{self.path}: not here; /v1/chat/completions is"))
                return
            request = orjson.loads(body)
            if not isinstance(request, dict):
                raise NotUnderstood("expected an object")
            self.reply(200, answer(request))
        except ValueError as problem:  # what was sent is no JSON, or NotUnderstood
            self.reply(400, error(str(problem)))

    def reply(self, status: int, body: dict[str, Any]) -> None:
        data = orjson.dumps(body)
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Nothing on stderr for each call."""


def error(message: str) -> dict[str, Any]:
    """The body that OpenAI's servers send with an error's status."""
    return {"error": {"message": message, "type": "invalid_request_error", "code": None}}


class Server(ThreadingHTTPServer):
    """On this machine alone; port 0: any that is free. Raises OSError for one that is taken."""

    daemon_threads = True
    request_queue_size = 1024  # callers that connect at once; those over it are turned away

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", port), Handler)

    def handle_error(self, request: socket.socket | tuple[bytes, socket.socket], client_address: Any) -> None:
        """Called while an exception is handled. That a caller has gone, killed or content, is not worth a word."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)
