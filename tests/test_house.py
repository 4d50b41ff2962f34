"""The rule of the house holds in ours; in small made-up houses, what breaks it is found."""

from collections.abc import Iterable

import pytest

from helpers.house import (
    FLOORS,
    LIBRARY_LINES,
    Imports,
    Texts,
    borrowing_tests,
    circles,
    climbs,
    command_name,
    long_files,
    long_functions,
    read_imports,
    read_texts,
    renamed_modules,
    strangers,
    taken_names,
    trusting_loads,
    unshared,
    untested_files,
)

# -- our house -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def texts() -> Texts:
    return read_texts("lib", "tools")


@pytest.fixture(scope="module")
def imports(texts) -> Imports:
    return read_imports(texts)


def keeps(breaches: Iterable[str]) -> None:
    lines = list(breaches)
    assert not lines, "\n" + "\n".join(lines)


def test_the_house_is_read(imports):
    """What the other tests say of it they say of all twelve commands and of every room."""
    assert len({command_name(module) for module in imports} - {None}) == 12
    rooms = {module.split(".")[1] for module in imports if module.startswith("alignlib.")}
    assert rooms == set().union(*FLOORS) - {"alignlib"}
    assert sum(map(len, imports.values())) > 300


@pytest.mark.parametrize("check", [circles, strangers, unshared, climbs])
def test_imports(imports, check):
    keeps(check(imports))


@pytest.mark.parametrize("check", [renamed_modules, long_files, long_functions, trusting_loads])
def test_files(texts, check):
    keeps(check(texts))


def test_the_library_is_small():
    lines = sum(len(text.splitlines()) for text in read_texts("lib").values())
    assert lines <= LIBRARY_LINES, f"lib/ has {lines} lines, over {LIBRARY_LINES}; say things shorter"


def test_every_file_has_a_test_of_its_own(texts):
    keeps(untested_files(texts, read_texts("tests")))


def test_no_test_imports_a_test():
    keeps(borrowing_tests(read_texts("tests")))


def test_no_constant_takes_anothers_name(texts):
    keeps(taken_names(texts | read_texts("tests", "docs", "examples")))


# -- made-up houses --------------------------------------------------------------------------------------------

# Two commands, three floors: nothing is wrong with it.
GOOD: Imports = {
    "al_sft": {"alignlib.training.loop"},
    "al_eval": {"al_eval.plots", "alignlib.training.loop"},
    "al_eval.plots": {"alignlib.ranks"},
    "alignlib": set(),
    "alignlib.training": set(),
    "alignlib.training.loop": {"alignlib.training.losses", "alignlib.models.load"},
    "alignlib.training.losses": set(),
    "alignlib.models": set(),
    "alignlib.models.load": {"alignlib.ranks", "alignlib"},
    "alignlib.ranks": set(),
}


def breaches(check, *arrows: tuple[str, str]) -> list[str]:
    """What `check` says of the good house with more imports in it: pairs of an importer and what it imports."""
    house = {module: set(others) for module, others in GOOD.items()}
    for importer, imported in arrows:
        house.setdefault(importer, set()).add(imported)
        house.setdefault(imported, set())
    return list(check(house))


@pytest.mark.parametrize("check", [circles, strangers, unshared, climbs])
def test_nothing_is_wrong_with_a_good_house(check):
    assert breaches(check) == []


@pytest.mark.parametrize(("importer", "imported", "circle"), [
    ("al_eval.plots", "al_eval", "al_eval -> al_eval.plots -> al_eval"),
    ("alignlib.ranks", "alignlib.ranks", "alignlib.ranks -> alignlib.ranks"),
    ("alignlib.ranks", "alignlib.training.loop",
     "alignlib.training.loop -> alignlib.models.load -> alignlib.ranks -> alignlib.training.loop"),
])
def test_a_circle_is_named_once_and_whole(importer, imported, circle):
    assert breaches(circles, (importer, imported)) == [
        f"{circle}: a circle; move what they share into a file below them"]


def test_two_circles_are_two():
    assert len(breaches(circles, ("al_eval.plots", "al_eval"), ("alignlib.ranks", "alignlib.models.load"))) == 2


@pytest.mark.parametrize("imported", ["al_eval", "al_eval.plots"])
@pytest.mark.parametrize("importer", ["al_sft", "alignlib.ranks"])
def test_what_is_a_command_s_own_nobody_else_imports(importer, imported):
    assert breaches(strangers, (importer, imported)) == [
        f"{importer} imports {imported}, which is al_eval's own; move what it needs to lib/alignlib/"]


def test_what_one_command_reaches_is_its_own():
    """Through another file too."""
    far = [("al_eval.plots", "alignlib.rewards.curves"), ("alignlib.rewards.curves", "alignlib.rewards.points")]
    assert breaches(unshared, *far) == [
        f"alignlib.rewards.{name} serves al_eval only; move it to tools/al_eval/" for name in ("curves", "points")]
    assert breaches(unshared, *far, ("al_sft", "alignlib.rewards.curves")) == []


def test_what_no_command_reaches_is_dead():
    assert breaches(unshared, ("alignlib.hub", "alignlib.ranks")) == ["alignlib.hub serves no command; delete it"]


@pytest.mark.parametrize(("importer", "imported", "where"), [
    ("alignlib.models.load", "alignlib.training.loop", "above"),
    ("alignlib.ranks", "alignlib.models.load", "above"),
    ("alignlib", "alignlib.ranks", "above"),
    ("alignlib.models.load", "alignlib.cli.exits", "beside"),
    ("alignlib.ranks", "alignlib.hub", "beside"),
])
def test_a_room_imports_downwards(importer, imported, where):
    assert breaches(climbs, (importer, imported)) == [
        f"{importer} imports {imported}, from a room {where} its own; move what both need to a room below"]


def test_a_new_room_is_on_no_floor():
    assert breaches(climbs, ("alignlib.attic.boxes", "alignlib.training.loop")) == [
        "alignlib.attic.boxes is in no room of FLOORS; give its room a floor there and in ARCHITECTURE.md"]


def test_imports_are_read_wherever_they_stand():
    texts = {
        "lib/alignlib/__init__.py": "",
        "lib/alignlib/ranks.py": "",
        "lib/alignlib/models/__init__.py": "from . import packs",
        "lib/alignlib/models/load.py": "from ..ranks import first\nimport alignlib.models.packs",
        "lib/alignlib/models/packs.py": "",
        "tools/al_sft.py": "import torch\nfrom alignlib import __version__, ranks\n\n\n"
                           "def main():\n    from alignlib.models import load as loading",
        "tools/al_eval/__init__.py": "from typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n    import al_eval.plots",
        "tools/al_eval/plots.py": "",
    }
    assert {module: others for module, others in read_imports(texts).items() if others} == {
        "alignlib.models": {"alignlib.models.packs"},
        "alignlib.models.load": {"alignlib.ranks", "alignlib.models.packs"},
        "al_sft": {"alignlib", "alignlib.ranks", "alignlib.models.load"},
        "al_eval": {"al_eval.plots"},
    }


@pytest.mark.parametrize(("line", "breach"), [
    ("import numpy as np", None),
    ("import torch.nn.functional", None),
    ("from torch import Tensor as T", None),  # no module, by its look; only those of the house are known
    ("import numpy as n", "numpy as n"),
    ("def f():\n    import torch.nn.functional as F", "torch.nn.functional as F"),
    ("from alignlib import hub as h", "alignlib.hub as h"),
])
def test_a_module_keeps_its_name(line, breach):
    lines = list(renamed_modules({"lib/alignlib/ranks.py": line, "lib/alignlib/hub.py": ""}))
    assert lines == ([f"lib/alignlib/ranks.py imports {breach}; call it by its own name, or import what it has by name"]
                     if breach else [])


def test_lines_are_counted():
    text = "@one\n@two\ndef work():\n" + "    pass\n" * 59
    assert list(long_functions({"tools/al_sft.py": text})) == []
    assert list(long_functions({"tools/al_sft.py": f"{text}    pass\n"})) == [
        "tools/al_sft.py:3: work has 61 lines, over 60; name its parts"]
    assert list(long_files({"lib/alignlib/hub.py": "\n" * 320, "lib/alignlib/ranks.py": "\n" * 321})) == [
        "lib/alignlib/ranks.py has 321 lines, over 320; give one of its subjects a file of its own"]


@pytest.mark.parametrize(("path", "test"), [
    ("lib/alignlib/ranks.py", "tests/alignlib/test_ranks.py"),
    ("lib/alignlib/models/load.py", "tests/alignlib/models/test_load.py"),
    ("tools/al_sft.py", "tests/test_al_sft.py"),
    ("tools/al_eval/plots.py", "tests/al_eval/test_plots.py"),
    ("tools/al_eval/__init__.py", "tests/al_eval/test_al_eval.py"),
])
def test_a_file_without_a_test_is_found(path, test):
    files = {path: "def work(): ...", "tools/al_eval/__main__.py": "", "lib/alignlib/__init__.py": '__version__ = "1"'}
    assert list(untested_files(files, {test: "def test_it(): ..."})) == []
    for others in ({}, {test: "import pytest"}, {"tests/test_other.py": "def test_it(): ..."}):
        assert list(untested_files(files, others)) == [f"{path} has no test of its own; write it in {test}"]


@pytest.mark.parametrize("line", ["import test_ranks", "from al_eval import test_ranks", "from . import test_ranks"])
def test_a_test_that_imports_a_test_is_found(line):
    assert list(borrowing_tests({"tests/alignlib/test_hub.py": "from helpers import tiny\nimport torch.testing"})) == []
    (breach,) = borrowing_tests({"tests/alignlib/test_hub.py": f"def test_it():\n    {line}"})
    assert "test_ranks" in breach and breach.endswith("a test; move what they share to tests/helpers/")


@pytest.mark.parametrize(("code", "load"), [
    ("AutoConfig.from_pretrained(path, trust_remote_code=False)", None),
    ("auto.from_pretrained(path, trust_remote_code=False, **settings)", None),
    ("peft.PeftModel.from_pretrained(model, path)", None),
    ("torch.load(file, map_location='cpu', weights_only=True)", None),
    ("json.load(file)", None),
    ("transformers.AutoTokenizer.from_pretrained(path)", "transformers.AutoTokenizer.from_pretrained"),
    ("auto.from_config(config, dtype=torch.float32)", "auto.from_config"),
    ("auto.from_pretrained(path, **settings)", "auto.from_pretrained"),
    ("AutoModel.from_pretrained(path, trust_remote_code=True)", "AutoModel.from_pretrained"),
    ("AutoModel.from_pretrained(path, trust_remote_code=trust)", "AutoModel.from_pretrained"),
    ("load = AutoModel.from_pretrained", "AutoModel.from_pretrained"),
    ("vllm.AsyncEngineArgs(model=path)", "vllm.AsyncEngineArgs"),
    ("pipeline('text-generation', path)", "pipeline"),
])
def test_a_load_that_would_run_a_folder_s_code_is_found(code, load):
    breach = f"tools/al_x.py:2: {load} does not say trust_remote_code=False"
    assert list(trusting_loads({"tools/al_x.py": f"def f():\n    {code}"})) == ([breach] if load else [])


@pytest.mark.parametrize("code", ["torch.load(file)", "torch.load(file, weights_only=False)"])
def test_a_file_that_may_hold_code_is_found(code):
    (breach,) = trusting_loads({"tools/al_x.py": code})
    assert breach == "tools/al_x.py:1: torch.load does not say weights_only=True"


def test_a_name_that_is_taken_is_found():
    """A test's long prompt had become a rope's settings, and only an engine that CI has not would have told."""
    good = "A, (B, C) = 1, (2, 3)\ndef f():\n    A = 2\nE = A\nB.x = 4\n"
    assert list(taken_names({"a.py": good})) == []
    assert list(taken_names({"a.py": "A = 1\nB, A = 2, 3\n"})) == [
        "a.py:2: A is there already; give one of the two another name"]
