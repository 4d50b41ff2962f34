"""What is wrong with a model's folder that a library stumbled over: the file, and the field in it.

    DIR/config.json: hidden_act: "gleu", of which transformers 5.23.0 makes nothing (KeyError: 'gleu')

A field is at fault where the folder loads once it is left out. So no list of fields is kept here, nor of what
libraries raise; and an error that is not the folder's (no memory left) stays what it is.
"""

import contextlib
import json
import os
import tempfile
from collections.abc import Callable
from math import isnan
from pathlib import Path
from typing import Any

import click
import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.utils import cached_file

from alignlib.records.jsonl import kind

Attempt = Callable[[str], object]  # loads from the folder that it is given, or raises what a library raises

CONFIG, GENERATION = "config.json", "generation_config.json"
OF_A_MODEL = (CONFIG, GENERATION)
OF_A_TOKENIZER = ("tokenizer_config.json", "tokenizer.json", "special_tokens_map.json", "added_tokens.json", CONFIG)
IDS = ("bos_token_id", "eos_token_id", "pad_token_id")
# Numbers that a language model is made of, as transformers calls them: the least and the most that there can be.
NUMBERS = {"hidden_size": (1, 1 << 24), "num_hidden_layers": (1, 10_000), "num_attention_heads": (1, 1 << 24),
           "num_key_value_heads": (1, 1 << 24), "head_dim": (1, 1 << 24), "intermediate_size": (0, 1 << 24),
           "vocab_size": (1, 1 << 24), "max_position_embeddings": (1, 1 << 40), "sliding_window": (0, 1 << 40),
           "query_pre_attn_scalar": (1, 1 << 24), **dict.fromkeys(IDS, (-1 << 24, 1 << 24))}
LIBRARY = f"transformers {transformers.__version__}"
ROPES = tuple(dict.fromkeys(("default", *ROPE_INIT_FUNCTIONS)))  # ways to turn positions
SHOWN, SAID = 60, 240  # characters of a value, and of what a library says of it


def refuse(folder: str, files: tuple[str, ...], attempt: Attempt, error: BaseException, library: str = LIBRARY) -> None:
    """Raises UsageError, in place of `error`, where it is the folder's fault: where `attempt` fails once more.

    files    of JSON, one of which may be at fault
    attempt  what raised the error, in a folder that is given; it should take no memory to speak of
    """
    here = local(folder)
    if here is None:
        return
    for name in files:
        read(here / name)
    if raised(attempt, here):
        with tempfile.TemporaryDirectory() as scratch:
            at = Trial(here, Path(scratch), attempt).fault(files) or f"{folder}: a folder"
        known = f"; there are {', '.join(ROPES)}" if ": rope_" in at else ""
        raise click.UsageError(f"{at}, of which {library} makes nothing ({words(error)}){known}") from error


def local(folder: str) -> Path | None:
    """Where the files of a folder, or of a name on the Hub, are; None for what is not on this machine."""
    if Path(folder).is_dir():
        return Path(folder)
    with contextlib.suppress(OSError, ValueError):
        file = cached_file(folder, CONFIG, local_files_only=True)
        return Path(file).parent if file else None
    return None


def text(file: Path) -> str | None:
    """What a file says, None where there is none. Raises UsageError for what is no text."""
    try:
        return file.read_bytes().decode() if file.is_file() else None
    except OSError as error:
        raise click.UsageError(f"{file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise click.UsageError(f"{file}: invalid UTF-8 at byte {error.start + 1}") from error


def read(file: Path) -> dict[str, Any]:
    """The object in a file of JSON, {} where there is none. Raises UsageError for anything else."""
    if (content := text(file)) is None:
        return {}
    try:
        value = json.loads(content)  # as transformers, NaN and all
    except (ValueError, RecursionError) as error:
        raise click.UsageError(f"{file}: broken JSON: {words(error)}") from error
    if not isinstance(value, dict):
        raise click.UsageError(f"{file}: expected an object, got {kind(value)}")
    return value


def must_be_config(file: Path) -> None:
    """Raises UsageError for a configuration that no model can have, before any library counts its layers.

    file: config.json; what is beside it for generation is looked at too
    """
    must_have_numbers(file, content := read(file))
    names = content.get("architectures") or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise click.UsageError(f"{file}: architectures: expected an array of strings, got {shown(names)}")
    if not isinstance(family := content.get("model_type", ""), str):
        raise click.UsageError(f"{file}: model_type: expected a string, got {shown(family)}")
    for name in ("dtype", "torch_dtype"):
        kind_of = content.get(name)
        known = isinstance(kind_of, str) and isinstance(getattr(torch, kind_of, None), torch.dtype)
        if kind_of is not None and not known and not isinstance(kind_of, dict):  # of a model in parts, one for each
            raise click.UsageError(f"{file}: {name}: expected a type of torch's, float32 or bfloat16 say, got "
                                   f"{shown(kind_of)}")
    beside = file.with_name(GENERATION)
    ends = read(beside).get("eos_token_id")
    most = NUMBERS["eos_token_id"][1]
    if ends is not None and not all(type(end) is int and abs(end) <= most
                                    for end in (ends if isinstance(ends, list) else [ends])):
        raise click.UsageError(f"{beside}: eos_token_id: expected a token's id, or some of them, got {shown(ends)}")


def must_have_numbers(file: Path, content: dict[str, Any], within: str = "") -> None:
    """Raises UsageError for NUMBERS that can be no model's, under the names that they have in this family."""
    family = content.get("model_type")
    known = isinstance(family, str) and family in transformers.CONFIG_MAPPING
    names: dict[str, str] = transformers.CONFIG_MAPPING[family].attribute_map if known else {}
    for name, (least, most) in NUMBERS.items():
        for spelling in {name, names.get(name, name)}:
            number = content.get(spelling)
            if isinstance(number, int) and not least <= number <= most:
                raise click.UsageError(f"{file}: {within}{spelling}: expected {least:,} to {most:,}, "
                                       f"got {shown(number)}")
    for name, number in content.items():
        if place := place_of_nan(number):
            raise click.UsageError(f"{file}: {within}{name}{place.strip()}: expected a number, got NaN")
        if name.endswith(("_eps", "_epsilon")) and isinstance(number, int | float) and not 0 <= number <= 1:
            raise click.UsageError(f"{file}: {within}{name}: expected 0 to 1, got {shown(number)}")
    if isinstance(part := content.get("text_config"), dict):
        must_have_numbers(file, part, f"{within}text_config.")


def place_of_nan(value: object) -> str:
    """Where in a value a NaN is, ".factors[2]", " " for the value itself; "" for nowhere."""
    if isinstance(value, float) and isnan(value):
        return " "
    parts = ([(f".{name}", part) for name, part in value.items()] if isinstance(value, dict) else
             [(f"[{number}]", part) for number, part in enumerate(value)] if isinstance(value, list) else [])
    return next((f"{place}{found.strip()}" for place, part in parts if (found := place_of_nan(part))), "")


class Trial:
    """A folder of links to the files of `here`, one of which at a time is another. `scratch` is empty."""

    def __init__(self, here: Path, scratch: Path, attempt: Attempt):
        self.here, self.scratch, self.attempt = here, scratch, attempt
        for file in here.iterdir():
            os.symlink(file.absolute(), scratch / file.name)

    def fault(self, files: tuple[str, ...]) -> str | None:
        """What is at fault, as "FILE: FIELD: VALUE": a field that is better left out, or empty; else, as "FILE", the
        first file without which the attempt fails in another way. None for neither.
        """
        there = [name for name in files if (self.here / name).is_file()]
        for name in there:
            content = read(self.here / name)
            for field, value in content.items():
                if self.says(name, without(content, field)) and self.says(name, {**content, field: []}):
                    continue
                inner = value if isinstance(value, dict) and len(value) > 1 else {}
                for part in inner:
                    if not self.says(name, {**content, field: without(inner, part)}):
                        return f"{self.here / name}: {field}.{part}: {shown(inner[part])}"
                return f"{self.here / name}: {field}: {shown(value)}"
        error = raised(self.attempt, self.scratch)
        return next((str(self.here / name) for name in there if self.says(name) != in_full(error)), None)

    def says(self, name: str, content: dict[str, Any] | None = None) -> str:
        """What the attempt raises with this in the file, "" for nothing; None: without the file."""
        place = self.scratch / name
        place.unlink()
        if content is not None:
            place.write_text(json.dumps(content), encoding="utf-8")
        error = raised(self.attempt, self.scratch)
        place.unlink(missing_ok=True)
        os.symlink((self.here / name).absolute(), place)
        return in_full(error)


def in_full(error: BaseException | None) -> str:
    return f"{type(error).__name__}: {error}" if error else ""


def without(content: dict[str, Any], field: str) -> dict[str, Any]:
    return {name: value for name, value in content.items() if name != field}


def raised(attempt: Attempt, folder: Path) -> BaseException | None:
    """What a library raises over a folder, whatever that is; None where it loads."""
    try:
        attempt(str(folder))
    except BaseException as error:
        if not is_library_error(error):
            raise
        return error
    return None


def is_library_error(error: BaseException) -> bool:
    """Whether a library may have raised it over what a file says: tokenizers' panics are no Exceptions."""
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"


def shown(value: object) -> str:
    """A value as it stands in its file, in a few characters."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def words(error: BaseException) -> str:
    """What a library says, in a line; its kind where that may be all that there is to understand."""
    strict = isinstance(error, StrictDataclassError)  # of a configuration: its cause has the words
    text = " ".join(str(strict and error.__cause__ or error).split()) or type(error).__name__
    named = text if strict or isinstance(error, OSError | ValueError) else f"{type(error).__name__}: {text}"
    return named if len(named) <= SAID else f"{named[:SAID]}..."
