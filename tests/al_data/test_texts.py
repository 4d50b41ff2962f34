"""Public data sets -> records: the fixtures of EXO's preprocessing, less its defects, and every local file format."""

import csv
import gzip
import json
from collections import Counter

import pytest

from al_data.preferences import hh, tldr_pref
from al_data.row import convert
from al_data.sources import files_of, from_file
from al_data.texts import imdb, imdb_labels, tldr
from alignlib.records.jsonl import DataError, Skip

# Where EXO's script is wrong (shared/fixtures/README.md): what ours makes of the same dialogues, or why it drops them.
DEFECTS = {
    "human_inside_assistant": {"prompt": "\n\nHuman: Quote?\n\nAssistant:", "chosen": " He wrote Human: error.",
                               "rejected": " She wrote Humans: error."},
    "extra_space_in_final_answers": {"prompt": "\n\nHuman: Gap?\n\nAssistant:", "chosen": " wide gap",
                                     "rejected": " narrow gap"},
    "extra_space_in_earlier_assistant_turn": {
        "prompt": "\n\nHuman: First?\n\nAssistant:  Early reply.\n\nHuman: Second?\n\nAssistant:",
        "chosen": " Good end.", "rejected": " Bad end."},
    "rejected_empty_no_space": "an empty answer",
    "does_not_start_with_blank": "not a dialogue",
    "different_human_turn": "the Human turns differ",
}


def test_hh_fixtures(fixtures):
    cases = [json.loads(line) for line in (fixtures / "exact-optimization/hh_preproc.jsonl").open()]
    assert len(cases) >= 16
    for case in cases:
        dropped = Counter()
        made = list(convert([("x:1", {"chosen": case["chosen"], "rejected": case["rejected"]})], hh, dropped))
        expected = DEFECTS.get(case["name"], case["output"])
        if isinstance(expected, dict):
            assert made == [expected], case["name"]
        else:
            assert made == [] and dropped.total() == 1, case["name"]
            assert expected in (None, *dropped), case["name"]


def test_tldr_fixtures(fixtures):
    cases = json.loads((fixtures / "exact-optimization/preproc_tldr_and_pref_to_rw.json").read_text())
    assert [tldr(row) for row in cases["tldr_filter"]["input"]] == cases["tldr_filter"]["output"]
    assert [tldr_pref(row) for row in cases["tldr_pref"]["input"]] == cases["tldr_pref"]["output"]


def turn(human, assistant):
    return f"\n\nHuman: {human}\n\nAssistant:{assistant}"


@pytest.mark.parametrize("chosen, rejected, reason", [
    (turn("a", " b "), turn("a", " b"), "no answer differs by more than white space"),
    (turn("a", " b"), turn("a", " b") + turn("c", " d"), "no answer differs by more than white space"),
    (turn("a", " \n"), turn("a", " b"), "an empty answer"),
    (turn("a", " b"), turn("z", " c"), "the Human turns differ"),
    (turn("a", " b"), "\n\nAssistant: c", "the speakers differ"),
    ("", turn("a", " b"), "not a dialogue"),
    ("hello", "there", "not a dialogue"),
])
def test_hh_drops_are_counted_by_reason(chosen, rejected, reason):
    dropped = Counter()
    assert list(convert([("f:1", {"chosen": chosen, "rejected": rejected})], hh, dropped)) == []
    assert dropped == {reason: 1}


def test_hh_answers_are_cut_at_the_first_difference():
    chosen = turn("a", " same ") + turn("b", " this") + turn("c", " later")
    rejected = turn("a", "  same") + turn("b", " that")
    assert hh({"chosen": chosen, "rejected": rejected}) == {
        "prompt": turn("a", " same ") + turn("b", ""), "chosen": " this", "rejected": " that"}


@pytest.mark.parametrize("function, row, message", [
    (hh, {"chosen": "x"}, "rejected: missing"),
    (hh, {"chosen": 1, "rejected": "x"}, "chosen: expected a string, got a number"),
    (hh, {"prompt": "x"}, "chosen: missing"),
    (tldr, {"subreddit": "a", "title": None, "post": "c", "summary": "d"}, "title: expected a string, got null"),
    (tldr_pref, {"info": [], "summaries": [], "choice": 0}, "info: expected an object, got an array"),
    (tldr_pref, {"info": {}, "summaries": [{"text": "a"}], "choice": 0}, "summaries: expected two objects"),
    (tldr_pref, {"info": {}, "summaries": [{}, {}], "choice": 2}, "choice: expected 0 or 1, got 2"),
    (tldr_pref, {"info": {"post": "p"}, "summaries": [{}, {}], "choice": 1}, "text: missing"),
    (imdb, {"text": None}, "text: expected a string, got null"),
    (imdb_labels, {"text": "a", "label": 7}, "label: expected 0, 1, neg or pos, got 7"),
    (imdb_labels, {"text": "a"}, "label: expected 0, 1, neg or pos, got None"),
])
def test_rows_of_another_form_are_named(function, row, message):
    with pytest.raises(DataError, match=f"^f.jsonl:3: {message}$"):
        list(convert([("f.jsonl:3", row)], function, Counter()))


def test_tldr_pref_leaves_news_out():
    row = {"info": {"post": None, "article": "News."}, "summaries": [{"text": "a"}, {"text": "b"}], "choice": 0}
    with pytest.raises(Skip, match="no post"):
        tldr_pref(row)


def test_imdb_keeps_the_text():
    text = "one two\tthree\n\nfour  five"
    made = imdb({"text": text, "label": 1}, words=3)
    assert made == {"prompt": "one two\tthree", "chosen": "\n\nfour  five"}
    with pytest.raises(Skip, match="not longer than the prompt"):
        imdb({"text": text}, words=5)
    assert imdb({"text": text}, words=4)["chosen"] == "  five"


@pytest.mark.parametrize("label, name", [(0, "negative"), (1, "positive"), ("neg", "negative"), ("1", "positive"),
                                         ("positive", "positive")])
def test_imdb_labels_are_named(label, name):
    assert imdb_labels({"text": "x", "label": label}) == {"text": "x", "label": name}


def test_unlabelled_reviews_are_skipped():
    with pytest.raises(Skip, match="no label"):
        imdb_labels({"text": "x", "label": -1})


@pytest.mark.parametrize("function", [hh, tldr, tldr_pref, imdb])
def test_records_of_our_own_form_pass_through(function):
    record = {"id": "7", "prompt": "p", "chosen": "c", "rejected": "r", "extra": [1]}
    assert function(record) is record


# ------------------------------------------------------------------------------------------------------------ files

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


def found(folder, split):
    files, told = files_of(folder, split)
    return [file.removeprefix(folder + "/") for file in files], told


def test_files_of_a_split(tmp_path):
    folder = folder_of(tmp_path, "data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet",
                       "data/validation-00000-of-00001.parquet", "README.md")
    assert found(folder, "train") == (["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"], True)
    assert found(folder, "test") == (["data/validation-00000-of-00001.parquet"], True)


def test_files_without_a_split_are_all_given(tmp_path):
    assert found(folder_of(tmp_path, "b1.jsonl", "b2.jsonl"), "test") == (["b1.jsonl", "b2.jsonl"], False)


def test_missing_split_and_mixed_kinds_are_named(tmp_path):
    folder = folder_of(tmp_path, "pairs.train.jsonl", "sft.train.jsonl.gz")
    with pytest.raises(ValueError, match="no test files here"):
        files_of(folder, "test")
    with pytest.raises(ValueError, match=r"several kinds of files here \(pairs, sft\)"):
        files_of(folder, "train")


def test_imdb_archive(tmp_path):
    folder = folder_of(tmp_path, "train/pos/0_9.txt", "train/neg/1_1.txt", "train/unsup/2_0.txt", "test/pos/0_7.txt",
                       "imdb.txt")
    assert found(folder, "train") == (["train/neg/1_1.txt", "train/pos/0_9.txt"], True)
    labels = [imdb_labels(row)["label"] for file in files_of(folder, "train")[0] for _, row in from_file(file)]
    assert labels == ["negative", "positive"]
