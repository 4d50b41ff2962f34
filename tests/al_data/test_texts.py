"""Sets of texts -> records: posts, reviews, stories, toxic beginnings, in the forms they are published in."""

import json
from collections import Counter

import pytest

from al_data.row import convert
from al_data.texts import imdb, imdb_labels, rtp, scitldr, tldr
from alignlib.records.jsonl import DataError, Skip


def test_tldr_fixtures(fixtures):
    cases = json.loads((fixtures / "exact-optimization/preproc_tldr_and_pref_to_rw.json").read_text())
    assert [tldr(row) for row in cases["tldr_filter"]["input"]] == cases["tldr_filter"]["output"]


def test_scitldr_joins_an_abstracts_sentences_and_takes_the_first_summary():
    row = {"source": ["We ask why .", " It is so ."], "target": [" Why ?", "So ."], "paper_id": "x", "title": "T"}
    assert scitldr(row) == {"id": "x", "prompt": "We ask why . It is so .\n\nTL;DR:", "chosen": " Why ?"}
    for odd in ({"source": []}, {"target": []}):
        with pytest.raises(Skip, match="no text"):
            scitldr({**row, **odd})
    with pytest.raises(ValueError, match=r"target\[1\]: expected a string"):
        scitldr({**row, "target": ["a", None]})


def test_imdb_keeps_the_text():
    text = "one two\tthree\n\nfour  five"
    record = imdb({"text": text, "label": 1}, words=3)
    assert record == {"prompt": "one two\tthree", "chosen": "\n\nfour  five"}
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


def test_rtp():
    row = {"filename": "f", "begin": 0, "prompt": {"text": "The dog", "toxicity": 0.1},
           "continuation": {"text": " barked.", "toxicity": 0.25}}
    assert rtp(row) == {"prompt": "The dog", "completions": [" barked."], "rewards": [0.75]}
    for toxicity in (0, 1, 1.0):
        assert rtp({**row, "continuation": {"text": "", "toxicity": toxicity}})["rewards"] == [1 - toxicity]
    with pytest.raises(Skip, match="no toxicity"):
        rtp({**row, "continuation": {"text": " barked.", "toxicity": None}})


@pytest.mark.parametrize("function, row, message", [
    (tldr, {"subreddit": "a", "title": None, "post": "c", "summary": "d"}, "title: expected a string, got null"),
    (imdb, {"text": None}, "text: expected a string, got null"),
    (imdb_labels, {"text": "a", "label": 7}, "label: expected 0, 1, neg or pos, got 7"),
    (imdb_labels, {"text": "a"}, "label: expected 0, 1, neg or pos, got None"),
    (rtp, {"prompt": {"text": "a"}}, "prompt, continuation: expected objects"),
    (rtp, {"prompt": {"text": "a"}, "continuation": {"text": "b", "toxicity": 2**64 - 1}},
     "toxicity: expected a number of 64 bits, got 18446744073709551615"),
    *((rtp, {"prompt": {"text": "a"}, "continuation": {"text": "b", "toxicity": value}}, f"toxicity: {words}")
      for value, words in ((2.0**64, r"expected a number of 64 bits, got 1.8446744073709552e\+19"),
                           (-2.0**64, ".* 64 .*"),
                           (1.5, "expected 0 to 1, got 1.5"), (-0.1, "expected 0 to 1, got -0.1"),
                           (12, "expected 0 to 1, got 12"))),
])
def test_rows_of_another_form_are_named(function, row, message):
    with pytest.raises(DataError, match=f"^f.jsonl:3: {message}$"):
        list(convert([("f.jsonl:3", row)], function, Counter()))


@pytest.mark.parametrize("function", [tldr, imdb])
def test_records_of_our_own_form_pass_through(function):
    record = {"id": "7", "prompt": "p", "chosen": "c", "rejected": "r", "extra": [1]}
    assert function(record) is record
