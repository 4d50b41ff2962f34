"""The part of al-eval that tells how often a judge prefers a model to a reference.

    in    {"prompt": "Hi", "completions": [" Hello!", " What?"], "winner": 0, "orders_agree": true}
    out   {"what": "winrate", "records": 1, "winrate": {"mean": 1.0, "low": null, "high": null, "n": 1}, ...}

    al-label-ai --judge NAME sft.jsonl --against teacher.jsonl | al-eval winrate
    al-eval winrate sft.jsonl dpo.jsonl --against teacher.jsonl --judge "NAME --question helpful"
"""

import shlex
import subprocess
import sys
from array import array
from pathlib import Path
from typing import TYPE_CHECKING

import click

from al_eval import results
from al_eval.alpaca_eval import instruction_number, output_row, read_gamed, write_outputs
from al_eval.results import (
    READABLE,
    Bootstrap,
    NamedFile,
    Prompts,
    bootstrap_options,
    label_option,
    plot_option,
    result_files,
)
from al_eval.reward import read_by_prompt
from alignlib.cli import options, paths
from alignlib.records import conversations, fields, jsonl
from alignlib.records.jsonl import Record
from alignlib.records.prompts import prompt_key

if TYPE_CHECKING:  # they load numpy
    from al_eval.length_controlled import Gamed
    from al_eval.means import Integers, Mean, Numbers

TIE = 2  # the class of a tie, beside the winners 0 and 1
UNASKED = -1  # whether the orders agree, where one was asked


class Verdicts:
    """What is kept of the judged records of one model: verdicts, lengths, prompts, people's verdicts."""

    def __init__(self) -> None:
        self.read, self.unparsed, self.unjudged = 0, 0, 0
        self.won = array("d")  # 1, 1/2, 0 or a probability
        self.winners = array("b")  # 0, 1, TIE
        self.agree = array("b")  # 0, 1, UNASKED
        self.lengths = array("I"), array("I")  # characters of the model's and the reference's
        self.prompts = Prompts()
        self.instructions: list[int] = []  # AlpacaEval's numbers, where they are needed
        self.human = array("b"), array("b")  # classes of the judge and of people

    def add(self, record: Record, winner: int | None) -> None:
        self.winners.append(TIE if winner is None else winner)
        self.won.append(record.get("win_probability", 0.5 if winner is None else 1.0 - winner))
        agree = record.get("orders_agree")
        self.agree.append(UNASKED if agree is None else agree)
        self.prompts.add(prompt_key(record))
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
@click.option("--alpaca-eval", type=paths.OutputFile(), help="Write one model's outputs here, for AlpacaEval.")
@click.option("--title", default="", help="Of the plot.")
@plot_option
@bootstrap_options
def winrate(files: list[NamedFile], against: str | None, judge: str | None, gamed: str | None, alpaca_eval: str | None,
            title: str, plot: str | None, resamples: int, seed: int, labels: Record, output: str | None,
            as_json: bool | None) -> None:
    """How often the first of two completions, the model's, is preferred to the second, the reference's.

    By `winner` (al-label-ai, al-data alpaca-eval), else by two `rewards`; records whose verdict is unparsed are counted
    and left out. `winrate` counts a tie half, or takes a judge's `win_probability`; `lc_winrate` is AlpacaEval 2.0's
    length-controlled one. `orders_disagree`: share of pairs whose verdict depended on the order; `human_accuracy`,
    `human_kappa`: agreement with `human_winner`, a tie being a class of its own.

    Several [NAME=]FILEs are models, a line each: al-eval table, or --plot. `above_first` is a win rate less the
    first FILE's, over the prompts both have. Reads all input first; keeps numbers.
    """
    summary, bootstrap = options.Summary(), Bootstrap(resamples=resamples, seed=seed)
    summary.count(records=0)
    if alpaca_eval and len(files) > 1:
        raise click.UsageError("--alpaca-eval takes one model's file")
    names = [name or (Path(path).stem if len(files) > 1 else "") for name, path in files]
    results.must_differ(names, "models")
    results.check_labels(labels, [*(["method"] if names[0] else []), *figures(Verdicts(), None, bootstrap),
                                  *(["above_first"] if len(files) > 1 else [])])
    generator: str = names[0] or labels.get("method", "")
    if alpaca_eval and not generator:
        raise click.UsageError("--alpaca-eval: name the model, NAME=FILE or --set method=NAME")
    if judge:
        if against is None or any(path == "-" for _, path in files):
            raise click.UsageError("--judge goes with FILEs and --against")
        files = [(name, judge_file(path, against, judge)) for name, path in files]
        against = None
    reference = first_completions(against) if against else None
    baselines = read_gamed(gamed) if gamed else None
    rows: list[Record] = []
    outputs: list[Record] | None = [] if alpaca_eval else None
    first = None
    for name, (_, path) in zip(names, files, strict=True):
        verdicts = read_verdicts(path, reference, bool(baselines), outputs)
        summary.count(records=verdicts.read, unparsed=verdicts.unparsed)
        warn_of_order(verdicts, path)
        row: Record = {"method": name} if name else {}
        row |= figures(verdicts, baselines, bootstrap)
        if len(files) > 1:
            row["above_first"] = above(verdicts, first, bootstrap) if first else None
        first = first or verdicts
        rows.append(row)
    if alpaca_eval:
        write_outputs(outputs or [], generator, alpaca_eval)
    if plot:
        from al_eval import plots

        plots.winrates({row.get("method") or labels.get("method", ""): row for row in rows}, plot, title=title)
    results.write_all("winrate", rows, labels, output, as_json)
    summary.close()


def judge_file(path: str, against: str, judge: str) -> str:
    """Have a judge compare a file's completions with the reference's; the file of its verdicts.

    A process of its own, so that a judge has all its options there and none here. Made anew each time, lest files that
    have changed keep old verdicts; the cache beside it has what was paid for. Only a killed run is gone on with.
    """
    verdicts = f"{path}.judged"
    again = ["--resume"] if Path(f"{verdicts}.state").exists() else []
    done = subprocess.run([sys.executable, "-c", "from al_label_ai import main; main(prog_name='al-label-ai')", path,
                           "--against", against, "-o", verdicts, *again, "--judge", *shlex.split(judge)])
    if done.returncode:
        raise click.exceptions.Exit(done.returncode)  # it has told why
    return verdicts


def read_verdicts(path: str, reference: dict[bytes, Record] | None, numbered: bool,
                  outputs: list[Record] | None) -> Verdicts:
    """The verdicts of one model's file; a reference's first completion and reward are the second of each pair.

    numbered: each record's id must be AlpacaEval's. outputs: where the model's outputs are added, if they are wanted;
    records without a verdict are counted then, and left out. Raises DataError.
    """

    def prepare(record: Record) -> Record:
        if reference is not None:
            record = join_reference(record, reference)
        fields.require_completions(record)
        fields.check(record, "winner", "win_probability", "human_winner", "orders_agree")
        if outputs is not None:
            outputs.append(output_row(record))
        return record

    verdicts = Verdicts()
    for line in conversations.read_all((path,), prepare):
        record = line.data
        verdicts.read += 1
        if outputs is not None and "winner" not in record and "rewards" not in record:
            verdicts.unjudged += 1
            continue
        add_verdict(verdicts, record, line.where, numbered)
    return verdicts


def warn_of_order(verdicts: Verdicts, path: str) -> None:
    """Say so where a judge, asked in both orders, never gave one verdict: then all are ties, whatever the answers."""
    asked_twice = len(verdicts.agree) - verdicts.agree.count(UNASKED)
    if asked_twice and True not in verdicts.agree:
        print(f"warning: {path}: the orders disagree in all {asked_twice:,} pairs: the judge goes by the order alone "
              "and says nothing of the answers", file=sys.stderr)


def join_reference(record: Record, reference: dict[bytes, Record]) -> Record:
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


def add_verdict(verdicts: Verdicts, record: Record, where: str, numbered: bool) -> None:
    """Add a record's verdict, or count it as unparsed. Raises DataError for a record that cannot be compared."""
    if len(record["completions"]) != 2:
        raise jsonl.DataError(f"{where}: completions: expected 2, the reference's second, "
                              f"got {len(record['completions'])}")
    if "winner" not in record and "rewards" not in record:
        raise jsonl.DataError(f"{where}: winner: missing, and no rewards to tell it")
    if "winner" not in record:
        mine, other = record["rewards"]
        winner = None if mine == other else int(mine < other)
    elif record["winner"] is None and any(text is not None for text in record.get("unparsed") or ()):
        verdicts.unparsed += 1
        return
    else:
        winner = record["winner"]
    if numbered:
        try:
            verdicts.instructions.append(instruction_number(record))
        except ValueError as error:
            raise jsonl.DataError(f"{where}: {error}") from error
    verdicts.add(record, winner)


# --------------------------------------------------------------------------------------- figures


def figures(verdicts: Verdicts, gamed: "Gamed | None", bootstrap: Bootstrap) -> Record:
    """The figures of one model, each with its interval."""
    import numpy as np

    from al_eval.length_controlled import kappa, length_controlled
    from al_eval.means import mean_interval

    groups, winners, agree = verdicts.prompts.numbers(), np.asarray(verdicts.winners), np.asarray(verdicts.agree)

    def mean(values: "Numbers", among: "Integers" = groups) -> "Mean":
        return mean_interval(values, among, **bootstrap)

    known = agree != UNASKED
    judge, human = map(np.asarray, verdicts.human)
    if gamed and (unknown := set(verdicts.instructions) - gamed.of_instruction.keys()):
        raise jsonl.DataError(f"--gamed: no difficulty of instruction {min(unknown)}")
    return {
        "records": verdicts.read,
        "winrate": mean(verdicts.won),
        "lc_winrate": length_controlled(*verdicts.lengths, verdicts.won, gamed=gamed,
                                        instructions=verdicts.instructions, groups=groups, **bootstrap),
        **{name: mean(winners == kind)
           for name, kind in (("win", 0), ("tie", TIE), ("loss", 1))},
        "orders_disagree": mean(agree[known] == 0, groups[known]),
        **({"human_accuracy": mean_interval(judge == human, **bootstrap),
            "human_kappa": kappa(judge, human, **bootstrap)} if human.size else {}),
        "chars": mean(verdicts.lengths[0]),
        "chars_of_reference": mean(verdicts.lengths[1]),
        "unparsed": verdicts.unparsed,
        **({"unjudged": verdicts.unjudged} if verdicts.unjudged else {}),
    }


def above(verdicts: Verdicts, first: Verdicts, bootstrap: Bootstrap) -> "Mean":
    """The win rate less the first model's, over the prompts both have: {mean, low, high, n}, n prompts."""
    from al_eval.means import mean_interval

    mine, other = mean_by_prompt(verdicts), mean_by_prompt(first)
    return mean_interval([mine[prompt] - other[prompt] for prompt in mine if prompt in other], **bootstrap)


def mean_by_prompt(verdicts: Verdicts) -> dict[bytes, float]:
    """Prompt -> the mean of its verdicts."""
    by_prompt: dict[bytes, list[float]] = {}
    for prompt, won in zip(verdicts.prompts, verdicts.won, strict=True):
        by_prompt.setdefault(prompt, []).append(won)
    return {prompt: sum(won) / len(won) for prompt, won in by_prompt.items()}
