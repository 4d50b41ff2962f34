"""Conditions: texts of one's own, and those that a policy was trained under, by name."""

import json

import click
import pytest

from alignlib.decoding.conditions import Condition, condition_for, read_conditions

TAGS = {"best": "Good. ", "tags": ["Good. ", "Bad. "], "exemplars": []}
EXEMPLARS = {"best": "Fine: ", "tags": [], "exemplars": ["Fine: ", "Clear: ", "Short: "]}


def trained(folder, conditions) -> str:
    (folder / "run.json").write_text(json.dumps({"conditions": conditions}))
    return str(folder)


def test_names_and_texts(tmp_path):
    model = trained(tmp_path, TAGS)
    assert condition_for("best", model, 0) == condition_for("tag:1", model, 0) == Condition(("Good. ",))
    assert condition_for("tag:2", model, 0) == Condition(("Bad. ",))
    for text in ("Best", "tag", "a tag:1", "tag:1 or 2", ""):  # no name: the text itself, of any model
        assert condition_for(text, "none", 0) == Condition((text,))


def test_each_prompt_has_its_exemplar(tmp_path):
    """By the seed and the prompt alone; a condition or an id beside it changes nothing."""
    condition = condition_for("exemplars", trained(tmp_path, EXEMPLARS), 3)
    texts = [condition.text_for({"prompt": f"{number}"}) for number in range(40)]
    assert set(texts) == set(EXEMPLARS["exemplars"])
    assert texts == [condition.text_for({"id": "a", "prompt": f"{number}"}) for number in range(40)]
    other = condition_for("exemplars", str(tmp_path), 4)
    assert texts != [other.text_for({"prompt": f"{number}"}) for number in range(40)]


@pytest.mark.parametrize("conditions, name, message", [
    (TAGS, "exemplars", "has none; there are best and tag:1 to tag:2"),
    (TAGS, "tag:3", "has tags 1 to 2"),
    (TAGS, "tag:0", "has tags 1 to 2"),
    (EXEMPLARS, "tag:1", "has no tags, but exemplars"),
    (TAGS, "tag:one", "expected the tag's number, tag:1 is the best"),
    ({**TAGS, "tags": "Good. "}, "best", "conditions.tags: not what al-train-alt writes, but a string"),
    ({**TAGS, "tags": [1]}, "best", "conditions.tags: not what al-train-alt writes, but an array"),
    ([], "best", "conditions.best: not what al-train-alt writes, but null"),
])
def test_what_is_not_there_is_named(conditions, name, message, tmp_path):
    with pytest.raises(click.UsageError) as error:
        condition_for(name, trained(tmp_path, conditions), 0)
    assert message in error.value.message


def test_a_model_without_any(tmp_path):
    with pytest.raises(click.UsageError, match="--order: .*run.json keeps no conditions; al-train-alt's do"):
        read_conditions(str(tmp_path), "--order")
