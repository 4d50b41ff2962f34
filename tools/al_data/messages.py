"""The turns of a chat as others publish them -> messages: their roles, their contents, the tools that they call.

    in:   {"from": "gpt", "value": "Hello."}
    out:  {"role": "assistant", "content": "Hello."}
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from al_data.row import objects
from alignlib.records.jsonl import Record, Skip, kind

HUMAN, ASSISTANT = ("human", "user", "prompter"), ("gpt", "assistant", "chatgpt", "bard", "bing")
# Whose turn it is, as OpenAI, ShareGPT and LLaMA-Factory have it. A developer's word is a system's: no template but a
# few knows that role.
ROLES = {**dict.fromkeys(HUMAN, "user"), **dict.fromkeys((*ASSISTANT, "model", "function_call"), "assistant"),
         **dict.fromkeys(("system", "developer"), "system"),
         **dict.fromkeys(("tool", "function", "observation"), "tool")}
REASONING = ("reasoning_content", "reasoning", "thinking")
_READ = ("role", "from", "content", "value", "tool_calls", "function_call")


def messages(row: Record, name: str) -> list[Record]:
    """The messages in a field. Raises ValueError that names what is none, Skip for a role that nobody knows."""
    return [message(turn, f"{name}[{place}]") for place, turn in enumerate(objects(row, name))]


def message(turn: Record, path: str) -> Record:
    """{role, content} or {from, value} -> {role, content, ...}: what else it has, but nulls, stays with it."""
    speaker = turn["role"] if "role" in turn else turn.get("from")
    if not isinstance(speaker, str):
        raise ValueError(f"{path}: role: expected a string, got {kind(speaker)}")
    if speaker not in ROLES:
        raise Skip("an unknown role")
    words = turn["content"] if turn.get("content") is not None else turn.get("value")
    calls = tool_calls(turn)
    if speaker == "function_call" and isinstance(words, str) and (called := parsed(words)):
        calls = [call_of_objects(function(call)) for call in (called if isinstance(called, list) else [called])]
        words = None
    if not calls and not {"content", "value"} & turn.keys():
        raise ValueError(f"{path}: content: missing")
    more = {name: value for name, value in turn.items() if name not in _READ and value is not None}
    return {"role": ROLES[speaker], "content": content(words, path), **({"tool_calls": calls} if calls else {}), **more}


def content(value: object, path: str) -> str | None:
    """A turn's text: parts of text are joined. Null is for turns that call tools alone. Skip where a part is none."""
    if value is None or isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise ValueError(f"{path}: content: expected a string, got {kind(value)}")
    parts = [part.get("text") if isinstance(part, dict) else part for part in value]
    texts = [part for part in parts if isinstance(part, str)]
    if len(texts) < len(parts):
        raise Skip("a part that is no text")
    return "".join(texts)


# ---------------------------------------------------------------------------------------------- tools


def tool_calls(turn: Record) -> list[Any]:
    """The calls of a turn, its older `function_call` too; arguments that are JSON in a string become objects.

    Templates write the arguments as JSON: a string's quotes would be quoted again.
    """
    calls = turn.get("tool_calls") or []
    if not isinstance(calls, list):
        raise ValueError(f"tool_calls: expected an array, got {kind(calls)}")
    if not calls and isinstance(turn.get("function_call"), dict):
        calls = [function(turn["function_call"])]
    return [call_of_objects(call) if isinstance(call, dict) else call for call in calls]


def call_of_objects(call: Record) -> Record:
    """A call with its arguments as an object, where they are the JSON of one."""
    called = call.get("function")
    if not isinstance(called, dict):
        return call
    arguments = called.get("arguments")
    value = parsed(arguments) if isinstance(arguments, str) else arguments
    return {**call, "function": {**called, "arguments": value if isinstance(value, dict) else arguments}}


def tools(value: object) -> object:
    """The tools of a conversation, as templates ask for them: a list of {type, function}, also of bare functions."""
    listed = parsed(value) if isinstance(value, str) else value
    if not isinstance(listed, list):
        return value
    return [function(tool) if isinstance(tool, dict) and "name" in tool else tool for tool in listed]


def function(called: Any) -> Record:
    """A function as a tool, or a call of it."""
    return {"type": "function", "function": called}


def parsed(text: str) -> object:
    """What a string holds that is JSON of an object or a list; else None."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict | list) else None


# --------------------------------------------------------------------------------------------- answers


def parted(conversation: Sequence[Record]) -> tuple[list[Record], str | None]:
    """What comes before the answer, and the answer: the last turn, if it is the assistant's, else none.

    An answer of `weight` 0 teaches nothing: the last that has weight is taken. Raises Skip where none has.
    """
    if not conversation or conversation[-1]["role"] != "assistant":
        return [*conversation], None
    weighty = [place for place, turn in enumerate(conversation)
               if turn["role"] == "assistant" and turn.get("weight") != 0]
    if not weighty:
        raise Skip("no answer with a weight")
    return [*conversation[:weighty[-1]]], answer_text(conversation[weighty[-1]])


def answer_text(turn: Record) -> str:
    """An answer without the white space at its ends. Raises Skip for one that is more, or less, than a text."""
    if turn.get("tool_calls"):
        raise Skip("an answer that calls a tool")
    if any(turn.get(name) for name in REASONING):
        raise Skip("an answer whose reasoning stands apart")
    text: str = (turn.get("content") or "").strip()
    if not text:
        raise Skip("an empty answer")
    return text
