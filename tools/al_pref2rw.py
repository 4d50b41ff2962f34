"""Preferences to reward data, and back: to the best and worst of K, or to the best alone.

    in   {"prompt": "Hi!", "chosen": " Hello.", "rejected": " Go away."}
    out  {"prompt": "Hi!", "completions": [" Hello.", " Go away."], "rewards": [1, 0]}

    al-sample sft -n 8 prompts.jsonl | al-score rm | al-pref2rw --to pref > pairs.jsonl
"""

from collections.abc import Callable
from typing import Any

import click

from alignlib.cli import options
from alignlib.records import fields
from alignlib.records.jsonl import Record, Skip

Notes = dict[str, int]  # what the summary counts
PREF = ("prompt", "chosen", "rejected")
REPLACED = frozenset(("chosen", "rejected", *fields.OF_COMPLETIONS))  # what one form of the data has and the other not


def to_rw(record: Record) -> tuple[Record, Notes]:
    """Chosen with reward 1, rejected with 0, in the place where the first of the two stood."""
    fields.require(record, *PREF)
    for name in ("rewards", "completions"):
        if name in record:
            raise ValueError(f"{name}: there already, and would be lost (--to pref and sft read completions, rewards)")
    return replace(record, {"completions": [record["chosen"], record["rejected"]], "rewards": [1, 0]}), {}


def to_chosen(record: Record) -> tuple[Record, Notes]:
    """The chosen answer alone, to be scored like a sample."""
    fields.require(record, "prompt", "chosen")
    return replace(record, {"completions": [record["chosen"]]}), {}


def to_pref(record: Record) -> tuple[Record, Notes]:
    """The completion of the highest reward as chosen, of the lowest as rejected; the first of equals."""
    best, worst = ends(record)
    rewards = record["rewards"]
    if rewards[best] == rewards[worst]:
        raise NoPreference(f"rewards: no preference: {'all equal' if len(rewards) > 1 else 'one completion'}")
    completions = record["completions"]
    tied = rewards.count(rewards[best]) > 1 or rewards.count(rewards[worst]) > 1
    pair = {"chosen": completions[best], "rejected": completions[worst]}
    return replace(record, pair), remarks(record, tied, best, worst)


def to_sft(record: Record) -> tuple[Record, Notes]:
    """The completion of the highest reward as chosen; the first of equals."""
    best, _ = ends(record)
    rewards = record["rewards"]
    tied = rewards.count(rewards[best]) > 1
    return replace(record, {"chosen": record["completions"][best]}), remarks(record, tied, best)


class NoPreference(ValueError):
    """The rewards do not say which completion is the better one."""


def ends(record: Record) -> tuple[int, int]:
    """Where the highest and the lowest reward stand, the first of equals."""
    fields.require_completions(record, "rewards")
    rewards = record["rewards"]
    return rewards.index(max(rewards)), rewards.index(min(rewards))


def remarks(record: Record, tied: bool, *kept: int) -> Notes:
    """What the summary counts, so that no choice is silent: ties, and kept completions that lose their "length"."""
    reasons = record.get("finish_reasons")
    return {"ties": int(tied), "cut_completions": sum(reasons[i] == "length" for i in kept) if reasons else 0}


def replace(record: Record, new: Record) -> Record:
    """`record` with the fields `new` where the first of those they replace stood; the others keep their order."""
    replaced: Record = {}
    for name in record:
        if name not in REPLACED:
            replaced[name] = record[name]
        elif new:
            replaced |= new
            new = {}
    return replaced


def preparer(to: str, ties: str) -> Callable[[Record], tuple[Record, Notes]]:
    """record -> (its other form, what the summary counts); raises ValueError where there is none."""
    convert = {"rw": to_rw, "chosen": to_chosen, "pref": to_pref, "sft": to_sft}[to]

    def skipping(record: Record) -> tuple[Record, Notes]:
        try:
            return convert(record)
        except NoPreference as error:
            raise Skip(str(error)) from error

    return skipping if ties == "skip" else convert


@options.command(("prompt",), ("completions", "rewards", "chosen", "rejected"),
                 may=("chosen", "rejected", "completions", "rewards"))
@click.option("--to", type=click.Choice(["rw", "chosen", "pref", "sft"]), default="rw",
              help="rw: chosen, rejected -> completions, rewards [1, 0]. chosen: chosen -> completions, to be scored. "
              "pref: completions, rewards -> the best as chosen, the worst as rejected. sft: the best as chosen.")
@click.option("--ties", cls=options.Aside, aside="skip", type=click.Choice(["fail", "skip"]), default="fail",
              help="What --to pref does with a record whose rewards are all equal.")
@options.filter_options
def main(to: str, ties: str, **filters: Any) -> None:
    """Turn preferences into reward data, and back.

    \b
    prompt, chosen, rejected      -> prompt, completions, rewards [1, 0]
    prompt, chosen                -> prompt, completions [1]    (--to chosen)
    prompt, completions, rewards  -> prompt, chosen, rejected   (--to pref)
    prompt, completions, rewards  -> prompt, chosen             (--to sft)

    Of equal rewards the first completion is taken, and the summary counts such ties. Fields that go with the
    completions (log-probabilities, finish reasons, ids) leave with them; all others stay, in order. Streams.
    """
    if to != "pref" and ties == "skip":
        raise click.UsageError("--ties needs --to pref")
    summary = options.Summary()
    with options.open_stream(**filters, prepare=preparer(to, ties), hold=True) as stream:
        for line in stream.one_by_one():
            record, notes = line.data
            stream.write(line, record)
            if notes:
                summary.count(**notes)
    summary.close(stream)


if __name__ == "__main__":
    main()
