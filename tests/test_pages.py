"""What the pages show is what there is: tables of experiments, figures that were taken from other pages."""

import json
import re
import tomllib
from importlib import import_module

import pytest

from alignlib.records import fields
from helpers.process import ROOT

PAGES = sorted(str(path.relative_to(ROOT)) for pattern in ("*.md", "docs/**/*.md", "examples/**/*.md", "tests/**/*.md")
               for path in ROOT.glob(pattern))
SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]


def text_of(page: str) -> str:
    return (ROOT / page).read_text()


# -- how commands read -------------------------------------------------------------------------------------------


def test_what_streams_is_what_help_says():
    page = text_of("docs/streaming.md")
    rows = dict(re.findall(r"^\| `([\w -]+)`[^|]* \| (streams|reads all) \|", page, re.MULTILINE))
    for name, target in SCRIPTS.items():
        main = import_module(target.split(":")[1]).main
        parts = {f"{name} {part}": command for part, command in getattr(main, "commands", {}).items()}
        if name == "al-data":  # of its sets the help of all says it
            parts = {row: parts.get(row, main) for row in rows if row.startswith(name)}
            assert {"al-data", "al-data mix", "al-data shuffle", "al-data model", "al-data new-model"} == set(parts)
        for row, command in (parts or {name: main}).items():
            says = re.search(r"\b([Ss]tream|[Rr]eads all)", command.help or "")
            assert says and says[1].lower() == {"streams": "stream"}.get(rows[row], rows[row]), row


# -- records -----------------------------------------------------------------------------------------------------


def test_every_field_has_an_example_and_every_example_is_a_record():
    lines = re.findall(r"^    (\{.*\})$", text_of("docs/records.md"), re.MULTILINE)
    records = [json.loads(line) for line in lines]
    for record in records:
        fields.check(record, *fields.FIELDS)
        assert "text" in record or {"prompt", "messages"} & set(record)
        if "completions" in record:
            fields.require_completions(record)
        assert set(record) <= set(fields.FIELDS)
    assert set().union(*records) == set(fields.FIELDS)


# -- figures -----------------------------------------------------------------------------------------------------


def tables(text: str) -> list[list[list[str]]]:
    """The tables of a Markdown text: rows of cells, the line below the heading left out."""
    return [[[cell.strip() for cell in row.strip("|").split("|")] for row in rows.splitlines()
             if not re.fullmatch(r"[|:\- ]+", row)] for rows in re.findall(r"(?:^\|.*(?:\n|\Z))+", text, re.MULTILINE)]


def kept_tables(folder: str) -> list[list[list[str]]]:
    """Those of an experiment's runs, as its reports wrote them."""
    return [table for file in sorted((ROOT / folder / "tables").glob("*.md")) for table in tables(file.read_text())]


EXPERIMENTS = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("examples/*/README.md")
                     if (path.parent / "experiment.mk").exists())


@pytest.mark.parametrize("page", EXPERIMENTS)
def test_an_experiments_tables_are_its_runs(page):
    """Cell by cell: a run's report/table.md is kept in `tables/` beside the page, which shows all of them."""
    shown, kept = tables(text_of(page)), kept_tables(page.removesuffix("/README.md"))
    assert shown and [table for table in shown if table not in kept] == [], "not in tables/"
    assert [table for table in kept if table not in shown] == [], f"not in {page}"


def test_the_readmes_figures_are_a_runs():
    figures = [table for table in tables(text_of("README.md")) if re.search(r"\[-?\d.*\d\]", " ".join(table[1]))]
    assert figures and all(table in kept_tables("examples/hh-exo") for table in figures)


def test_a_cell_that_was_changed_is_seen():
    text = "one\n\n| a | b |\n| --- | ---: |\n| x | 1 [0, 2] |\n\ntwo\n"
    assert tables(text) == [[["a", "b"], ["x", "1 [0, 2]"]]] != tables(text.replace("1 [", "1.1 ["))


NUMBER = r"(?<![\w.,])-?\d*[.,]?\d+(?![\w]|[.,]\d)"


def with_links(points: list[str]) -> list[tuple[str, list[str]]]:
    """Parts of a page, each with the pages that it links to."""
    return [(re.sub(r"\(?\[[^\]]+\]\([^)]+\)\)?", "", point), re.findall(r"\]\(([^)]+)\)", point)) for point in points]


@pytest.mark.parametrize(("name", "parts", "least"), [
    ("what-did-not-work", r"^- ((?:.+\n)(?:  .+\n)*)", 24), ("against-the-studies", r"^## (?:(?!## ).*\n)+", 4)])
def test_figures_from_other_pages_are_what_those_say(name, parts, least):
    """Every number of a part stands in a page that the part links to."""
    page = ROOT / "docs" / f"{name}.md"
    points = with_links(re.findall(parts, page.read_text(), re.MULTILINE))
    assert len(points) >= least
    for point, links in points:
        known = {number for link in links for number in re.findall(NUMBER, (page.parent / link).resolve().read_text())}
        assert links and set(re.findall(NUMBER, point)) - known == set(), point


def test_the_readme_leads_to_every_page():
    pages = {f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")}
    assert pages - set(re.findall(r"\]\((docs/[\w.-]+)\)", text_of("README.md"))) == set()
