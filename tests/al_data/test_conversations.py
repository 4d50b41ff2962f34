"""al-data chat: every public shape, told apart row by row; what is of none is named, what teaches nothing counted."""

import csv
import json
import random
import re

import pytest

from al_data.conversations import conversation
from alignlib.records.jsonl import Skip
from helpers.commands import lines, read
from helpers.process import call, succeeded


def says(*texts, system=""):
    before = [{"role": "system", "content": system}] if system else []
    return before + [{"role": ("user", "assistant")[place % 2], "content": text} for place, text in enumerate(texts)]


def answers(text):
    return [{"role": "assistant", "content": text}]


def sharegpt(*texts, system=""):
    names = {"system": "system", "user": "human", "assistant": "gpt"}
    return [{"from": names[turn["role"]], "value": turn["content"]} for turn in says(*texts, system=system)]


SFT = {"messages": says("Why?"), "chosen": "So."}
PAIR = {**SFT, "rejected": "No."}
LATER = {"messages": says("Hi", "Hello.", "Why?"), "chosen": "So."}
BRIEF = {"messages": says("Why?", system="Be brief."), "chosen": "So."}
TOOL = {"type": "function", "function": {"name": "add", "parameters": {}}}
CALLS = {"role": "assistant", "content": None, "tool_calls": [
    {"id": "c", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}]}
CALLED = {**CALLS, "tool_calls": [{**CALLS["tool_calls"][0], "function": {"name": "add", "arguments": {"a": 1}}}]}
RESULT = {"role": "tool", "tool_call_id": "c", "content": "2"}

SHAPES = [
    # TRL: prompt only, prompt and completion, preferences with the prompt and without, whole conversations
    ({"prompt": says("Why?")}, {"messages": says("Why?")}),
    ({"prompt": says("Why?"), "completion": answers("So.")}, SFT),
    ({"prompt": says("Hi"), "completion": says("Hi", "Hello.", "Why?", "So.")[1:]}, LATER),
    ({"prompt": says("Why?"), "chosen": answers("So."), "rejected": answers("No.")}, PAIR),
    ({"chosen": says("Why?", "So."), "rejected": says("Why?", "No.")}, PAIR),
    ({"messages": says("Hi", "Hello.", "Why?", "So.")}, LATER),
    ({"messages": says("Hi", "Hello.", "Why?")}, {"messages": LATER["messages"]}),
    ({"prompt": says("Why?"), "completion": answers("No."), "label": False},
     {"messages": says("Why?"), "completions": ["No."], "rewards": [0.0]}),
    # the same in texts
    ({"prompt": "Why?"}, {"messages": says("Why?")}),
    ({"prompt": "Why?", "completion": " So."}, SFT),
    ({"prompt": "Why?", "chosen": "So.", "rejected": "No."}, PAIR),
    ({"prompt": "Why?", "completion": "So.", "label": True},
     {"messages": says("Why?"), "completions": ["So."], "rewards": [1.0]}),
    ({"prompt": "\n\nHuman: Hi\n\nAssistant: Hello.\n\nHuman: Why?\n\nAssistant:", "chosen": " So."}, LATER),
    ({"chosen": "\n\nHuman: Why?\n\nAssistant: So.", "rejected": "\n\nHuman: Why?\n\nAssistant: No."}, PAIR),
    ({"text": "\n\nHuman: Why?\n\nAssistant: So."}, SFT),
    # ShareGPT, and what LLaMA-Factory adds to it
    ({"id": "s", "conversations": sharegpt("Why?", "So.", system="Be brief.")}, {"id": "s", **BRIEF}),
    ({"conversation": [{"from": "user", "value": "Why?"}, {"from": "assistant", "value": "So."}]}, SFT),
    ({"conversations": sharegpt("Why?"), "chosen": {"from": "gpt", "value": "So."},
      "rejected": {"from": "gpt", "value": "No."}}, PAIR),
    ({"system": "Be brief.", "tools": '[{"name": "add", "parameters": {}}]', "conversations": [
        *sharegpt("Why?"), {"from": "function_call", "value": '{"name": "add", "arguments": {}}'},
        {"from": "observation", "value": "2"}, {"from": "gpt", "value": "So."}]},
     {"messages": [*says("Why?", system="Be brief."), {"role": "assistant", "content": None, "tool_calls": [
         {"type": "function", "function": {"name": "add", "arguments": {}}}]}, {"role": "tool", "content": "2"}],
      "chosen": "So.", "tools": [TOOL]}),
    # Alpaca, Dolly, OpenOrca
    ({"instruction": "Why?", "input": "", "output": "So.", "text": "Below is ..."}, {**SFT, "text": "Below is ..."}),
    ({"instruction": "Add.", "input": "1 1", "output": "2"}, {"messages": says("Add.\n\n1 1"), "chosen": "2"}),
    ({"instruction": "Why?", "output": "So.", "system": "Be brief."}, BRIEF),
    ({"instruction": "Why?", "output": "So.", "history": [["Hi", "Hello."]]}, LATER),
    ({"instruction": "Why?", "input": "", "chosen": "So.", "rejected": "No."}, PAIR),
    ({"instruction": "Add.", "context": "1 1", "response": "2", "category": "c"},
     {"messages": says("Add.\n\n1 1"), "chosen": "2", "category": "c"}),
    ({"id": 7, "system_prompt": "Be brief.", "question": "Why?", "response": "So."}, {"id": "7", **BRIEF}),
    # OpenAI's fine-tuning
    ({"messages": [*says("Hi", "Hello.", "Why?"), {**answers("Bye.")[0], "weight": 0}]},
     {"messages": says("Hi"), "chosen": "Hello."}),
    ({"messages": [*says("Add."), CALLS, RESULT, *answers("2")], "tools": [TOOL], "parallel_tool_calls": False},
     {"messages": [*says("Add."), CALLED, RESULT], "chosen": "2", "tools": [TOOL], "parallel_tool_calls": False}),
    ({"messages": [*says("Add."), {"role": "assistant", "content": None, "function_call": {"name": "add",
      "arguments": "{}"}}, {"role": "function", "name": "add", "content": "2"}, *answers("2")],
      "functions": [TOOL["function"]]},
     {"messages": [*says("Add."), {"role": "assistant", "content": None, "tool_calls": [
         {"type": "function", "function": {"name": "add", "arguments": {}}}]},
         {"role": "tool", "content": "2", "name": "add"}], "chosen": "2", "tools": [TOOL]}),
    ({"messages": [{"role": "developer", "content": "Be brief."},
                   {"role": "user", "content": [{"type": "text", "text": "Why?"}]}, *answers("So.")]}, BRIEF),
    ({"input": {"messages": says("Why?"), "tools": [TOOL], "parallel_tool_calls": True},
      "preferred_output": answers("So."), "non_preferred_output": answers("No.")},
     {**PAIR, "tools": [TOOL], "parallel_tool_calls": True}),
    # a question and its answer
    ({"prompt": "Why?", "response": "So."}, SFT), ({"question": "Why?", "answer": "So.\n"}, SFT),
    ({"input": "Why?", "output": "So."}, SFT), ({"query": "Why?", "response": "So.", "source": "s"},
                                                {**SFT, "source": "s"}),
    # ultrachat_200k, ultrafeedback_binarized, orca_dpo_pairs
    ({"prompt": "Hi", "prompt_id": "u", "messages": says("Hi", "Hello.", "Why?", "So.")}, {"id": "u", **LATER}),
    ({"prompt": "Why?", "prompt_id": "u", "chosen": says("Why?", "So."), "rejected": says("Why?", "No."),
      "messages": says("Why?", "So."), "score_chosen": 8.0, "score_rejected": 2.5},
     {"id": "u", **PAIR, "score_chosen": 8.0, "score_rejected": 2.5}),
    ({"system": "Be brief.", "question": "Why?", "chosen": says("Why?", "So.", system="Be brief."),
      "rejected": says("Why?", "No.", system="Be brief.")}, {**BRIEF, "rejected": "No."}),
    ({"system": "", "question": "Why?", "chosen": "So.", "rejected": "No."}, PAIR),
    # our own
    (PAIR, PAIR), ({"id": "x", **LATER, "domain": "d"}, {"id": "x", **LATER, "domain": "d"}),
    ({"messages": says("Why?"), "completions": [" a", "b"], "rewards": [1, 2]},
     {"messages": says("Why?"), "completions": [" a", "b"], "rewards": [1, 2]}),
    ({"prompt": "\n\nHuman: Why?\n\nAssistant:", "completions": [" a", " b"]},
     {"messages": says("Why?"), "completions": ["a", "b"]}),
    ({"messages": says("Why?", "So."), "rejected": "No."}, PAIR), ({**PAIR, "messages": says("Why?", "So.")}, PAIR),
    # a table of several shapes has nulls in the others' columns
    ({"messages": None, "prompt": "Why?", "completion": "So.", "chosen": None, "rejected": None, "tools": None}, SFT),
    # chosen and rejected part before their last turns, as in HH
    ({"chosen": says("Why?", "So.", "Thanks.", "Bye."), "rejected": says("Why?", "No.", "Oh.", "Ha.")}, PAIR),
]


def test_every_shape_becomes_a_record():
    """In one file, row by row; and what comes out comes out again."""
    records = succeeded(call("al-data", "chat", "-", stdin=lines(*(row for row, _ in SHAPES))))
    for (row, expected), record in zip(SHAPES, records, strict=True):
        assert record == expected, row
    again = [{name: value for name, value in record.items() if name != "text"} for record in records]
    assert succeeded(call("al-data", "chat", stdin=lines(*again))) == again


def test_the_fields_come_in_their_order():
    record = conversation({"source": "s", "rejected": "No.", "chosen": "So.", "prompt_id": "u", "prompt": "Why?"})
    assert list(record) == ["id", "messages", "chosen", "rejected", "source"]


SKIPPED = [
    ({"messages": []}, "no messages"), ({"chosen": [], "rejected": []}, "an empty answer"),
    ({"messages": says("Why?", " ")}, "an empty answer"), ({"prompt": " "}, "an empty turn"),
    ({"messages": says("Why?", "", "Hm?", "So.")}, "an empty turn"),
    ({"conversations": sharegpt("a", "b")[1:]}, "no question"),
    ({"conversations": [*sharegpt("a", "b")[1:], *sharegpt("Why?", "So.")]}, "begins with the assistant"),
    ({"conversations": [{"from": "narrator", "value": "Once"}]}, "an unknown role"),
    ({"messages": [*says("Why?", "So."), *answers("So!")]}, "no question before the answer"),
    ({"messages": [*says("Add."), CALLS], "tools": [TOOL]}, "an answer that calls a tool"),
    ({"messages": [*says("Why?"), {**answers("So.")[0], "weight": 0}]}, "no answer with a weight"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}, *answers("So.")]}, "a part that is no text"),
    ({"prompt": "Who?", "messages": says("Why?", "So.")}, "prompt and messages disagree"),
    ({"prompt": "Who?", "chosen": says("Why?", "So."), "rejected": says("Why?", "No.")},
     "prompt and messages disagree"),
    ({"prompt": says("Who?"), "chosen": says("Why?", "So."), "rejected": says("Why?", "No.")},
     "two conversations that disagree"),
    ({"messages": says("Why?", "So."), "conversations": sharegpt("Why?", "No.")}, "two conversations that disagree"),
    ({"messages": says("Why?", "Hm."), "chosen": "So.", "rejected": "No."}, "two answers that disagree"),
    ({"system": "Be long.", "messages": says("Why?", "So.", system="Be brief.")}, "two texts of a system"),
    ({"chosen": says("Why?", "So."), "rejected": says("Who?", "No.")}, "the user's turns differ"),
    ({"chosen": says("Why?", "So."), "rejected": says("Why?", "So. ")}, "no answer differs by more than white space"),
    ({"prompt": says("Why?"), "chosen": says("Why?")}, "no answer"),
    ({"chosen": "The sky is blue.", "rejected": "The sky is green."}, "not a dialogue"),
    ({"text": "The sky is blue."}, "not a dialogue"), ({"question": "", "answer": "So."}, "an empty turn"),
]


@pytest.mark.parametrize("row, reason", SKIPPED)
def test_rows_without_a_lesson_are_skipped(row, reason):
    with pytest.raises(Skip, match=f"^{reason}$"):
        conversation(row)


def test_no_row_of_many_is_lost():
    """Written, and dropped by reason, are the rows that were read."""
    draw = random.Random(14)
    rows, reasons, written = [], {}, []
    for number in range(10_000):
        if draw.random() < 0.3:
            row, reason = draw.choice(SKIPPED)
            reasons[reason] = reasons.get(reason, 0) + 1
        else:
            row, record = draw.choice(SHAPES)
            written.append({**record, "row": number})
        rows.append({**row, "row": number})
    done = call("al-data", "chat", "-", stdin=lines(*rows))
    assert succeeded(done) == written
    assert f"{len(written):,} records" in done.stderr
    said = {reason: int(count.replace(",", "")) for count, reason in
            re.findall(r"([\d,]+) dropped \(([^)]*)\)", done.stderr)}
    assert said == reasons and len(written) + sum(said.values()) == 10_000


JUNK = [None, 3, True, "", "x", [], {}, [None], {"role": "user"}, {"from": "gpt", "value": "x"}, answers("y"),
        says("a", "b", system="s"), "\n\nHuman: a\n\nAssistant:"]


def places(value, path=()):
    """The paths to all that is in a row."""
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield (*path, key)
        yield from places(value[key], (*path, key))


def spoiled(row, draw):
    """The row with a value in it, at any depth, or a field more, that belongs to another shape or to none."""
    row = json.loads(json.dumps(row))
    *inside, last = draw.choice([*places(row), (draw.choice(draw.choice(NAMES)),)])
    target = row
    for key in inside:
        target = target[key]
    target[last] = draw.choice(JUNK)
    return row


NAMES = [sorted(row) for row, _ in SHAPES]


def test_spoiled_rows_are_records_or_named_or_skipped():
    """What comes out is whole, and comes out again as it is; the row stays as it was."""
    draw, whole = random.Random(14), 0
    for _ in range(5000):
        row = spoiled(draw.choice(SHAPES)[0], draw)
        before = json.dumps(row)
        try:
            record = conversation(row)
        except ValueError as error:  # Skip is one
            assert str(error)
            continue
        whole += 1
        assert json.dumps(row) == before and record["messages"][-1]["role"] in ("user", "tool")
        assert all(record[name].strip() for name in ("chosen", "rejected") if name in record)
        again = {name: value for name, value in record.items() if name != "label"}
        assert conversation(again) == again
    assert 1000 < whole < 4000


@pytest.mark.parametrize("row, message", [
    ({"x": 1, "y": None}, "no known shape in a row of x, y: al-data chat reads messages | conversations: "),
    ({}, "no known shape in a row of no fields: "),
    ({"question": "Why?", "gold": "So."}, "no known shape in a row of question, gold: "),
    ({"messages": "Why?"}, "messages: expected an array, got a string"),
    ({"messages": [{"role": "user"}]}, "messages[0]: content: missing"),
    ({"prompt": 3}, "prompt: expected a string, got a number"),
    ({"prompt": "Why?", "completion": 3}, "completion: expected a string or messages, got a number"),
    ({"question": "Why?", "prompt": "Who?", "answer": "So."}, "prompt and question: which one is the question?"),
    ({"question": "Why?", "answer": "So.", "response": "No."}, "response and answer: which one is the answer?"),
    ({"prompt": says("Why?"), "completion": [{"role": "assistant"}]}, "completion[0]: content: missing"),
    ({"rejected": "No.", "prompt": "Why?"}, "chosen: missing"),
    ({"input": "Why?", "preferred_output": answers("So.")}, "input: expected an object, got a string"),
    ({"instruction": "Why?", "output": "So.", "history": ["Hi"]}, "history[0]: expected a question and its answer"),
])
def test_a_row_of_no_known_shape_is_named(row, message):
    done = call("al-data", "chat", "-", stdin=lines(SFT, row))
    assert done.returncode == 65 and read(done.stdout) == [SFT]
    assert done.stderr.startswith(f"al-data: <stdin>:2: {message}") and done.stderr.count("\n") == 1


@pytest.mark.slow
def test_every_kind_of_file(tmp_path):
    import pyarrow
    from pyarrow import parquet

    rows = [{"id": str(number), "instruction": f"{number}?", "input": "", "output": "So."} for number in range(30)]
    with (tmp_path / "rows.csv").open("w", newline="") as handle:
        writer = csv.DictWriter(handle, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    (tmp_path / "rows.json").write_text(json.dumps(rows, indent=1))
    expected = [{"id": str(number), "messages": says(f"{number}?"), "chosen": "So."} for number in range(30)]
    for file in ("rows.csv", "rows.json"):
        assert succeeded(call("al-data", "chat", tmp_path / file)) == expected
    (tmp_path / "folder").mkdir()
    for kind, answer in (("sft", "So."), ("prefs", "No.")):
        table = pyarrow.Table.from_pylist([{"prompt_id": "u", "messages": says("Why?", answer), "tools": None}])
        parquet.write_table(table, tmp_path / "folder" / f"train_{kind}-00000-of-00001.parquet")
    done = call("al-data", "chat", "--kind", "prefs", tmp_path / "folder")
    assert succeeded(done) == [{"id": "u", "messages": says("Why?"), "chosen": "No."}]
    parquet.write_table(pyarrow.Table.from_pylist([{"prompt": "Why?", "picture": b"x"}]), tmp_path / "seen.parquet")
    done = call("al-data", "chat", tmp_path / "seen.parquet")
    assert done.returncode == 65 and "seen.parquet: row 1: picture: Type is not JSON serializable: bytes" in done.stderr
    done = call("al-data", "chat", tmp_path / "folder")
    assert done.returncode == 2 and "several kinds of files here (prefs, sft)" in done.stderr


def test_rows_of_no_set_may_be_left_out_and_are_named(tmp_path):
    jsonl = lines(SFT) + b'{"broken"\n' + lines({"items": [1]}, {"question": "2+2", "answer": 4}, [], SFT)
    (tmp_path / "rows.json").write_text(json.dumps([SFT, 7, {"items": [1]}, SFT]))
    (tmp_path / "rows.csv").write_text("question,answer\nWhy?,So.\nWhy?\nWhy?,So.\n")
    for file, stdin, bad in (
        ("-", jsonl, ["<stdin>:2: broken JSON", "<stdin>:3: no known shape", "<stdin>:4: answer:",
                      "<stdin>:5: expected"]),
        ("rows.json", b"", ["rows.json: item 2: expected an object", "rows.json: item 3: no known shape"]),
        ("rows.csv", b"", ["rows.csv:3: not as many fields"]),
    ):
        source = file if stdin else tmp_path / file
        assert call("al-data", "chat", source, stdin=stdin).returncode == 65
        done = call("al-data", "chat", source, "--on-error", "skip", stdin=stdin)
        assert len(succeeded(done)) == 2
        *named, summary = done.stderr.splitlines()
        assert len(named) == len(bad) and f"2 records, {len(bad)} dropped (no row of the set)" in summary
        assert all(line.startswith("skipped ") and words in line for line, words in zip(named, bad, strict=True))


@pytest.mark.parametrize("arguments, message", [
    (["chats.jsonl"], "chats.jsonl: no such file"), (["./chats"], "./chats: no such file"),
    (["-", "--config", "main"], "--config is of a set on the Hub (see al-data chat --help)"),
])
def test_a_file_that_is_not_there_is_no_set_of_the_hub(arguments, message):
    done = call("al-data", "chat", *arguments)
    assert (done.returncode, done.stderr) == (2, f"al-data: {message}\n")


def test_only_leaves_out_what_lacks_its_fields():
    """A file may hold rows with an answer, two, or none; the tools go with their conversation."""
    rows = [{"prompt": "Why?"}, {**SFT, "tools": [TOOL], "source": "s"}, {**PAIR, "id": "p"}]
    done = call("al-data", "chat", "--only", "sft", stdin=lines(*rows))
    assert succeeded(done) == [{**SFT, "tools": [TOOL]}, {"id": "p", **SFT}]
    assert "2 records, 1 dropped (no chosen)" in done.stderr
    done = call("al-data", "chat", "--only", "pref", stdin=lines(*rows))
    assert succeeded(done) == [{"id": "p", **PAIR}] and "1 dropped (no chosen), 1 dropped (no rejected)" in done.stderr
    assert len(succeeded(call("al-data", "chat", "--only", "prompts", stdin=lines(*rows)))) == 3
    judged = succeeded(call("al-data", "chat", "--only", "judge", stdin=lines(*rows)))
    assert [sorted(record["completions"]) for record in judged] == [["No.", "So."]]
    assert judged[0]["completions"][judged[0]["human_winner"]] == "So."


def test_its_help_and_schema():
    done = call("al-data", "chat", "--help")
    assert 'in:   {"conversations": [{"from": "human", "value": "Hi"}' in done.stdout and "[FILE|NAME]" in done.stdout
    schema = json.loads(call("al-data", "chat", "--schema").stdout)
    assert {"messages", "chosen", "rejected"} <= set(schema["output"]["properties"])
