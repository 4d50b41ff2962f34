"""The part of al-eval that tells how often a judge prefers a model to a reference.

    in    {"prompt": "Hi", "completions": [" Hello!", " What?"], "winner": 0, "orders_agree": true}
    out   {"what": "winrate", "records": 1, "winrate": {"mean": 1.0, "low": null, "high": null, "n": 1}, ...}

    al-label-ai --judge NAME sft.jsonl --against teacher.jsonl | al-eval winrate
    al-eval winrate sft.jsonl dpo.jsonl --against teacher.jsonl --judge "NAME --question helpful"
"""

import csv
import math
import shlex
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import click

from al_eval import results
from al_eval.results import READABLE, bootstrap_options, label_option, plot_option, result_files
from alignlib.cli import options
from alignlib.records import fields, jsonl
from alignlib.records.dialogue import instruction
from alignlib.records.jsonl import Record
from alignlib.records.prompts import prompt_key, read_by_prompt

GAMED = ("index", "std_delta_len", "instruction_difficulty", "preference")
TIE = 2  # the class of a tie, beside the winners 0 and 1


class Verdicts:
    """What is kept of the judged records of one model, a list each: verdicts, lengths, prompts, what people said."""

    def __init__(self) -> None:
        self.read, self.unparsed, self.unjudged = 0, 0, 0
        self.won, self.winners, self.agree = [], [], []  # 1, 1/2, 0 or a probability; 0, 1, TIE; None where one order
        self.lengths, self.prompts, self.instructions = ([], []), [], []
        self.human: tuple[list[int], list[int]] = ([], [])  # classes of the judge and of people

    def add(self, record: dict, winner: int | None) -> None:
        self.winners.append(TIE if winner is None else winner)
        self.won.append(record.get("win_probability", 0.5 if winner is None else 1.0 - winner))
        self.agree.append(record.get("orders_agree"))
        self.prompts.append(prompt_key(record))
        for lengths, text in zip(self.lengths, record["completions"], strict=True):
            lengths.append(len(text))
        if "human_winner" in record:
            self.human[0].append(self.winners[-1])
            self.human[1].append(TIE if record["human_winner"] is None else record["human_winner"])


@results.command("prompt", "completions", may=("winner", "win_probability", "orders_agree", "unparsed", "rewards",
                                                   "human_winner", "id"))
@result_files
@label_option
@click.option("--against", type=READABLE, help="The reference's records: each prompt's first completion is the second "
              "of the pair, the first reward decides.")
@click.option("--judge", metavar="'NAME ...'", help="Have al-label-ai compare each FILE with --against now: its "
              "--judge, and more of its options; verdicts and paid answers stay in FILE.judged.")
@click.option("--gamed", type=READABLE, help="AlpacaEval's df_gamed.csv: length_controlled_v1 instead of _minimal; "
              "ids are alpaca-eval-0, ...")
@click.option("--alpaca-eval", type=click.Path(dir_okay=False), help="Write one model's outputs here, for AlpacaEval.")
@click.option("--title", default="", help="Of the plot.")
@plot_option
@bootstrap_options
def winrate(files, against, judge, gamed, alpaca_eval, title, plot, resamples, seed, labels, output, as_json) -> None:
    """How often the first of two completions, the model's, is preferred to the second, the reference's.

    By `winner` (al-label-ai, al-data alpaca-eval), else by two `rewards`; records whose verdict is unparsed are counted
    and left out. `winrate` counts a tie half, or takes a judge's `win_probability`; `lc_winrate` is AlpacaEval 2.0's
    length-controlled one. `orders_disagree`: share of pairs whose verdict depended on the order; `human_accuracy`,
    `human_kappa`: agreement with `human_winner`, a tie being a class of its own.

    Several [NAME=]FILEs are models, a line each: al-eval table, or --plot. `above_first` is a win rate less the
    first FILE's, over the prompts both have. Reads all input first; keeps numbers.
    """
    summary, bootstrap = options.Summary(), {"resamples": resamples, "seed": seed}
    summary.count(records=0)
    if alpaca_eval and len(files) > 1:
        raise click.UsageError("--alpaca-eval takes one model's file")
    if judge:
        files, against = [(name or Path(path).stem, ask(path, against, judge)) for name, path in files], None
    reference = first_completions(against) if against else None
    tables = gamed_rows(gamed) if gamed else None
    rows, first = [], None
    for name, path in files:
        verdicts, outputs = Verdicts(), []
        for where, record in judged(path, reference):
            verdicts.read += 1
            if alpaca_eval:
                outputs.append(as_output(record))
            take(verdicts, record, where, bool(tables), unjudged=bool(alpaca_eval))
        summary.count(records=verdicts.read, unparsed=verdicts.unparsed)
        row = {"method": name or Path(path).stem} if name or len(files) > 1 else {}
        row |= figures_of(verdicts, tables, bootstrap)
        if len(files) > 1:
            row["above_first"] = above(verdicts, first, bootstrap) if first else None
        first = first or verdicts
        rows.append(row)
    if alpaca_eval:
        write_outputs(outputs, rows[0].get("method") or labels.get("method"), alpaca_eval)
    if plot:
        from al_eval import plots

        plots.winrates({row.get("method") or labels.get("method", ""): row for row in rows}, plot, title=title)
    results.write_all("winrate", rows, labels, output, as_json)
    summary.close()


def ask(path: str, against: str | None, judge: str) -> str:
    """Have a judge compare a file's completions with the reference's; the file of its verdicts.

    A process of its own, so that a judge has all its options there and none here. Made anew each time, lest files that
    have changed keep old verdicts; the cache beside it has what was paid for.
    """
    if against is None or path == "-":
        raise click.UsageError("--judge goes with FILEs and --against")
    made = f"{path}.judged"
    done = subprocess.run([sys.executable, "-c", "from al_label_ai import main; main(prog_name='al-label-ai')", path,
                           "--against", against, "-o", made, "--judge", *shlex.split(judge)])
    if done.returncode:
        raise click.exceptions.Exit(done.returncode)  # it has said why
    return made


def judged(path: str, reference: dict[bytes, dict] | None) -> Iterator[tuple[str, dict]]:
    """The records of two completions; with a reference, its first completion and reward are the second."""

    def prepare(record: dict) -> dict:
        if reference is not None:
            record = joined(record, reference)
        fields.require_completions(record)
        fields.check(record, "winner", "win_probability", "human_winner", "orders_agree")
        return record

    yield from ((line.where, line.data) for line in jsonl.read_all((path,), prepare))


def joined(record: dict, reference: dict[bytes, dict]) -> dict:
    """The pair of the record's first completion and the reference's to the same prompt. Raises ValueError."""
    fields.require_completions(record, "rewards")
    if "winner" in record:
        raise ValueError("winner: these are compared already; leave out --against")
    other = reference.get(prompt_key(record))
    if other is None:
        raise ValueError("prompt: no record of --against has this one")
    pair = {name: [record[name][0], other[name]] for name in ("completions", "rewards")}
    return {**fields.without_completions(record), **pair}


def first_completions(path: str) -> dict[bytes, Record]:
    """Prompt -> the first completion and reward of its first record."""

    def first(record: Record) -> Record:
        fields.require_completions(record, "rewards")
        return {name: record[name][0] for name in ("completions", "rewards")}

    return {prompt: records[0] for prompt, records in read_by_prompt(path, first).items()}


def take(verdicts: Verdicts, record: dict, where: str, numbered: bool, unjudged: bool) -> None:
    """Add a record's verdict, if it has one. Raises DataError for a record that cannot be compared."""
    if not ("winner" in record or "rewards" in record) and unjudged:
        verdicts.unjudged += 1
        return
    if len(record["completions"]) != 2:
        raise jsonl.DataError(f"{where}: completions: expected 2, the reference's second, "
                              f"got {len(record['completions'])}")
    if "winner" not in record and "rewards" not in record:
        raise jsonl.DataError(f"{where}: winner: missing, and no rewards to tell it")
    if "winner" not in record:
        mine, other = record["rewards"]
        winner = None if mine == other else int(mine < other)
    elif record["winner"] is None and any(record.get("unparsed") or ()):
        verdicts.unparsed += 1
        return
    else:
        winner = record["winner"]
    if numbered:
        number = str(record.get("id")).removeprefix("alpaca-eval-")
        if not number.isdecimal():
            raise jsonl.DataError(f"{where}: id: expected alpaca-eval-NUMBER, got {record.get('id')}")
        verdicts.instructions.append(int(number))
    verdicts.add(record, winner)


# --------------------------------------------------------------------------------------- figures


def figures_of(verdicts: Verdicts, gamed, bootstrap: dict) -> dict:
    """The figures of one model, each with its interval."""
    from al_eval import length_controlled
    from alignlib.stats.metrics import mean_interval

    groups = grouped(verdicts.prompts)

    def mean(values: Iterable[float], among: list[int] = groups) -> dict:
        return mean_interval(list(values), among, **bootstrap)

    known = [place for place, agree in enumerate(verdicts.agree) if agree is not None]
    judge, human = verdicts.human
    if gamed and (unknown := set(verdicts.instructions) - gamed.of_instruction.keys()):
        raise jsonl.DataError(f"--gamed: no difficulty of instruction {min(unknown)}")
    return {
        "records": verdicts.read,
        "winrate": mean(verdicts.won),
        "lc_winrate": length_controlled.length_controlled(*verdicts.lengths, verdicts.won, gamed=gamed,
                                                 instructions=verdicts.instructions, groups=groups, **bootstrap),
        **{name: mean([winner == kind for winner in verdicts.winners])
           for name, kind in (("win", 0), ("tie", TIE), ("loss", 1))},
        "orders_disagree": mean([not verdicts.agree[place] for place in known], [groups[place] for place in known]),
        **({"human_accuracy": mean_interval([a == b for a, b in zip(judge, human, strict=True)], **bootstrap),
            "human_kappa": length_controlled.kappa(judge, human, **bootstrap)} if human else {}),
        "chars": mean(verdicts.lengths[0]),
        "chars_of_reference": mean(verdicts.lengths[1]),
        "unparsed": verdicts.unparsed,
        **({"unjudged": verdicts.unjudged} if verdicts.unjudged else {}),
    }


def grouped(prompts: list[bytes]) -> list[int]:
    """The same number for the same prompt: its completions resemble each other, and are drawn together."""
    numbers: dict[bytes, int] = {}
    return [numbers.setdefault(prompt, len(numbers)) for prompt in prompts]


def above(verdicts: Verdicts, first: Verdicts, bootstrap: dict) -> dict:
    """The win rate less the first model's, over the prompts both have: {mean, low, high, n}, n prompts."""
    from alignlib.stats.metrics import mean_interval

    mine, other = by_prompt(verdicts), by_prompt(first)
    return mean_interval([mine[prompt] - other[prompt] for prompt in mine if prompt in other], **bootstrap)


def by_prompt(verdicts: Verdicts) -> dict[bytes, float]:
    """Prompt -> the mean of its verdicts."""
    found: dict[bytes, list[float]] = {}
    for prompt, won in zip(verdicts.prompts, verdicts.won, strict=True):
        found.setdefault(prompt, []).append(won)
    return {prompt: sum(won) / len(won) for prompt, won in found.items()}


# ------------------------------------------------------------------------------ AlpacaEval's files


def gamed_rows(path: str):
    """AlpacaEval's df_gamed.csv. Raises DataError naming the line."""
    import numpy as np

    from al_eval.length_controlled import Gamed

    columns, of_instruction = [], {}
    with open(0 if path == "-" else path, encoding="utf-8", newline="", closefd=path != "-") as handle:
        reader = csv.DictReader(handle)
        for row in reader:
            try:
                number, length, difficulty, said = (float(row[name] or "nan") for name in GAMED)
            except (KeyError, TypeError, ValueError) as error:
                raise jsonl.DataError(f"{path}:{reader.line_num}: expected numbers as {', '.join(GAMED)}") from error
            of_instruction[int(number)] = difficulty
            if not math.isnan(said):  # a verdict that failed
                columns.append((said, length, difficulty))
    if not columns:
        raise jsonl.DataError(f"{path}: no rows")
    return Gamed(*np.array(columns).T, of_instruction)


def as_output(record: dict) -> dict:
    """{instruction, output, dataset} of a record's first completion; the instruction as al-data alpaca-eval kept it."""
    text = record.get("instruction") or instruction(record.get("prompt", ""))
    kept = {"dataset": record["dataset"]} if "dataset" in record else {}
    return {**kept, "instruction": text, "output": record["completions"][0].strip()}


def write_outputs(outputs: list[dict], generator: str | None, path: str) -> None:
    """A model's outputs as AlpacaEval reads them."""
    import orjson

    if not generator:
        raise click.UsageError("--alpaca-eval: name the model, NAME=FILE or --set method=NAME")
    rows = [{**row, "generator": generator} for row in outputs]
    Path(path).write_bytes(orjson.dumps(rows, option=orjson.OPT_INDENT_2))
