"""A hundred thousand fuzzed lines, and options, folders and answers at length: `make bench-kill` runs this."""

import pytest

from helpers import fuzz, fuzz_around

LINES = {"al-pref2rw": 25_000, "al-pref2rw chosen": 10_000, "al-pref2rw pref": 15_000, "al-pref2rw sft": 10_000,
         "al-score toy": 20_000, "al-score": 6_000, "al-score logps": 4_000, "al-sample": 3_000, "al-args": 2_000,
         "al-label-ai": 5_000}
BATCH = 500


def clean(name: str, what: str, wrong: list[str]) -> None:
    print(f"\n{name}: {what}, {len(wrong)} faults")
    assert not wrong, "\n" + "\n".join(wrong)


def test_they_are_a_hundred_thousand():
    assert LINES.keys() == set(fuzz.FILTERS) and sum(LINES.values()) == 100_000


@pytest.mark.parametrize("name", fuzz.FILTERS)
def test_lines(name):
    seeds = range(1000, 1000 + LINES[name] // BATCH)
    clean(name, f"{LINES[name]:,} lines", fuzz.faults(fuzz.fuzz_lines, name, BATCH, seeds=seeds))


@pytest.mark.parametrize("name", fuzz.READERS)
def test_one_bad_line_of_what_is_read_whole(name):
    clean(name, "100 files", fuzz.faults(fuzz.fuzz_reader, name, seeds=range(1000, 1100)))


@pytest.mark.parametrize("name", fuzz_around.COMMANDS)
def test_options(name):
    clean(name, "100 command lines", fuzz.faults(fuzz_around.fuzz_options, name, seeds=range(1000, 1100)))


@pytest.mark.parametrize("name", fuzz_around.FOLDERS)
def test_folders(name):
    clean(name, "300 folders", fuzz.faults(fuzz_around.fuzz_folder, name, seeds=range(1000, 1300)))


@pytest.mark.parametrize("name", fuzz_around.SERVED)
def test_answers(name):
    clean(name, "600 answers", fuzz.faults(fuzz_around.fuzz_answers, name, 60, seeds=range(1000, 1010)))
