"""One temperature for a reward model: the number that its rewards are divided by so that their gaps are log-odds.

It stands in the model's folder, temperature.json, with a hash of the weights it was fitted for.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import orjson

from alignlib.cli.paths import fingerprint
from alignlib.records.disk import whole

NAME = "temperature.json"
WEIGHTS = (".safetensors", ".bin")


def save(folder: str, temperature: Mapping[str, Any]) -> None:
    """Write a mean, low, high and n, what al-eval has fitted, and which weights it is for."""
    contents = {"temperature": temperature["mean"], "low": temperature["low"], "high": temperature["high"],
                "pairs": temperature["n"], "weights": fingerprint(folder, WEIGHTS)}
    with whole(Path(folder) / NAME) as handle:
        handle.write(orjson.dumps(contents, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))


def load(folder: str) -> float:
    """The temperature of the model in the folder. Raises UsageError where it has none, or that of other weights."""
    file = Path(folder) / NAME
    if not file.is_file():
        raise click.UsageError(f"{folder}: no {NAME}; al-eval rm --fit-temperature {folder} writes it")
    try:
        contents = orjson.loads(file.read_bytes())
        value, weights = contents["temperature"], contents["weights"]
        good = type(value) in (int, float) and value > 0
    except (ValueError, KeyError, TypeError) as error:
        raise click.UsageError(f"{file}: not what al-eval rm --fit-temperature writes") from error
    if not good:
        raise click.UsageError(f"{file}: temperature: expected a number above 0")
    if weights != fingerprint(folder, WEIGHTS):
        raise click.UsageError(f"{file}: fitted for other weights than this folder's; fit it again")
    return value
