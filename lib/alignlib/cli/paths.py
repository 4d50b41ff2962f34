"""Files and folders that a command is given: refused before any work where they cannot do, known again later."""

import hashlib
import os
import re
import stat
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO, TypeVar

import click

from alignlib.model_names import WEIGHTS, parts
from alignlib.records import links

T = TypeVar("T")

INPUTS = ("files", "sources", "source")  # options whose every text is a file's name, or a set's
# Files that make a folder a model's or a run's, and those that such a folder has besides.
OF_A_FOLDER = ("config.json", "adapter_config.json", "run.json")
IN_A_FOLDER = (*OF_A_FOLDER, "log.jsonl", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
               "special_tokens_map.json", "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt",
               "tokenizer.model", "chat_template.jinja", "model.safetensors.index.json", "pytorch_model.bin.index.json",
               "pool.jsonl", "temperature.json", "reward_model.json", "README.md")


class OutputFile(click.Path):
    """A file that the command writes; all that other options name is read, and kept apart from it."""

    def __init__(self) -> None:
        super().__init__(dir_okay=False)


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


def keep_apart(files: Iterable[str], output: str | None, *others: str | None, folder: str | None = None) -> None:
    """Refuse to write where there is no folder, over the input (by whatever name), two outputs into one file, or into
    a model's folder or a run's, but for `folder`, the command's own.
    """
    identities = (_identity(sys.stdin if name == "-" else name) for name in files)
    taken: list[str | tuple[int, int]] = [identity for identity in identities if identity]
    whole = output if output and links.regular(output) else None
    beside = [f"{links.place(whole)}{end}" for end in (".state", ".partial")] if whole else []
    for path in (output, *others, *beside):
        if not path or Path(path).is_char_device():  # /dev/null takes all
            continue
        place, identity = links.place(path), _identity(path)
        if not os.path.isdir(os.path.dirname(place)):
            raise click.UsageError(f"{path}: no such folder")
        if place in taken or identity in taken:
            raise click.UsageError(f"{path}: would be overwritten while it is in use: name another file")
        if path not in beside:
            must_be_free(path, folder)
        taken += [place, identity] if identity else [place]
    if output is None and _identity(sys.stdout) in taken:
        raise click.UsageError("standard output is the input: it would feed on itself")


def keep_files_apart(context: click.Context) -> None:
    """`keep_apart` for all files that a command's options name: its OutputFiles from whatever the others stand for."""
    given = {parameter.name or "": parameter for parameter in context.command.params}
    written = {name: context.params.get(name) for name, parameter in given.items()
               if isinstance(parameter.type, OutputFile)}
    read = [text for name, parameter in given.items() if name not in written
            for text in _names(context.params.get(name))
            if name in INPUTS or isinstance(parameter.type, click.Path) or "." in text]
    if context.params.get("files") == ():
        read.append("-")
    folder = None if "output" in written else context.params.get("output")  # a trainer's
    output = written.pop("output", None)
    keep_apart(read, None if output == "-" else output, *(path for path in written.values() if path != "-"),
               folder=folder)


def _names(value: object) -> Iterator[str]:
    """What in an option's value may name a file: parts of "py:reward.py:score" and of "policy.pt@base" too."""
    if isinstance(value, str):
        yield value
        yield from re.split(r"[:\s]", value.partition("py:")[2] or value.partition("cmd:")[2])
        yield value.partition("@")[0]
    for part in value if isinstance(value, list | tuple) else ():
        yield from _names(part)


def must_be_free(path: str, folder: str | None = None) -> None:
    """Refuse what is a part of a model, and what a run has still to go on with: whatever is in a training's folder.

    folder: of the command's own run. Raises UsageError.
    """
    place = Path(links.place(path))
    here = place.parent
    named = place.name in IN_A_FOLDER or place.suffix in WEIGHTS
    if named and place.exists() and any((here / name).is_file() for name in OF_A_FOLDER):
        raise click.UsageError(f"{path}: part of the model in {here}: name another file")
    if place.suffix == ".state" and place.exists() and place.with_suffix("").exists():
        raise click.UsageError(f"{path}: the state of an unfinished run: name another file")
    own = folder and links.place(folder)
    for above in place.parents:
        begun = (above / "started.json").is_file() and (above / "log.jsonl").is_file()
        if begun and (str(above) != own or place.name in (*IN_A_FOLDER, "started.json")):
            raise click.UsageError(f"{path}: within the folder of a training that is not complete, {above}: name a "
                                   "file elsewhere")


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
