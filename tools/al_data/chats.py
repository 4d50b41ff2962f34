"""Instructions and their answers -> records: ShareGPT, UltraChat, GSM8K, AlpacaEval, as published.

Prompts are dialogues in HH's form; an answer's white space at its ends is one space before it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from al_data.dialogues import SPEAKERS, Dialogue, alternate
from al_data.messages import ASSISTANT, HUMAN
from al_data.row import Row, is_own, number, objects, own, string, unmarked
from alignlib.records.dialogue import answer
from alignlib.records.jsonl import Record, Skip, kind


def sharegpt(row: Record, turns: int = 1) -> list[Record] | Record:
    """{id, conversations: [{from, value}]} -> {id, prompt, chosen} of each of the first `turns` answers.

    A later answer's prompt holds the turns before it. Chats that begin with the assistant are left out, as in the
    AI-feedback study; a system's turn is in the prompt's messages only; where a speaker speaks twice the dialogue ends.
    """
    if is_own(row):
        return own(row, "prompt", "chosen")
    utterances = [(string(turn, "from"), string(turn, "value")) for turn in objects(row, "conversations")]
    return dialogue(utterances, turns, row.get("id"))


def teacher(row: Record) -> Record:
    """{key, value}, an instruction of ShareGPT and GPT-4's or Claude's answers to it -> {prompt, chosen}.

    The first answer counts, as in the AI-feedback study, which publishes one object {instruction: [answer]}.
    """
    if is_own(row):
        return own(row, "prompt", "chosen")
    answers = row.get("value")
    if not isinstance(answers, list) or not answers or not isinstance(answers[0], str):
        raise ValueError(f"expected a list of answers, got {kind(answers)}")
    return dialogue([("human", string(row, "key")), ("gpt", answers[0])], 1)[0]


def ultrachat(row: Record, turns: int = 1) -> list[Record] | Record:
    """{prompt_id, messages: [{role, content}]} or {id, data: [text]} -> {id, prompt, chosen} as `sharegpt`."""
    if "messages" in row and "chosen" not in row:
        utterances = [(string(turn, "role"), string(turn, "content")) for turn in objects(row, "messages")]
        return dialogue(utterances, turns, row.get("prompt_id"))
    if is_own(row):
        return own(row, "prompt", "chosen")
    texts = row.get("data")
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ValueError("expected messages, or data: a list of texts")
    utterances = [(("human", "gpt")[place % 2], text) for place, text in enumerate(texts)]
    return dialogue(utterances, turns, row.get("id"))


def dialogue(utterances: Iterable[tuple[str, str]], turns: int, name: object = None) -> list[Record]:
    """(speaker, text) by turns -> a record for each of the first `turns` answers. Raises Skip where there is none."""
    utterances = list(utterances)
    spoken = [(speaker, text) for speaker, text in utterances if speaker != "system"]
    unmarked(*(text for _, text in spoken))
    if spoken and spoken[0][0] in ASSISTANT:
        raise Skip("begins with the assistant")
    records: list[Record] = []
    messages: list[Record] = []
    turn = 0
    for speaker, text in utterances:
        if speaker == "system":
            messages += [{"role": "system", "content": text.strip()}] if text.strip() else []
            continue
        if turn == 2 * turns or speaker not in (HUMAN, ASSISTANT)[turn % 2] or not text.strip():
            break  # enough, or the dialogue is torn here
        role = tuple(SPEAKERS)[turn % 2]
        if role == "assistant":
            nth = f"-{len(records) + 1}" if records else ""
            known = {"id": f"{name}{nth}"} if isinstance(name, str) else {}
            records.append({**known, "prompt": Dialogue([*messages]), "chosen": answer(text)})
        messages.append({"role": role, "content": text.strip()})
        turn += 1
    if not records:
        raise Skip("no answer to a first question")
    return records


# ------------------------------------------------------------------------------------- GSM8K

_CALCULATION = re.compile(r"<<[^<>]*>>")  # for a calculator that its authors' models call


def gsm8k(row: Record) -> Record:
    """{question, answer: "48 / 2 = <<48/2=24>>24.\\n#### 24"} -> {prompt, chosen, answer: "24"}.

    chosen is the worked solution with its last line, and without the marks of its calculator. Source: Cobbe et al. 2021
    (arXiv 2110.14168).
    """
    if is_own(row):
        return own(row, "prompt")
    solution = string(row, "answer")
    _, mark, final = solution.rpartition("####")
    if not mark or not final.strip():
        raise ValueError("answer: expected a solution that ends with #### and a number")
    return {"prompt": alternate(string(row, "question")), "chosen": answer(_CALCULATION.sub("", solution)),
            "answer": final.strip().replace(",", "")}


# -------------------------------------------------------------------------------- AlpacaEval


def alpaca_eval(row: Record) -> Record:
    """One of AlpacaEval's own files: instructions with outputs, or annotations.

    {instruction, output, generator} -> {prompt, completions: [output], instruction, generator}: answers to compare
    with, which its authors ask nobody to train on.
    {instruction, output_1, output_2, preference, ...} -> {prompt, chosen, rejected, completions: [output_2, output_1],
    winner, ...}: output_1 is the reference's, and `preference` 1 prefers it, 2 the other, 1.5 (once 0) neither; between
    them it is 1 + the judge's probability for output_2, which becomes `win_probability`.
    """
    if is_own(row):
        return own(row, "prompt")
    kept = {name: value for name, value in row.items()
            if name not in ("output", "output_1", "output_2", "preference") and not name.startswith("raw")}
    record = {name: row[name] for name in row if name == "id"} | {"prompt": alternate(string(row, "instruction"))}
    if "output_1" not in row:
        return {**record, "completions": [answer_as_is(row, "output")], **kept}
    if row.get("preference") is None:
        raise Skip("no preference")
    preference = number(row, "preference") or 1.5
    if not 1 <= preference <= 2:
        raise ValueError(f"preference: expected 1 to 2, got {preference}")
    pair = [answer_as_is(row, "output_2"), answer_as_is(row, "output_1")]
    winner = None if preference == 1.5 else int(preference < 1.5)
    if winner is not None:
        record |= {"chosen": pair[winner], "rejected": pair[1 - winner]}
    sure = preference in (1, 1.5, 2)
    return {**record, "completions": pair, "winner": winner,
            **({} if sure else {"win_probability": preference - 1}), **kept}


def numbered(rows: Iterable[Row]) -> Iterator[Row]:
    """The rows with ids alpaca-eval-0, alpaca-eval-1, ...: AlpacaEval knows its instructions by their order."""
    for place, (where, row) in enumerate(rows):
        yield where, {"id": f"alpaca-eval-{place}", **row}


def answer_as_is(row: Record, name: str) -> str:
    """An output with all its white space, after the one space: its length decides in the length-controlled win rate."""
    return f" {string(row, name)}"
