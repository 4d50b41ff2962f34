"""AlpacaEval's files: its gamed baselines, which the length-controlled win rate takes in; a model's outputs for it.

    in    index,std_delta_len,instruction_difficulty,preference            df_gamed.csv of its package
    out   [{"instruction": "Hi", "output": "Hello!", "generator": "sft"}]
"""

import csv
import math
from typing import TYPE_CHECKING

import orjson

from alignlib.records import disk, jsonl
from alignlib.records.dialogue import instruction
from alignlib.records.jsonl import Record

if TYPE_CHECKING:  # it loads numpy
    from al_eval.length_controlled import Gamed

COLUMNS = ("index", "std_delta_len", "instruction_difficulty", "preference")


def read_gamed(path: str) -> "Gamed":
    """AlpacaEval's df_gamed.csv, "-" being standard input. Raises DataError naming the line."""
    import numpy as np

    from al_eval.length_controlled import Gamed

    rows, difficulties = [], {}
    with open(0 if path == "-" else path, encoding="utf-8", newline="", closefd=path != "-") as handle:
        reader = csv.DictReader(handle)
        for row in reader:
            try:
                number, length, difficulty, preference = (float(row[name] or "nan") for name in COLUMNS)
            except (KeyError, TypeError, ValueError) as error:
                raise jsonl.DataError(f"{path}:{reader.line_num}: expected numbers as {', '.join(COLUMNS)}") from error
            difficulties[int(number)] = difficulty
            if not math.isnan(preference):  # a verdict that failed
                rows.append((preference, length, difficulty))
    if not rows:
        raise jsonl.DataError(f"{path}: no rows")
    preferences, lengths, difficulty_column = np.array(rows).T
    return Gamed(preferences, lengths, difficulty_column, difficulties)


def instruction_number(record: Record) -> int:
    """The number of the record's instruction, as al-data alpaca-eval writes it into `id`. Raises ValueError."""
    number = str(record.get("id")).removeprefix("alpaca-eval-")
    if not number.isdecimal():
        raise ValueError(f"id: expected alpaca-eval-NUMBER, got {record.get('id')}")
    return int(number)


def output_row(record: Record) -> Record:
    """{instruction, output, dataset} of a record's first completion; the instruction as al-data alpaca-eval kept it.

    Raises ValueError for a conversation of several turns: AlpacaEval has none.
    """
    text = record.get("instruction") or asked(record)
    kept = {"dataset": record["dataset"]} if "dataset" in record else {}
    return {**kept, "instruction": text, "output": record["completions"][0].strip()}


def asked(record: Record) -> str:
    """The one thing that the user asks."""
    if "messages" not in record:
        return instruction(record["prompt"])
    turns = [turn for turn in record["messages"] if turn["role"] != "system"]
    if len(turns) > 1 or turns[0]["role"] != "user":
        raise ValueError("messages: expected one turn of the user, for AlpacaEval")
    text: str = turns[0]["content"]
    return text


def write_outputs(outputs: list[Record], generator: str, path: str) -> None:
    """A model's outputs, under its name, as AlpacaEval reads them."""
    rows = [{**row, "generator": generator} for row in outputs]
    with disk.whole(path) as handle:
        handle.write(orjson.dumps(rows, option=orjson.OPT_INDENT_2))
