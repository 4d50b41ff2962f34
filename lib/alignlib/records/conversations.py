"""The forms that people's records have, and the one that commands see: a conversation, or a plain prompt, and texts.

    in    {"prompt": [{"role": "user", "content": "Hi"}], "chosen": [{"role": "assistant", "content": "Hello."}]}
    seen  {"messages": [{"role": "user", "content": "Hi"}], "chosen": "Hello."}

`messages` ends before the answer; chosen, rejected and completions are texts. What is not about these travels through.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from alignlib.records import jsonl
from alignlib.records.fields import FIELDS
from alignlib.records.jsonl import Line, Record, kind

T = TypeVar("T")
Message = dict[str, Any]
ANSWERS = ("chosen", "rejected", "completions")
TEXT = frozenset((str, type(None)))  # what is no conversation
CONDITION_ROLES = ("user", "system")  # whose turn a condition goes into


def reader(prepare: Callable[[Record], T]) -> Callable[[Record], T]:
    """`prepare` for records of any form: it gets them in the one that commands see."""
    return lambda record: prepare(record if _is_plain(record) else canonical(record))


def read_all(files: Iterable[str] = (), prepare: Callable[[Record], Any] | None = None) -> Iterator[Line]:
    """As jsonl.read_all; the records are in the form that commands see."""
    prepared = reader(lambda record: (record, prepare(record) if prepare else None))
    for line in jsonl.read_all(files, prepared):
        line.record, line.data = line.data
        yield line


def canonical(record: Record) -> Record:
    """The record with its conversation in `messages`, and answers as texts.

    A last assistant's turn of `messages` is the answer: it leaves them, and is `chosen` where there is none. A prompt
    in both forms stays in both only where it may be the conversation as some template writes it; who knows the
    template compares them. Raises ValueError, naming the place, for what cannot be read, or does not agree.
    """
    if _is_plain(record):
        return record
    asked = ("prompt", "messages")
    if any(record.get(name) is not None for name in asked):  # a table has null for the other
        record = {name: value for name, value in record.items() if value is not None or name not in asked}
    for name in (*asked, *ANSWERS):
        if name in record:
            FIELDS[name].check(record[name], name)
    messages, answer = _asked(record)
    answers: dict[str, Any] = {}
    for name in ANSWERS:
        if name in record:
            answers[name], before = _texts(record[name], name)
            for path, turns in before:
                messages = _agreed(messages, turns, path, record.get("prompt"))
    if answer is not None:
        answers.setdefault("chosen", answer)
    if messages is None:
        return {**record, **answers}
    if not messages:
        raise ValueError("messages: nothing before the answer")
    seen: Record = {}
    for name, value in record.items():  # the conversation stands where the prompt stood
        if name not in ("prompt", "messages"):
            seen[name] = value
        elif "messages" not in seen:
            seen["messages"] = messages
    prompt = record.get("prompt")
    if isinstance(prompt, str) and not is_turn(prompt, messages):
        _must_be_rendered(prompt, messages)
        seen["prompt"] = prompt
    return {**seen, "messages": messages, **answers}


def _is_plain(record: Record) -> bool:
    """Whether there is no conversation in it."""
    get = record.get
    if ("messages" in record or type(get("prompt")) not in TEXT or type(get("chosen")) not in TEXT
            or type(get("rejected")) not in TEXT):
        return False
    completions = get("completions")
    if isinstance(completions, list) and completions:
        return TEXT.issuperset(map(type, completions))
    return type(completions) in TEXT


def _asked(record: Record) -> tuple[list[Message] | None, str | None]:
    """The conversation up to the answer, None where there is none, and the answer that it ends with.

    One of `weight` 0, which nobody is to learn, is none.
    """
    given = [name for name in ("messages", "prompt") if isinstance(record.get(name), list)]
    if not given:
        return None, None
    (messages, answer), *others = (_split(record[name], name) for name in given)
    for other, _ in others:
        if other != messages:
            raise ValueError("prompt: not the conversation in messages")
    return messages, None if record[given[0]][-1].get("weight") == 0 else answer


def _split(turns: list[Message], path: str) -> tuple[list[Message], str | None]:
    """The turns up to the answer, and the answer where they end with one."""
    turns = [_message(turn, f"{path}[{i}]") for i, turn in enumerate(turns)]
    if turns[-1]["role"] != "assistant":
        return turns, None
    return turns[:-1], _text(turns[-1], f"{path}[{len(turns) - 1}]")


def _message(turn: Message, path: str) -> Message:
    """The turn with its content as one text; none where it calls tools. Raises ValueError for other parts."""
    content = turn.get("content")
    if isinstance(content, str):
        return turn
    if content is None:
        if not turn.get("tool_calls"):
            raise ValueError(f"{path}.content: {'null' if 'content' in turn else 'missing'}, and no tool_calls")
        return turn
    texts = []
    for i, part in enumerate(content):
        text = part.get("text")
        if part.get("type", "text") != "text" or not isinstance(text, str):
            shown = part.get("type") if isinstance(part.get("type"), str) else kind(text)
            raise ValueError(f"{path}.content[{i}]: expected a text, got {shown}")
        texts.append(text)
    return {**turn, "content": "".join(texts)}


def _text(turn: Message, path: str) -> str:
    """The words of an answer. Raises ValueError for one that only calls tools."""
    content = turn.get("content")
    if not isinstance(content, str):
        raise ValueError(f"{path}.content: null: an answer that only calls tools is no text")
    return content


def _texts(value: Any, path: str) -> tuple[Any, list[tuple[str, list[Message]]]]:
    """An answer, or a list of them, as text; and what comes before each in its conversation, with its path."""
    if isinstance(value, str):
        return value, []
    if path == "completions":
        pairs = [_texts(entry, f"{path}[{i}]") for i, entry in enumerate(value)]
        return [text for text, _ in pairs], [turns for _, before in pairs for turns in before]
    before, answer = _split(value, path)
    if answer is None:
        raise ValueError(f"{path}: ends with a turn of {value[-1]['role']}, not of assistant")
    return answer, [(path, before)] if before else []


def _agreed(messages: list[Message] | None, turns: list[Message], path: str, prompt: object) -> list[Message]:
    """The conversation before an answer, which must be the prompt."""
    if messages is not None:
        if turns != messages:
            raise ValueError(f"{path}: what comes before its last turn is not the prompt")
    elif isinstance(prompt, str) and not is_turn(prompt, turns):
        _must_be_rendered(prompt, turns)
    return turns


def with_completions(record: Record) -> Record:
    """The record, chosen and rejected as its completions where it has none."""
    if "completions" in record or not {"chosen", "rejected"} <= record.keys():
        return record
    return {**record, "completions": [record["chosen"], record["rejected"]]}


def is_turn(prompt: str, messages: list[Message]) -> bool:
    """Whether a plain prompt is the first or the last turn of the user."""
    turns = [message.get("content") for message in messages if message["role"] == "user"]
    return prompt in turns[:1] + turns[-1:]


def _must_be_rendered(prompt: str, messages: list[Message]) -> None:
    """Raises ValueError for a prompt that cannot be the conversation as a template writes it."""
    at = 0
    for message in messages:
        words = (message.get("content") or "").strip()
        at = prompt.find(words, at)
        if at < 0:
            raise ValueError("prompt: neither the user's first or last turn of messages, nor all of them")
        at += len(words)


def with_condition(record: Record, text: str, role: str) -> Record:
    """The record with a condition in its prompt: before a plain one, else in the user's last turn or the system's.

    Raises ValueError for a conversation without a turn of the user.
    """
    if "messages" not in record:
        return {**record, "prompt": text + record["prompt"]}
    messages: list[Message] = list(record["messages"])
    record = {name: value for name, value in record.items() if name != "prompt"}
    if role == "system":
        if messages[0]["role"] == "system":
            return {**record, "messages": [_before(messages[0], f"{text.rstrip()}\n\n"), *messages[1:]]}
        return {**record, "messages": [{"role": "system", "content": text.strip()}, *messages]}
    places = [i for i, message in enumerate(messages) if message["role"] == "user"]
    if not places:
        raise ValueError("messages: no turn of the user to put a condition before")
    messages[places[-1]] = _before(messages[places[-1]], text)
    return {**record, "messages": messages}


def _before(message: Message, text: str) -> Message:
    return {**message, "content": text + (message.get("content") or "")}
