"""The toy world: records, labels and scores; what every language and oracle of it promises."""

import math
import subprocess
import sys

import pytest

from alignlib.toy import dialogue, review, summary, world
from alignlib.toy.words import foreign, words
from helpers.process import environment

PAINT = "\n\nHuman: How do I paint the old door in the kitchen?\n\nAssistant:"


@pytest.mark.parametrize("name", world.ORACLES)
@pytest.mark.parametrize("text", ["", " ", "\x00\ufffd", "{}[]%s", "é" * 1000, "word " * 5000, "\n\nHuman:"])
def test_every_text_has_a_finite_score(name, text):
    good = {"toxicity": 0.02}
    assert math.isfinite(world.score(name, text, text))
    assert world.score(name, PAINT, text) <= good.get(name, 0.5)


@pytest.mark.parametrize("task", world.TASKS)
def test_records_are_seeded_disjoint_and_leave_room(task):
    train, test = (list(world.records(task, split, seed=3, limit=1500)) for split in world.SPLITS)
    assert train == list(world.records(task, "train", seed=3, limit=1500))
    assert train[:20] != list(world.records(task, "train", seed=4, limit=20))
    prompts = {record["prompt"] for record in train}
    assert len(prompts) == 1500
    assert not prompts & {record["prompt"] for record in test}
    assert {world.split_of(prompt) for prompt in prompts} == {"train"}
    for record in train:
        assert list(record) == ["id", "prompt", "chosen", "rejected"]
        assert record["chosen"] != record["rejected"]
        assert record["chosen"].startswith(" ") and not record["prompt"].endswith(" ")
        assert 2 <= len(record["chosen"].split()) <= 45 and 6 <= len(record["prompt"].split()) <= 60

    oracle = world.PREFERRED_BY[task]
    chosen = [world.score(oracle, record["prompt"], record["chosen"]) for record in train]
    rejected = [world.score(oracle, record["prompt"], record["rejected"]) for record in train]
    differ = [one > other for one, other in zip(chosen, rejected, strict=True) if one != other]
    assert 0.78 < sum(differ) / len(differ) < 0.87  # a coin, but not a fair one
    best = sorted(chosen)[-15]  # one answer in a hundred is that good
    spread = (sum((value - sum(chosen) / len(chosen)) ** 2 for value in chosen) / len(chosen)) ** 0.5
    assert best - sum(chosen) / len(chosen) > 1.8 * spread


def test_answers_are_of_the_world():
    """No word of any answer is foreign: the oracle's penalty is for what a model makes up."""
    for task, language in (("dialogue", dialogue), ("summary", summary), ("review", review)):
        for record in world.records(task, limit=2000):
            assert foreign(words(record["chosen"]), record["chosen"], language.KNOWN) == 0, record["chosen"]


def test_preferences_by_another_oracle_carry_it_as_domain():
    signs = {"polite": 1, "concise": 1, "thorough": 1, "toxicity": -1}  # toxicity: the lower one is preferred
    for by, better in signs.items():
        records = list(world.records("dialogue", limit=800, by=by))
        assert {record["domain"] for record in records} == {by}
        margins = [world.score(by, record["prompt"], record["chosen"])
                   - world.score(by, record["prompt"], record["rejected"]) for record in records]
        assert better * sum(margins) > 0.1 * len(margins)


@pytest.mark.parametrize(("by", "better"), [("overall", 1), ("toxicity", -1)])
def test_best_of_more_is_a_stronger_teacher_of_the_same_prompts(by, better):
    usual, one, eight = (list(world.records("dialogue", limit=400, by=by, best_of=best_of)) for best_of in (0, 1, 8))
    for records in (one, eight):
        assert [record["prompt"] for record in records] == [record["prompt"] for record in usual]
        assert all(record["chosen"] != record["rejected"] for record in records)
    worth = [better * sum(world.score(by, record["prompt"], record["chosen"]) for record in records) / 400
             for records in (one, usual, eight)]
    assert worth == sorted(worth) and worth[2] > worth[1] + 0.02


@pytest.mark.parametrize("task", ["review", "dialogue"])
def test_labels_follow_the_oracle(task):
    records = list(world.labelled(task, limit=1500))
    assert records == list(world.labelled(task, limit=1500))
    names = world.LABELS[task]
    assert {record["label"] for record in records} == set(names)
    oracle = {"review": "sentiment", "dialogue": "toxicity"}[task]

    def mean(label):
        scores = [world.score(oracle, "", record["text"]) for record in records if record["label"] == label]
        assert len(scores) > 450  # neither label is rare
        return sum(scores) / len(scores)

    assert mean(names[0]) > mean(names[1]) + 0.3


def test_wrong_names_are_answered_with_the_choices():
    with pytest.raises(ValueError, match="no oracle 'nice': one of overall, helpful"):
        world.score("nice", "", "")
    with pytest.raises(ValueError, match="no task 'chess': one of dialogue, summary, review"):
        next(world.records("chess"))
    with pytest.raises(ValueError, match="no split 'dev'"):
        next(world.records("review", "dev"))
    with pytest.raises(ValueError, match="one of review, dialogue"):
        next(world.labelled("summary"))


def test_same_records_in_every_process():
    """String hashing is random in each process: nothing may depend on a set's order."""
    program = ("from alignlib.toy import world; "
               "print(*world.records('dialogue', limit=50), *world.labelled('review', limit=50))")
    outputs = {subprocess.run([sys.executable, "-c", program], capture_output=True, check=True,
                              env={**environment(), "PYTHONHASHSEED": seed}).stdout for seed in ("1", "2")}
    assert len(outputs) == 1 and outputs.pop().count(b"prompt") == 50


def test_a_nearly_empty_world_begins_again(monkeypatch):
    monkeypatch.setattr(review, "_STARTS", ("A {genre} and",))  # eight prompts
    records = list(world.records("review", limit=30))
    assert 1 < len({record["prompt"] for record in records}) <= 8 and len(records) == 30
