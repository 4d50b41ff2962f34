"""The pages say what the code says."""

import re

import pytest

import generate
from helpers.process import ROOT

PAGES = {str(path.relative_to(ROOT)): path.read_text() for path in (
    ROOT / "README.md", ROOT / "ARCHITECTURE.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "examples" / "README.md", *sorted((ROOT / "examples").glob("*/README.md")))}

every_page = pytest.mark.parametrize("page", PAGES)


def anchors(text: str) -> set[str]:
    """What links may name behind a page's #: its headings, as they are linked to."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", generate.PAGES)
def test_generated_parts_are_up_to_date(page):
    assert generate.fill(page, PAGES[page]) == PAGES[page], "run `make docs`"


@pytest.mark.parametrize("name", generate.PARTS)
def test_a_missing_part_is_named(name):
    page, _ = generate.PARTS[name]
    with pytest.raises(ValueError, match=f"{page} has no part <!-- {name} -->"):
        generate.fill(page, PAGES[page].replace(f"<!-- /{name} -->", ""))


@every_page
def test_every_file_it_points_to_is_there(page):
    links = [link for link in re.findall(r"\]\(([^)]+)\)", PAGES[page]) if "://" not in link]
    assert links or page not in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md")
    for link in links:
        file, _, anchor = link.partition("#")
        target = ((ROOT / page).parent / file).resolve() if file else ROOT / page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target.read_text()), link


@every_page
def test_every_make_target_it_names_is_there(page):
    makefiles = "\n".join(path.read_text() for path in [ROOT / "Makefile", *ROOT.glob("examples/*/experiment.mk")])
    named = set(re.findall(r"(?:`|^ {4})make (?:-n )?([a-z][a-z-]+)", PAGES[page], re.MULTILINE))
    assert named or page not in ("README.md", "CONTRIBUTING.md", "examples/README.md")
    assert [name for name in named if not re.search(rf"^{name}:", makefiles, re.MULTILINE)] == []


def test_every_experiment_is_in_the_table():
    names = {path.parent.name for path in ROOT.glob("examples/*/experiment.mk")}
    assert set(re.findall(r"^\| `make ([a-z-]+)`", PAGES["examples/README.md"], re.MULTILINE)) == names


def rooms(text: str) -> dict[str, list[str]]:
    """The files in the first column of the table under each heading that is a folder's name."""
    found = re.findall(r"^### ([\w/]+)\n\n((?:\|.*\n)+)", text, re.MULTILINE)
    cells = {folder: [row.split("|")[1] for row in table.splitlines()] for folder, table in found}
    return {folder: re.findall(r"`([\w.]+)`", " ".join(column)) for folder, column in cells.items()}


def test_the_architecture_has_every_file_once_and_no_other():
    """But for the `__init__.py` that only say what a room of the library is for, and `__main__.py`."""
    files = {str(path.relative_to(ROOT)) for folder in ("lib", "tools") for path in (ROOT / folder).rglob("*.py")}
    files -= {file for file in files if re.match(r"lib/.*__init__\.py|.*__main__\.py", file)}
    named = [f"{folder}/{name}" for folder, names in rooms(PAGES["ARCHITECTURE.md"]).items() for name in names]
    assert len(named) == len(set(named)), "a file is named twice"
    assert files - set(named) == set(), "ARCHITECTURE.md does not name these files: a row for each in its room's table"
    assert set(named) - files == set(), "ARCHITECTURE.md names files that are not there"


@pytest.mark.parametrize("page", ["ARCHITECTURE.md", "CONTRIBUTING.md"])
def test_every_path_that_it_names_is_there(page):
    """`tools/al_x...` and `tests/test_al_x.py` stand for a new command."""
    paths = set(re.findall(r"`((?:lib|tools|tests|docs|examples|records|models|training)/[\w./]*)`", PAGES[page]))
    places = (ROOT, ROOT / "lib" / "alignlib")
    missing = {path for path in paths if not any((place / path).exists() for place in places)}
    assert paths and {path for path in missing if "al_x" not in path} == set()
    names = {path.name for folder in ("lib", "tools", "tests", "docs") for path in (ROOT / folder).rglob("*.py")}
    assert set(re.findall(r"`(\w+\.py)`", PAGES[page])) - names == set()
