"""Rows of data sets, as published: from local files and folders, or from the Hugging Face Hub."""

from __future__ import annotations

import csv
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import orjson

from al_data.row import Bad, Row, fail
from alignlib import hub
from alignlib.records.jsonl import DataError, kind, open_input, read, what_else

SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".csv", ".parquet")
# What the files of a split are called, in the order of preference: some sets have no test part.
SPLITS = {"train": ("train",), "test": ("test", "validation", "valid", "dev")}
# Words in a file's name that do not tell what kind of rows it holds ("train-00000-of-00002.parquet").
NO_KIND = {*SPLITS["train"], *SPLITS["test"], "of", "part", "shard", "jsonl", "json", "gz", "csv", "parquet", "txt"}


class Unreachable(Exception):
    """The Hub cannot be reached, and the set is not in the local cache."""


class NoPart(Exception):
    """The Hub has no such set, or the set no such part."""


def from_file(name: str, bad: Bad = fail) -> Iterator[Row]:
    """The rows of one file, by its suffix; "-" is JSON Lines on standard input. A DataError has file:line.

    bad: is given it where the rows behind it can still be read.
    """
    if name.endswith(".parquet"):
        yield from _parquet(name)
    elif name.endswith(".csv"):
        yield from _csv(name, bad)
    elif name.endswith(".txt"):
        yield name, {"text": _decoded(name, Path(name).read_bytes()), "label": Path(name).parent.name}
    elif name.endswith(".wp_source"):  # a prompt a line
        with open(name, "rb") as lines:
            yield from ((where := f"{name}:{number}", {"prompt": _decoded(where, line)})
                        for number, line in enumerate(lines, 1))
    elif name.endswith(".json") and _is_array(name):
        yield from _array(name, bad)
    else:
        for line in read([name]):
            if line.error:
                bad(line.failure())
            else:
                yield line.where, line.record


def from_object(name: str, _bad: Bad = fail) -> Iterator[Row]:
    """The items of a file that is one object, as rows {key, value}; read whole. Raises DataError."""
    content, shown = _loaded(name), "<stdin>" if name == "-" else name
    if not isinstance(content, dict):
        raise DataError(f"{shown}: expected an object, got {kind(content)}")
    yield from ((f"{shown}: item {number}", {"key": key, "value": value})
                for number, (key, value) in enumerate(content.items(), 1))


def files_of(folder: str, split: str, kind_of: str = "") -> tuple[list[str], bool]:
    """The files of a split in a folder, sorted, and whether their names tell: if none names a split, all are given.

    kind_of: where some names have this part too ("prefs" of train_prefs, train_sft), only those count.

    A name tells by a part that is train, test, ... ("pairs.test.jsonl", "train/pos/7.txt"). Texts (.txt) count
    in folders named pos and neg, as in the IMDB archive. Raises ValueError if there are none of that split, or if the
    files are of several kinds ("pairs.test.jsonl", "sft.test.jsonl"): together they would give records twice.
    """
    root = Path(folder)
    paths = [path for path in sorted(files_under(root)) if path.name.endswith(SUFFIXES)
             or path.suffix == ".txt" and path.parent.name in ("pos", "neg")]
    parts = {path: set(re.split(r"[^a-z]+", str(path.relative_to(root)).lower())) for path in paths}
    paths = [path for path in paths if kind_of in parts[path]] or paths
    named = any(parts[path] & {*SPLITS["train"], *SPLITS["test"]} for path in paths)
    by_name = ([path for path in paths if name in parts[path]] for name in SPLITS[split])
    chosen = next(filter(None, by_name), []) if named else paths
    if not chosen:
        raise ValueError(f"{folder}: no {split} files here ({', '.join(SUFFIXES)})")
    kinds = {" ".join(sorted(set(re.findall("[a-z]+", path.name.lower())) - NO_KIND)) for path in chosen}
    if len(kinds) > 1:
        raise ValueError(f"{folder}: several kinds of files here ({', '.join(sorted(kinds))}): give one file")
    return [str(path) for path in chosen], named


def files_under(root: Path) -> Iterator[Path]:
    """All files in a folder and its folders, but for those that may not be read, or that go meanwhile."""
    def told(error: OSError) -> None:
        if not isinstance(error, PermissionError | FileNotFoundError):
            raise error

    for folder, _, names in os.walk(root, onerror=told):
        yield from (Path(folder, name) for name in names)


def from_hub(name: str, split: str, kind_of: str = "", /, **where: str) -> Iterator[Row]:
    """The rows of a split ("train" | "test") of a set on the Hub; `where` goes to datasets.load_dataset.

    kind_of: what the names of its splits end in ("prefs" of train_prefs). Raises NoPart where the set, or the split, is
    not there, Unreachable within seconds where there is no network and nothing cached.
    """
    go_offline_without_hub()
    import datasets
    from datasets.exceptions import DatasetNotFoundError

    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    try:
        parts = datasets.load_dataset(name, **where)
    except ConnectionError as error:
        raise Unreachable(name) from error
    except (DatasetNotFoundError, ValueError) as error:  # no such set; no such configuration of it
        raise NoPart(f"{name}: {error}") from error
    wanted = [f"{candidate}_{kind_of}" if kind_of else candidate for candidate in SPLITS[split]]
    part = next((candidate for candidate in wanted if candidate in parts), None)
    if part is None:
        raise NoPart(f"{name}: no {split} part, only {', '.join(parts)}")
    for number, row in enumerate(parts[part], 1):
        yield f"{name} {part}:{number}", row


def from_hub_file(name: str, file: str, read: Callable[[str, Bad], Iterator[Row]], bad: Bad) -> Iterator[Row]:
    """What `read` makes of one file of a set on the Hub.

    Raises Unreachable within seconds where there is no network and nothing cached.
    """
    go_offline_without_hub()
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        path = hf_hub_download(name, file, repo_type="dataset")
    except LocalEntryNotFoundError as error:
        raise Unreachable(name) from error
    yield from read(path, bad)


def go_offline_without_hub() -> None:
    """Tell the Hub's client, before it is imported, that there is no network: what is in the cache is still found."""
    if not hub.answers():
        os.environ["HF_HUB_OFFLINE"] = "1"


# --------------------------------------------------------------------------------- kinds of files


def _decoded(where: str, raw: bytes) -> str:
    """A text, its lines ended by a newline each. Raises DataError for what is none."""
    try:
        return raw.decode().replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: invalid UTF-8 at byte {error.start + 1}") from error


def _is_array(name: str) -> bool:
    with open_input(name) as handle:
        return handle.read(1024).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[")


def _array(name: str, bad: Bad) -> Iterator[Row]:
    """A .json file that is one array of objects; read whole."""
    items = _loaded(name)
    assert isinstance(items, list)  # _is_array has looked
    for number, row in enumerate(items, 1):
        if isinstance(row, dict):
            yield f"{name}: item {number}", row
        else:
            bad(DataError(f"{name}: item {number}: expected an object, got {kind(row)}"))


def _loaded(name: str) -> object:
    """What a file holds that is one JSON value."""
    with open_input(name) as handle:
        content = handle.read()
    shown = "<stdin>" if name == "-" else name
    try:
        return orjson.loads(content := content.removeprefix(b"\xef\xbb\xbf"))
    except orjson.JSONDecodeError as error:
        if not content.lstrip().startswith((b"[", b"{")) and (other := what_else(content[:80])):
            raise DataError(f"{shown}: {other}") from error
        raise DataError(f"{shown}:{error.lineno}: broken JSON: {error}") from error


def _csv(name: str, bad: Bad) -> Iterator[Row]:
    """A CSV file with a header. Texts may be long: the module's own limit of 128 KiB a field is lifted."""
    csv.field_size_limit(1 << 30)
    with open(name, encoding="utf-8-sig", newline="") as handle:
        reader = csv.DictReader(handle, strict=True)
        try:
            for row in reader:
                where = f"{name}:{reader.line_num}"
                if None in row or None in row.values():
                    bad(DataError(f"{where}: not as many fields as the header names"))
                else:
                    yield where, row
        except (csv.Error, UnicodeDecodeError) as error:
            raise DataError(f"{name}:{reader.line_num + 1}: {error}") from error


def _parquet(name: str) -> Iterator[Row]:
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(name) as file:
            rows = (row for batch in file.iter_batches(1024) for row in batch.to_pylist())
            yield from ((f"{name}: row {number}", row) for number, row in enumerate(rows, 1))
    except pyarrow.ArrowInvalid as error:
        raise DataError(f"{name}: {error}") from error
