"""What a server's answer holds: its texts and why they ended, in whoever's words; or a refusal, or an error under 200.

    text, reason, reasoning = choice(read_body(content, "application/json"))
"""

from typing import Any, NamedTuple

import click
import orjson

from alignlib.records.jsonl import DEPTH, Record, kind

# Why a text ended, in the words of OpenAI, TGI, vLLM, Anthropic, Gemini, Cohere, Mistral, DeepSeek, Bedrock; any case.
STOP = ("stop", "eos", "eos_token", "end_turn", "stop_sequence", "stop_token", "complete", "finished", "endoftext")
UNSAID = ("", "null")  # which some say while they stream, and some always
LENGTH = ("length", "max_tokens", "max_length", "max_output_tokens", "model_length", "model_context_window_exceeded")
FILTERED = ("content_filter", "content_filtered", "content_policy_violation", "refusal", "safety", "recitation",
            "blocklist", "prohibited_content", "spii", "guardrail_intervened", "error_toxic")
TOOLS = ("tool_calls", "tool_call", "tool_use", "function_call")  # nobody gave it any
BROKEN = ("error", "abort", "aborted", "cancelled", "insufficient_system_resource")  # another try may fare better
THOUGHTS = ("thinking", "reasoning", "redacted_thinking")  # parts of a content that are no part of the answer
BEGINNING = 65_536  # bytes of a body that is no answer, by which it is named
PARTS = 2_000_000  # commas and brackets: each may stand for a value, which takes 24 times the room of its letters
TOKENS = 2**53  # more than a call can have; a JSON number is exact up to there


class Failure(click.ClickException):
    """A call that gave no answer, said in one line. `everything`: the next call would fare no better."""

    def __init__(self, message: str, status: int | None = None, everything: bool = False):
        super().__init__(message)
        self.status, self.everything = status, everything

    def reworded(self, message: str) -> "Failure":
        """The same in other words."""
        return Failure(message, self.status, self.everything)


class NoAnswer(Failure):
    """An answer that is none: a refusal, what a filter left, a call of tools. `words` are what was said instead."""

    def __init__(self, message: str, words: str):
        super().__init__(message)
        self.words = words

    def reworded(self, message: str) -> "NoAnswer":
        return NoAnswer(message, self.words)


class ErrorBody(ValueError):
    """An error where an answer should be, under status 200; `status` is the one that it has in its words, if any."""

    def __init__(self, message: str, words: str, status: int | None, code: object):
        super().__init__(message)
        self.words, self.status, self.code = words, status, code


class Choice(NamedTuple):
    """One text of an answer, why it ended ("stop" or "length"), and the reasoning that some servers give beside it."""

    text: str
    reason: str
    reasoning: str = ""


def read_body(content: bytes, content_type: str) -> Record:
    """The JSON object that answers a call. Raises ValueError, ErrorBody among them, that begin to quote what it is."""
    what = f"status 200, {content_type.partition(';')[0].strip() or 'no content type'}"
    words = content[:BEGINNING].decode(errors="replace").strip() or "nothing"
    if sum(map(content.count, (b",", b"[", b"{"))) > PARTS:
        raise ValueError(f"{what}, of more than {PARTS:,} parts: {words}")
    try:
        body = orjson.loads(content)
        orjson.dumps(body)  # it reads deeper than it writes, and so than what comes later can go
    except orjson.JSONDecodeError as broken:
        raise ValueError(f"{what}, no JSON: {words}") from broken
    except TypeError as deep:
        raise ValueError(f"{what}, nested deeper than {DEPTH}") from deep
    if not isinstance(body, dict):
        raise ValueError(f"{what}, expected an object: {words}")
    error = body if body.get("object") == "error" else body.get("error")
    if error:
        words, details = error_words(error), error if isinstance(error, dict) else {}
        raise ErrorBody(f"{what}, an error: {words}", words, error_status(details), details.get("code"))
    if not body.get("choices"):
        raise ValueError(f"{what}, no choices: {words}")
    return body


def error_words(error: object) -> str:
    """The server's own words, out of the usual places of what it says is wrong."""
    words = error.get("message") or error.get("detail") or error if isinstance(error, dict) else error
    try:
        return str(words)
    except RecursionError:
        return "an error that is nested too deeply to be shown"


def error_status(error: Record) -> int | None:
    """The status of an error that says it in its body: {"code": 503}, {"code": "404"}, {"status": 400}."""
    for value in (error.get("code"), error.get("status"), error.get("status_code")):
        if len(text := str(value)) == 3 and text.isdecimal() and 400 <= int(text) < 600:
            return int(text)
    return None


def choice(body: Record, number: int = 0) -> Choice:
    """One choice of an answer, of either API; the text of a message may be empty.

    Raises ValueError for garbage, NoAnswer for an answer that is none, Failure for a reason that is not known here.
    """
    choices, path = body.get("choices"), f"choices[{number}]"
    if not isinstance(choices, list) or not choices:
        raise ValueError(f"choices: expected a list of some, got {kind(choices) if choices else 'none'}")
    entry = choices[number]
    if not isinstance(entry, dict):
        raise ValueError(f"{path}: expected an object, got {kind(entry)}")
    message = entry.get("message")
    if isinstance(message, dict):
        text, refusal = read_content(message.get("content"), f"{path}.message.content")
        refusal = message.get("refusal") or refusal
        if isinstance(refusal, str) and refusal.strip():
            raise NoAnswer(f"{path}.message.refusal: {refusal}", refusal)
        thought = message.get("reasoning_content") or message.get("reasoning")
        reasoning = thought if isinstance(thought, str) else ""
    elif isinstance(entry.get("text"), str):
        text, reasoning = entry["text"], ""
    else:
        raise ValueError(f"{path}.text: expected a text, got {kind(entry.get('text'))}")
    return Choice(text, read_reason(entry, text, path), reasoning)


def read_content(content: object, path: str) -> tuple[str, str]:
    """The text of a message's content, its parts joined, and the refusal among them. Raises ValueError."""
    if content is None or isinstance(content, str):
        return content or "", ""
    if not isinstance(content, list):
        raise ValueError(f"{path}: expected a text, got {kind(content)}")
    said = {"text": "", "refusal": ""}
    for i, part in enumerate(content):
        fields: dict[str, Any] = part if isinstance(part, dict) else {"text": part}
        if fields.get("type") in THOUGHTS:
            continue
        name = "refusal" if fields.get("type") == "refusal" else "text"
        if not isinstance(fields.get(name), str):
            raise ValueError(f"{path}[{i}]: expected a text, got {fields.get('type') or kind(part)}")
        said[name] += fields[name]
    return said["text"], said["refusal"]


def read_reason(entry: Record, text: str, path: str) -> str:
    """Why a choice ended: "stop", where the server does not say too, or "length". Raises as `choice` does."""
    reason = entry.get("finish_reason")
    if not isinstance(reason, str | None):
        raise ValueError(f"{path}.finish_reason: expected a string, got {kind(reason)}")
    name, where = (reason or "").strip().lower(), f"{path}.finish_reason: {reason}"
    if name in STOP or name in UNSAID:
        return "stop"
    if name in LENGTH:
        return "length"
    if name in FILTERED or name in TOOLS:
        raise NoAnswer(f"{where}: {text}" if text.strip() else where, text if text.strip() else name)
    if name in BROKEN:
        raise ValueError(f"{where}: {error_words(entry['error'])}" if entry.get("error") else where)
    raise Failure(where)


def usage(body: Record) -> tuple[int | None, int | None]:
    """The tokens of the prompt and of the answer, None where the server does not say, or says what cannot be."""
    figures = body.get("usage")
    counts = figures if isinstance(figures, dict) else {}
    prompt_tokens, tokens = (
        count if type(count) is int and 0 <= count <= TOKENS else None
        for count in (counts.get("prompt_tokens"), counts.get("completion_tokens")))
    return prompt_tokens, tokens
