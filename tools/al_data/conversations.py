"""Conversations in the shapes that most public sets have -> records, each row by its own shape.

    in:   {"prompt": [{"role": "user", "content": "Hi"}], "chosen": [{"role": "assistant", "content": "Hello."}]}
    out:  {"messages": [{"role": "user", "content": "Hi"}], "chosen": "Hello."}

A row has a prompt, in one of its fields, and answers, in others, or both in one: what stands where is all that the
shapes differ in. Sources: TRL's dataset formats, OpenAI's fine-tuning files, ShareGPT, Alpaca, and sets of the Hub.
"""

from __future__ import annotations

from collections.abc import Sequence

from al_data.dialogues import SPEAKERS, bare, first_difference, must_ask, read, same, stripped, turns
from al_data.messages import answer_text, messages, parted, tools
from al_data.row import string
from alignlib.records.jsonl import Record, Skip, dumps, kind

LISTS = ("messages", "conversations", "conversation")
QUESTIONS = ("prompt", "question", "query", "instruction", "input")  # one of them; `input` beside another is none
ANSWERS = ("completion", "response", "answer", "output")
OF_MESSAGES = ("completion", "response")  # beside a list of messages an `answer` is what it is checked against
CONTEXTS = ("input", "context")  # of an instruction
SYSTEMS = ("system", "system_prompt")
PAIR = {"chosen": ("chosen", "preferred_output"), "rejected": ("rejected", "non_preferred_output")}
SHAPES = ("messages | conversations: [{role, content} | {from, value}]; prompt, or prompt and completion | response; "
          "chosen and rejected, with or without prompt; question and answer | response; instruction, input, output; "
          "input: {messages}, preferred_output, non_preferred_output")
# Nulls there say that the row is of another shape, as in tables that hold several.
KNOWN = {*LISTS, *QUESTIONS, *ANSWERS, *CONTEXTS, *SYSTEMS, *PAIR["chosen"], *PAIR["rejected"], "text", "label",
         "history", "tools", "functions", "id", "prompt_id"}
Answer = str | list[Record]  # a text, or messages: of the answer alone, or of the whole conversation


def conversation(row: Record) -> Record:
    """A row -> {id, messages, chosen, rejected}, as far as it has them, and its other fields.

    The last answer is `chosen`, the turns before it are the messages; a conversation that ends with the user's turn is
    a prompt alone. Raises ValueError for a row of no known shape, Skip for one that has nothing to learn from.
    """
    fields = {name: value for name, value in row.items() if value is not None or name not in KNOWN}
    keys = ", ".join(fields) or "no fields"
    unpack_input(fields)
    start, prompt = take_start(fields), take_turns(fields)
    asked = take_question(fields, prompt)
    answers = take_answers(fields, prompt, asked)
    if not answers and prompt is None and (asked is None or "prompt" not in row):
        if asked is not None or "text" not in fields:
            raise ValueError(f"no known shape in a row of {keys}: al-data chat reads {SHAPES}")
        answers = {"chosen": take_answer(fields, "text")}
    record = take_name(fields) | answered(prompt, asked, answers, start)
    taken = row.get("completion") is not None and "completion" not in fields
    if taken and isinstance(fields.get("label"), bool):  # TRL's unpaired preference: whether it is a good one
        record |= {"completions": [record.pop("chosen")], "rewards": [float(fields.pop("label"))]}
    for name in ("functions", "tools"):
        if listed := tools(fields.pop(name, None)):
            record["tools"] = listed
    if asked is not None and "completions" in fields:
        fields["completions"] = bare(fields["completions"])
    must_be_json(fields)
    return record | {name: value for name, value in fields.items() if name not in record}


# --------------------------------------------------------------------------------- what a row is made of


def unpack_input(fields: Record) -> None:
    """OpenAI's {input: {messages, tools}, preferred_output, ...}: what is in the input stands beside the others."""
    if "preferred_output" not in fields:
        return
    given = fields.pop("input", None)
    if not isinstance(given, dict):
        raise ValueError(f"input: expected an object, got {kind(given)}")
    fields.update({name: value for name, value in given.items() if value is not None})


def take_start(fields: Record) -> list[Record]:
    """The system's turn and the turns before the question that stand in fields of their own, as Alpaca's may."""
    texts = [string(fields, name) for name in SYSTEMS if name in fields]
    for name in SYSTEMS:
        fields.pop(name, None)
    start = [{"role": "system", "content": text} for text in texts if text.strip()]
    if isinstance(fields.get("history"), list):  # [[question, answer], ...]
        for place, pair in enumerate(fields.pop("history")):
            if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(text, str) for text in pair):
                raise ValueError(f"history[{place}]: expected a question and its answer")
            start += [{"role": role, "content": text} for role, text in zip(SPEAKERS, pair, strict=True)]
    return start


def take_turns(fields: Record) -> list[Record] | None:
    """The conversation that a field holds, None where none does; two of them must be the same."""
    prompts = ("prompt",) if isinstance(fields.get("prompt"), list) else ()
    conversations = [messages(fields, name) for name in (*LISTS, *prompts) if name in fields]
    for name in (*LISTS, *prompts):
        fields.pop(name, None)
    if not conversations:
        return None
    if not all(conversations):
        raise Skip("no messages")
    longest = max(conversations, key=len)  # a prompt beside the whole is its beginning
    if not all(begins(longest, conversation) for conversation in conversations):
        raise Skip("two conversations that disagree")
    return longest


def take_question(fields: Record, prompt: list[Record] | None) -> str | None:
    """The question that is a text, with what it is about; beside messages only `prompt` is one."""
    names = [name for name in QUESTIONS if name in fields and (prompt is None or name == "prompt")]
    if len(names) > 1 and "input" in names:
        names.remove("input")
    if not names:
        return None
    if len(names) > 1:
        raise ValueError(f"{' and '.join(names)}: which one is the question? Leave the others out")
    (name,) = names
    text = string(fields, name)
    del fields[name]
    if name == "instruction":
        contexts = [string(fields, context) for context in CONTEXTS if context in fields]
        for context in CONTEXTS:
            fields.pop(context, None)
        text = "\n\n".join(filter(str.strip, (text, *contexts)))
    return text


def take_answers(fields: Record, prompt: list[Record] | None, asked: str | None) -> dict[str, Answer]:
    """{chosen, rejected}, as far as the row has them."""
    answers = {side: take_answer(fields, name) for side, names in PAIR.items() for name in names if name in fields}
    if "rejected" in answers and "chosen" not in answers:
        if not (prompt and prompt[-1]["role"] == "assistant"):
            raise ValueError("chosen: missing")
        answers["chosen"] = [prompt[-1]]
    if answers or (prompt is None and asked is None) or (prompt and prompt[-1]["role"] == "assistant"):
        return answers
    names = [name for name in (ANSWERS if prompt is None else OF_MESSAGES) if name in fields]
    if not names:
        return {}
    if len(names) > 1:
        raise ValueError(f"{' and '.join(names)}: which one is the answer? Leave the others out")
    return {"chosen": take_answer(fields, names[0])}


def take_answer(fields: Record, name: str) -> Answer:
    """The answer that a field holds: one message is a list of one."""
    value = fields.pop(name)
    if isinstance(value, str):
        return value
    if not isinstance(value, list | dict):
        raise ValueError(f"{name}: expected a string or messages, got {kind(value)}")
    return messages({name: [value] if isinstance(value, dict) else value}, name)


def take_name(fields: Record) -> Record:
    """{id}, from `id` or `prompt_id`, where the row has one."""
    name = "id" if "id" in fields else "prompt_id"
    return {"id": str(fields.pop(name))} if isinstance(fields.get(name), str | int) else {}


def must_be_json(fields: Record) -> None:
    """Raises ValueError for a field that no line can hold: tables have pictures and the like."""
    for name, value in fields.items():
        try:
            dumps({name: value})
        except TypeError as error:
            raise ValueError(f"{name}: {error}") from error


# ---------------------------------------------------------------------------- what it is made into


def answered(prompt: list[Record] | None, asked: str | None, answers: dict[str, Answer],
             start: list[Record]) -> Record:
    """{messages, chosen, rejected}, as far as there are answers. Raises Skip where the parts disagree."""
    if prompt and asked is not None:
        must_hold(prompt, asked)
    whole = {side: with_start(joined(prompt, asked, answer, side == "chosen"), start)
             for side, answer in answers.items()}
    if "rejected" in whole:
        place = first_difference(whole["chosen"], whole["rejected"])
        before = whole["chosen"][:place]
        must_ask(before)
        return {"messages": before, **{name: answer_text(whole[name][place]) for name in PAIR}}
    unanswered = prompt if prompt is not None else read(asked or "").messages
    before, answer = parted(whole["chosen"] if whole else with_start(unanswered, start))
    if whole and answer is None:
        raise Skip("no answer")
    must_ask(before)
    return {"messages": before} if answer is None else {"messages": before, "chosen": answer}


def joined(prompt: list[Record] | None, asked: str | None, answer: Answer, agrees: bool) -> list[Record]:
    """A conversation up to and with its answer, whose messages may hold the prompt's.

    agrees: whether they must; `first_difference` holds what is rejected against what is chosen.
    """
    if isinstance(answer, str) and prompt is None and asked is None:
        return stripped(turns(answer))
    conversation = [{"role": "assistant", "content": answer}] if isinstance(answer, str) else answer
    if not conversation:
        raise Skip("an empty answer")
    if conversation[0]["role"] in ("system", "user"):  # the whole
        if agrees and asked is not None:
            must_hold(conversation, asked)
        if agrees and prompt and not begins(conversation, prompt):
            raise Skip("two conversations that disagree")
        return conversation
    if prompt is None:
        return [*read(asked).messages, *conversation] if asked is not None else conversation
    if prompt[-1]["role"] != "assistant":
        return [*prompt, *conversation]
    if agrees and not same(prompt[-1], conversation[0]):
        raise Skip("two answers that disagree")
    return [*prompt[:-1], *conversation]


def with_start(conversation: list[Record], start: list[Record]) -> list[Record]:
    """The conversation after the turns that stood in fields of their own; a system's turn may stand in both."""
    if start and conversation and conversation[0]["role"] == start[0]["role"] == "system":
        if not same(conversation[0], start[0]):
            raise Skip("two texts of a system")
        conversation = conversation[1:]
    return [*start, *conversation]


def begins(conversation: Sequence[Record], prompt: Sequence[Record]) -> bool:
    """Whether the turns of `prompt` are a conversation's first; a system's turn may lack there."""
    if conversation[0]["role"] == "system" != prompt[0]["role"]:
        conversation = conversation[1:]
    return len(prompt) <= len(conversation) and all(
        turn["role"] == other["role"] and same(turn, other)
        for turn, other in zip(conversation, prompt, strict=False))


def must_hold(conversation: Sequence[Record], asked: str) -> None:
    """Raises Skip where a prompt that is text is neither the first nor the last of the user's turns, nor the start."""
    users = [(turn.get("content") or "").strip() for turn in conversation if turn["role"] == "user"]
    if asked.strip() not in (*users[:1], *users[-1:]) and not begins(conversation, read(asked).messages):
        raise Skip("prompt and messages disagree")
