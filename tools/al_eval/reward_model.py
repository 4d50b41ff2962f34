"""The part of al-eval that tells how good a reward model is: pair accuracy, calibration, a temperature.

    in    {"prompt": "Hi", "completions": [" Hello!", " What?"], "rewards": [1.5, -0.5], "domain": "helpful"}
    out   {"what": "rm", "domain": null, "records": 1, "accuracy": {"mean": 1.0, ...}, "ECE": {...}, ...}

    al-pref2rw pairs.jsonl | al-score rm | al-eval rm
"""

from array import array
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from al_eval import results
from al_eval.results import Bootstrap, Prompts, bootstrap_options, label_option, plot_option, record_files
from alignlib.cli import options
from alignlib.records import conversations, fields, jsonl
from alignlib.records.jsonl import Record
from alignlib.records.prompts import prompt_key

if TYPE_CHECKING:  # it takes a while to load
    import numpy as np

    from al_eval.means import Mean

BINS = (5, 10, 20)  # MORE's
STRATEGIES = ("uniform", "quantile")
OWN = ("what", "records", "accuracy", "margin", "chosen", "rejected", "log_loss", "ECE", "ACE", "MCE", "temperature",
       "strategy", "bins", "calibration", "reliability", "method", "step")


class Pairs:
    """What is kept of some records' pairs: both rewards, and the place of the record in `prompts`."""

    def __init__(self, prompts: Prompts) -> None:
        self.records, self.chosen, self.rejected = 0, array("d"), array("d")
        self.all_prompts, self.places = prompts, array("I")

    def add(self, pairs: list[tuple[float, float]], place: int) -> None:
        self.records += 1
        for chosen, rejected in pairs:
            self.chosen.append(chosen)
            self.rejected.append(rejected)
            self.places.append(place)

    @property
    def prompts(self) -> "np.ndarray":
        """The number of each pair's prompt."""
        return self.all_prompts.numbers()[self.places]

    @property
    def gaps(self) -> "np.ndarray":
        import numpy as np

        return np.subtract(self.chosen, self.rejected)


@results.command("prompt", "completions", "rewards", may=("domain",))
@record_files
@label_option
@click.option("--by", metavar="FIELD", help="Also for the records of each value of this field, e.g. subset.  "
              "[default: domain, where records have it]", show_default=False)
@click.option("--field", help="Where the model's rewards are, if `rewards` are the truth: all pairs of a record's "
              "completions that those order.")
@click.option("--strategy", type=click.Choice(STRATEGIES), default="uniform", help="Bins equally wide or equally full.")
@click.option("--bins", default=10, type=click.IntRange(1, 100), help="Of the reliability curve, its plot, and of the "
              "ECE, ACE and MCE in tables.")
@click.option("--fit-temperature", "model", type=click.Path(exists=True, file_okay=False, writable=True),
              metavar="DIR", help="Fit one temperature on these pairs and keep it in the reward model's folder DIR, "
              "for al-score --calibrated.")
@plot_option
@bootstrap_options
def rm(files: tuple[str, ...], by: str | None, field: str | None, strategy: str, bins: int, model: str | None,
       plot: str | None, resamples: int, seed: int, labels: Record, output: str | None, as_json: bool | None) -> None:
    """A reward model on preference pairs: accuracy and calibration, overall and by domain, a line each.

    Reads records with two completions, the preferred one first, and the model's rewards for them: al-pref2rw
    pairs.jsonl | al-score rm | al-eval rm; or, with --field, completions, their true rewards and the model's:
    al-score rm --as-field learned. Equal rewards of the model count as half right. Calibration errors are of
    sigmoid(reward of the preferred - of the other), each pair asked both ways; intervals are over prompts.
    `calibration` has them in 5, 10 and 20 bins, equally wide and equally full. Streams, keeps only numbers.
    """
    summary, bootstrap = options.Summary(), Bootstrap(resamples=resamples, seed=seed)
    summary.count(records=0)
    if by in OWN:
        raise click.UsageError(f"--by {by}: the result has a {by} of its own")
    prompts = Prompts()
    whole = Pairs(prompts)
    results.check_labels(labels, [*([by] if by else []), *figures(whole, strategy, bins, bootstrap),
                                  *(["temperature"] if model else [])])
    if model:
        must_be_reward_model(model)
    groups: dict[str, Pairs] = {}
    for value, pairs, key in rewarded_pairs(files, by, field, fresh=bool(model)):
        place = prompts.add(key)
        whole.add(pairs, place)
        if value is not None:
            groups.setdefault(value, Pairs(prompts)).add(pairs, place)
        summary.count(records=1, **({"without_a_preference": 1} if not pairs else {}))
    parts: dict[str | None, Pairs] = {None: whole, **dict(sorted(groups.items()))}
    rows: list[Record] = [{**({by or "domain": name} if groups else {}), **figures(part, strategy, bins, bootstrap)}
                          for name, part in parts.items()]
    if model:
        rows[0] |= {"temperature": fit_temperature(whole, model)}
    if plot:
        draw(dict(zip(parts, rows, strict=True)), bins, plot)
    results.write_all("rm", rows, labels, output, as_json)
    summary.close()


def rewarded_pairs(files: tuple[str, ...], by: str | None, field: str | None,
                   fresh: bool) -> Iterator[tuple[str | None, list[tuple[float, float]], bytes]]:
    """(group or None, the model's rewards of its pairs, the prompt's key) of each record.

    fresh: rewards that --calibrated has divided already are refused.
    """
    temperature = f"{field or 'rewards'}_temperature"

    def prepare(record: Record) -> tuple[str | None, list[tuple[float, float]]]:
        pairs = ordered_rewards(record, field) if field else [two_rewards(record)]
        if fresh and record.get(temperature, 1) != 1:
            raise ValueError(f"{temperature}: these rewards are calibrated already; score without --calibrated")
        if by is not None and by not in record:
            raise ValueError(f"{by}: missing")
        value = record.get(by or "domain")
        if not isinstance(value, str) and (by or "domain") in record:
            raise ValueError(f"{by or 'domain'}: expected a string, got {jsonl.kind(value)}")
        return value, pairs

    for line in conversations.read_all(files, prepare):
        value, pairs = line.data
        yield value, pairs, prompt_key(line.record)


def two_rewards(record: Record) -> tuple[float, float]:
    """The model's rewards of the preferred completion and the other. Raises ValueError."""
    fields.require_completions(record, "rewards")
    if len(record["rewards"]) != 2:
        raise ValueError(f"rewards: expected 2, the preferred completion's first, got {len(record['rewards'])}")
    fields.require_float32(record["rewards"], "rewards")
    chosen, rejected = record["rewards"]
    return chosen, rejected


def ordered_rewards(record: Record, field: str) -> list[tuple[float, float]]:
    """The model's rewards, in `field`, of each two completions that `rewards` order, the better one's first.

    Raises ValueError where `field` does not have a number a completion.
    """
    fields.require_completions(record, "rewards")
    if field not in record:
        raise ValueError(f"{field}: missing")
    fields.FIELDS["rewards"].check(record[field], field)
    if len(record[field]) != len(record["rewards"]):
        raise ValueError(f"{field}: {len(record[field])} entries for {len(record['rewards'])} completions")
    fields.require_float32(record[field], field)
    both = list(zip(record["rewards"], record[field], strict=True))
    return [(mine, other) for better, mine in both for worse, other in both if better > worse]


def figures(pairs: Pairs, strategy: str, bins: int, bootstrap: Bootstrap) -> Record:
    """The figures of some pairs, with intervals over their prompts."""
    from al_eval import calibration, temperature
    from al_eval.means import mean_interval
    from al_eval.metrics import wins

    gaps, prompts = pairs.gaps, pairs.prompts
    binnings = [calibration.Binning(kind, number) for kind in STRATEGIES for number in BINS]
    chosen, *errors = calibration.errors(gaps, prompts, [calibration.Binning(strategy, bins), *binnings], **bootstrap)
    return {
        "records": pairs.records,
        "accuracy": mean_interval(wins(gaps), prompts, **bootstrap),
        "margin": mean_interval(gaps, prompts, **bootstrap),
        "chosen": mean_interval(pairs.chosen, prompts, **bootstrap),
        "rejected": mean_interval(pairs.rejected, prompts, **bootstrap),
        "log_loss": temperature.log_loss(gaps, prompts, **bootstrap),
        **{name: chosen[name] for name in calibration.ERRORS},
        "strategy": strategy,
        "bins": bins,
        "calibration": errors,
        "reliability": calibration.reliability(*calibration.both_directions(gaps), bins, strategy),
    }


def must_be_reward_model(folder: str) -> None:
    """Raises UsageError for a folder that al-score would not read rewards from."""
    from alignlib.models import load

    if not load.is_classifier(folder) and load.token_reward(folder) is None:
        raise click.UsageError(f"--fit-temperature {folder}: not a reward model")


def fit_temperature(pairs: Pairs, folder: str) -> "Mean":
    """The temperature of these pairs, written to the model's folder. Raises DataError where there is none."""
    from al_eval import temperature
    from alignlib.rewards.temperature import save

    try:
        fitted = temperature.fit(pairs.gaps, pairs.prompts)
    except ValueError as error:
        raise jsonl.DataError(f"no temperature fits these {len(pairs.gaps)} pairs: {error}") from error
    save(folder, fitted)
    return fitted


def draw(rows: dict[str | None, Record], bins: int, path: str) -> None:
    """A reliability diagram of each row; where there is one group it is the whole."""
    from al_eval import plots
    from alignlib.cli import tables

    shown = {name: row for name, row in rows.items() if name is None or len(rows) > 2}
    many = len(shown) > 1
    plots.calibration({(f"{name or 'overall'}, " if many else "") + f"n = {row['accuracy']['n']:,}, {bins} bins\n"
                       f"ECE {tables.cell(row['ECE'])}": row["reliability"] for name, row in shown.items()}, path)
