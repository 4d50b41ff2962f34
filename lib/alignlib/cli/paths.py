"""Files and folders that a command is given: refused before any work where they cannot do, known again later."""

import hashlib
import os
import stat
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TextIO, TypeVar

import click

from alignlib.model_names import WEIGHTS, parts
from alignlib.records import links

T = TypeVar("T")


def must_exist(files: Iterable[str]) -> None:
    """Refuse input files that are none."""
    for name in files:
        if name != "-" and (not Path(name).exists() or Path(name).is_dir()):
            raise click.UsageError(f"{name}: {'a folder, not a file' if Path(name).is_dir() else 'no such file'}")


def must_be_regular(files: Sequence[str]) -> None:
    """Refuse, for --shard, input that cannot be read twice."""
    for name in files or ("-",):
        if not _identity(sys.stdin if name == "-" else name):
            shown = "standard input" if name == "-" else name
            raise click.UsageError(f"{shown}: --shard counts the records first: it needs a file, not a pipe")


def keep_apart(files: tuple[str, ...], output: str | None, *others: str | None) -> None:
    """Refuse to write where there is no folder, over the input (by whatever name), or two outputs into one file."""
    identities = (_identity(sys.stdin if name == "-" else name) for name in files or ("-",))
    taken: list[str | tuple[int, int]] = [identity for identity in identities if identity]
    states = [f"{links.place(output)}.state"] if output and links.regular(output) else []
    for path in (output, *others, *states):
        if not path or Path(path).is_char_device():  # /dev/null takes all
            continue
        place, identity = links.place(path), _identity(path)
        if not os.path.isdir(os.path.dirname(place)):
            raise click.UsageError(f"{path}: no such folder")
        if place in taken or identity in taken:
            raise click.UsageError(f"{path}: would be overwritten while it is in use: name another file")
        taken += [place, identity] if identity else [place]
    if output is None and _identity(sys.stdout) in taken:
        raise click.UsageError("standard output is the input: it would feed on itself")


def _identity(file: str | TextIO | None) -> tuple[int, int] | None:
    """Which regular file this path or standard stream is, whatever its name; None for anything else."""
    if file is None:  # closed
        return None
    try:
        status = os.stat(file if isinstance(file, str) else file.fileno())
    except (OSError, ValueError):
        return None
    return (status.st_dev, status.st_ino) if stat.S_ISREG(status.st_mode) else None


def in_utf8(value: T) -> T:
    r"""The same with every byte that is not UTF-8, in whatever name stands in it, as `\udcff`: JSON has none."""
    changed: Any = value
    if isinstance(value, str):
        changed = value.encode(errors="backslashreplace").decode()
    elif isinstance(value, dict):
        changed = {in_utf8(name): in_utf8(part) for name, part in value.items()}
    elif isinstance(value, list | tuple):
        changed = [*map(in_utf8, value)]
    result: T = changed
    return result


MODEL_FILES = (".json", ".safetensors", ".bin", ".model", ".txt", ".jinja")


def fingerprint(path: str, suffixes: tuple[str, ...] = MODEL_FILES) -> str:
    """A hash that changes with a model: of its files up to 4 MB whole, of larger ones 64 KB at 64 places.

    suffixes: of which files of a folder. Of a file that is no model's, of all its bytes; a name on the Hub stands for
    itself.
    """
    found = parts(path)
    if found.weights is not None:  # and the configuration and the tokenizer they go with
        beside = tuple(suffix for suffix in suffixes if suffix not in WEIGHTS)
        return f"{_hash(Path(found.weights), suffixes)} {_hash(Path(found.folder), beside)}"
    if found.gguf is not None or Path(path).is_dir():
        return _hash(Path(path), suffixes)
    if Path(path).is_file():
        return hashlib.blake2b(Path(path).read_bytes(), digest_size=16).hexdigest()
    return path


def _hash(place: Path, suffixes: tuple[str, ...]) -> str:
    """Of a file, or of a folder's files of these suffixes; the name itself of what is not there."""
    digest = hashlib.blake2b(digest_size=16)
    for file in sorted(place.iterdir()) if place.is_dir() else [place]:
        if file.is_file() and (file == place or file.suffix in suffixes):
            size = file.stat().st_size
            digest.update(os.fsencode(f"{file.name} {size}\n"))
            with open(file, "rb") as handle:
                for start in range(64):
                    handle.seek(max(start << 16, start * size >> 6))
                    digest.update(handle.read(1 << 16))
    return digest.hexdigest() if place.exists() else str(place)
