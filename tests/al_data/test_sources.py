"""Rows from files: every format, broken ones, the files of a split in a folder."""

import csv
import gzip
import json
import lzma
import os
import shutil

import pytest

from al_data.sources import NoPart, files_of, from_file, from_hub, from_object
from al_data.texts import imdb_labels
from alignlib.records.jsonl import DataError

ROWS = [{"text": "a \"quoted\",\ntext", "label": 1}, {"text": "é" * 200_000, "label": 0}]


def written(folder, suffix):
    path = folder / f"rows{suffix}"
    lines = "".join(json.dumps(row) + "\n" for row in ROWS)
    if suffix == ".jsonl.gz":
        path.write_bytes(gzip.compress(lines.encode()))
    elif suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as handle:
            writer = csv.DictWriter(handle, ["text", "label"])
            writer.writeheader()
            writer.writerows(ROWS)
    elif suffix == ".parquet":
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
    elif suffix == ".array.json":
        path.write_text(json.dumps(ROWS, indent=1))
    else:
        path.write_text(lines)
    return path


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".json", ".array.json", ".csv", ".parquet"])
def test_every_format_gives_the_same_rows(tmp_path, suffix):
    rows = [row for _, row in from_file(str(written(tmp_path, suffix)))]
    assert [imdb_labels(row) for row in rows] == [{"text": row["text"], "label": name} for row, name in
                                                  zip(ROWS, ("positive", "negative"), strict=True)]


@pytest.mark.parametrize("name, content, message", [
    ("a.jsonl", b'{"text": "x"}\n{"text"\n', r"a\.jsonl:2: broken JSON"),
    ("a.json", b'[{"text": "x"},\n\n 3 4]', r"a\.json:3: broken JSON"),
    ("a.json", b'[{"text": "x"}, 3]', r"a\.json: item 2: expected an object, got a number"),
    ("a.csv", b"text,label\nx,1\ny\n", r"a\.csv:3: not as many fields"),
    ("a.csv", b"text,label\nx,1\n\xff,0\n", r"a\.csv:\d+: .*utf-8"),
    ("a.parquet", b"no parquet at all", r"a\.parquet: "),
    ("a.json", lzma.compress(b"[]"), r"a\.json:1: packed by xz: unpack it first"),
    ("a.txt", b"good\xff", r"a\.txt: invalid UTF-8 at byte 5"),
    ("a.wp_source", b"good\n\xff\n", r"a\.wp_source:2: invalid UTF-8 at byte 1"),
])
def test_broken_files_are_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        list(from_file(str(tmp_path / name)))


def folder_of(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text('{"text": "x", "label": 1}\n')
    return str(root)


def split_files(folder, split):
    files, named = files_of(folder, split)
    return [file.removeprefix(folder + "/") for file in files], named


def test_files_of_a_split(tmp_path):
    folder = folder_of(tmp_path, "data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet",
                       "data/validation-00000-of-00001.parquet", "README.md")
    assert split_files(folder, "train") == (
        ["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"], True)
    assert split_files(folder, "test") == (["data/validation-00000-of-00001.parquet"], True)


def test_files_without_a_split_are_all_given(tmp_path):
    assert split_files(folder_of(tmp_path, "b1.jsonl", "b2.jsonl"), "test") == (["b1.jsonl", "b2.jsonl"], False)


def test_missing_split_and_mixed_kinds_are_named(tmp_path):
    folder = folder_of(tmp_path, "pairs.train.jsonl", "sft.train.jsonl.gz")
    with pytest.raises(ValueError, match="no test files here"):
        files_of(folder, "test")
    with pytest.raises(ValueError, match=r"several kinds of files here \(pairs, sft\)"):
        files_of(folder, "train")


def test_a_folder_may_go_while_it_is_searched(tmp_path, monkeypatch):
    """As those of processes do where the whole disk is given."""
    folder = folder_of(tmp_path, "data/train.jsonl", "gone/train.jsonl")
    scan = os.scandir

    def scandir(path):
        if str(path).endswith("gone"):
            shutil.rmtree(path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert split_files(folder, "train") == (["data/train.jsonl"], True)


def test_imdb_archive(tmp_path):
    folder = folder_of(tmp_path, "train/pos/0_9.txt", "train/neg/1_1.txt", "train/unsup/2_0.txt", "test/pos/0_7.txt",
                       "imdb.txt")
    assert split_files(folder, "train") == (["train/neg/1_1.txt", "train/pos/0_9.txt"], True)
    labels = [imdb_labels(row)["label"] for file in files_of(folder, "train")[0] for _, row in from_file(file)]
    assert labels == ["negative", "positive"]


def test_the_items_of_one_object_are_rows(tmp_path):
    path = tmp_path / "answers.json"
    path.write_text('{"a": ["b"], "c": 1}')
    assert list(from_object(str(path))) == [(f"{path}: item 1", {"key": "a", "value": ["b"]}),
                                            (f"{path}: item 2", {"key": "c", "value": 1})]


def test_a_set_without_the_part_is_named(tmp_path):
    """A folder is a set to the Hub's client, too."""
    folder, where = folder_of(tmp_path / "set", "train.jsonl"), {"cache_dir": str(tmp_path / "cache")}
    assert list(from_hub(folder, "train", **where)) == [(f"{folder} train:1", {"text": "x", "label": 1})]
    for arguments, options, message in ((("test",), {}, "no test part, only train"),
                                        (("train", "sft"), {}, "no train part, only train"),
                                        (("train",), {"name": "main"}, "BuilderConfig 'main' not found")):
        with pytest.raises(NoPart, match=message):
            list(from_hub(folder, *arguments, **options, **where))


@pytest.mark.parametrize("content, words", [(lzma.compress(b"{}"), "packed by xz"),
                                            (b'{"a": 1', "broken JSON"), (b"3", "expected an object, got a number")])
def test_a_file_that_is_no_object_is_named(tmp_path, content, words):
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(DataError, match=words):
        list(from_object(str(tmp_path / "a")))
