"""--parameters: what else the requests to a server hold, and what they do not."""

from collections.abc import Collection

import click
import orjson

from alignlib.records.jsonl import Record


def read_parameters(text: str, own: Collection[str]) -> Record:
    """The option's object; `own` are the command's to say. Raises UsageError."""
    try:
        parameters = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise click.UsageError(f"--parameters: broken JSON: {error}") from error
    if not isinstance(parameters, dict):
        raise click.UsageError("--parameters: expected an object")
    if taken := parameters.keys() & set(own):
        raise click.UsageError(f"--parameters: {min(taken)} is this command's to say")
    return parameters


def with_parameters(request: Record, parameters: Record) -> Record:
    """The request with the parameters in it, or in place of its own; null takes one out."""
    return {name: value for name, value in {**request, **parameters}.items() if value is not None}
