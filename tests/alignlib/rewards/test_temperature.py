"""A reward model's temperature in its folder: read as written, and refused where it is not of these weights."""

import json
from pathlib import Path

import click
import pytest

from alignlib.rewards import temperature
from helpers import tiny

FITTED = {"mean": 1.5, "low": 1.25, "high": None, "n": 40}


@pytest.fixture
def folder(tmp_path) -> str:
    path = tiny.save(tiny.classifier("llama"), tmp_path / "rm")
    temperature.save(path, FITTED)
    return path


def refusal(folder: str) -> str:
    with pytest.raises(click.UsageError) as error:
        temperature.load(folder)
    return error.value.message


def test_it_is_read_as_it_was_written(folder):
    assert temperature.load(folder) == 1.5
    kept = json.loads(Path(folder, temperature.NAME).read_text())
    assert {name: kept[name] for name in ("temperature", "low", "high", "pairs")} == {
        "temperature": 1.5, "low": 1.25, "high": None, "pairs": 40}


def test_a_folder_without_one_says_what_writes_it(tmp_path):
    assert refusal(str(tmp_path)) == (
        f"{tmp_path}: no temperature.json; al-eval rm --fit-temperature {tmp_path} writes it")


def test_other_weights_are_another_model(folder):
    tiny.classifier("llama", seed=1).save_pretrained(folder)
    assert refusal(folder) == f"{folder}/temperature.json: fitted for other weights than this folder's; fit it again"


@pytest.mark.parametrize("contents", ["", "[]", "{}", '{"temperature": 1}'])
def test_what_nobody_has_written_is_refused(folder, contents):
    Path(folder, temperature.NAME).write_text(contents)
    assert refusal(folder) == f"{folder}/temperature.json: not what al-eval rm --fit-temperature writes"


@pytest.mark.parametrize("value", [0, -1, None, "1", True])
def test_it_is_a_number_above_0(folder, value):
    file = Path(folder, temperature.NAME)
    file.write_text(json.dumps({**json.loads(file.read_text()), "temperature": value}))
    assert refusal(folder) == f"{folder}/temperature.json: temperature: expected a number above 0"
