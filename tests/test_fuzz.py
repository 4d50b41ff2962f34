"""Whatever lines, options, folders and answers the commands get: see fuzz.py; and what is planted there is found."""

import pytest

from helpers import fuzz, fuzz_around, planted

pytestmark = pytest.mark.slow

TWO = range(2)


def clean(wrong: list[str]) -> None:
    assert not wrong, "\n" + "\n".join(wrong)


@pytest.mark.parametrize("name", fuzz.FILTERS)
def test_lines(name):
    clean(fuzz.faults(fuzz.fuzz_lines, name, 150, seeds=TWO))


@pytest.mark.parametrize("name", fuzz.READERS)
def test_one_bad_line_of_what_is_read_whole(name):
    clean(fuzz.faults(fuzz.fuzz_reader, name, seeds=range(3)))


@pytest.mark.parametrize("name", fuzz_around.COMMANDS)
def test_options(name):
    clean(fuzz.faults(fuzz_around.fuzz_options, name, seeds=range(3)))


@pytest.mark.parametrize("name", fuzz_around.FOLDERS)
def test_folders(name):
    clean(fuzz.faults(fuzz_around.fuzz_folder, name, seeds=range(6)))


@pytest.mark.parametrize("name", fuzz_around.SERVED)
def test_answers(name):
    clean(fuzz.faults(fuzz_around.fuzz_answers, name, 30, seeds=TWO))


@pytest.mark.parametrize("name", fuzz.READERS)
def test_what_is_mutated_is_good_before(name):
    clean(fuzz.untouched(name))


FOUND = {
    "drops lines": (fuzz.fuzz_lines, "al-pref2rw", 150, "read, but"),
    "swallows bad lines": (fuzz.fuzz_lines, "al-pref2rw", 150, "read, but"),
    "puts a bad line aside in part": (fuzz.fuzz_lines, "al-pref2rw", 500, "put aside are not the"),
    "misses a field": (fuzz.fuzz_lines, "al-pref2rw", 150, "unforeseen: al-pref2rw: KeyError: 'id'"),
    "names the next line": (fuzz.fuzz_lines, "al-score toy", 150, "put aside are not the"),
    "names no line": (fuzz.fuzz_reader, "al-eval reward", "is not named"),
    "writes NaN": (fuzz.fuzz_lines, "al-score toy", 150, "written is not valid"),
    "writes another record": (fuzz.fuzz_lines, "al-score toy", 150, "written is not the record that was read"),
    "writes too few rewards": (fuzz.fuzz_lines, "al-score toy", 150, "rewards: 3 for 4 completions"),
    "ends with another code": (fuzz.fuzz_reader, "al-data hh", "exit code 3"),
    "prints a traceback": (fuzz.fuzz_lines, "al-score", 150, "a traceback"),
    "prints what was read": (fuzz.fuzz_lines, "al-score toy", 500, "control characters"),
    "trusts an option": (fuzz_around.fuzz_options, "al-data toy", "unforeseen: al-data: ValueError"),
    "takes any folder": (fuzz_around.fuzz_folder, "al-score", "taken for a model"),
    "trusts a folder": (fuzz_around.fuzz_folder, "al-score", "unforeseen: al-score: JSONDecodeError"),
    "trusts an answer": (fuzz_around.fuzz_answers, "al-label-ai", 30, "unforeseen: al-label-ai: "),
}


def test_every_fault_is_looked_for():
    assert FOUND.keys() == planted.FAULTS.keys()


@pytest.mark.parametrize("fault", FOUND)
def test_a_planted_fault_is_found(fault):
    function, *args, words = FOUND[fault]
    found = (what for seed in range(40) for what in function(*args, seed=seed, fault=fault))
    assert any(words in what for what in found), fault


@pytest.mark.parametrize("name", ["al-eval reward", "al-data hh"])
def test_of_what_is_read_whole_the_bad_line_itself_is_to_be_named(name):
    found = (what for seed in range(40) for what in fuzz.fuzz_reader(name, seed, "names the next line"))
    assert any("is not named" in what for what in found)
