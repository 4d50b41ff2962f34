"""What the pages show is what there is: options, tables of experiments, figures that were taken from other pages."""

import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib import import_module

import click
import pytest

from alignlib.records import fields
from helpers.process import ROOT

PAGES = sorted(str(path.relative_to(ROOT)) for pattern in ("*.md", "docs/**/*.md", "examples/**/*.md", "tests/**/*.md")
               for path in ROOT.glob(pattern))
SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
# Of others' programs that pages show.
FOREIGN = {
    "--dist", "--no-deps", "--help", "--version", "--nnodes", "--nproc_per_node", "--rdzv_backend",
    "--rdzv_endpoint", "--no-python", "--hostfile", "--nodes", "--ntasks-per-node", "--gpus-per-node", "--array",
    "--gpus", "--fast", "--schema",
}


def text_of(page: str) -> str:
    return (ROOT / page).read_text()


# -- options -----------------------------------------------------------------------------------------------------


@cache
def options() -> dict[tuple[str, ...], set[str]]:
    """Those of each command and subcommand, by its words: ("al-eval", "rm")."""
    found = {}
    for name, target in SCRIPTS.items():
        main = import_module(target.split(":")[1]).main
        parts = getattr(main, "commands", {})
        found |= {(name, part): names_of(command) for part, command in parts.items()}
        found[name,] = names_of(main).union(*(found[name, part] for part in parts))  # of a part that is left open
    return found


def names_of(command: click.Command) -> set[str]:
    named = {name for option in command.params if isinstance(option, click.Option)
             for name in (*option.opts, *option.secondary_opts)}
    return named | {"--help", "--version", "--schema"}


def calls(text: str) -> Iterator[tuple[tuple[str, ...], list[str]]]:
    """The commands that a page calls, in code or between backticks, each with the options that it gives them."""
    text = re.sub(r"\$\(which (al-[\w-]+)\)", r"\1", text.replace("\\\n", " "))
    code = "\n".join(line for line in text.splitlines() if line.startswith("    "))
    for span in (*code.splitlines(), *re.findall(r"`([^`\n]+(?:\n[^`\n]+)?)`", text)):
        for piece in re.split(r"[|;&)]|\s#\s", span):
            where = re.search(r"(?<![\w/.-])(al-[a-z0-9-]+)(?=[\s)]|$)", piece)
            if where and where[1] in SCRIPTS:
                yield call_of(where[1], piece[where.end():])


def call_of(name: str, rest: str) -> tuple[tuple[str, ...], list[str]]:
    try:
        words = shlex.split(rest)
    except ValueError:  # a quote that another piece closes
        words = rest.split()
    command = (name, words[0]) if words and (name, words[0]) in options() else (name,)
    return command, [word.split("=")[0] for word in words if re.match(r"--?[a-z]", word)]


@pytest.mark.parametrize("page", PAGES)
def test_no_page_names_an_option_that_is_not_there(page):
    text = text_of(page)
    every = set().union(*options().values()) | FOREIGN
    assert set(re.findall(r"(?<![\w-])--[a-z][\w-]*\w", text)) - every == set()
    for command, given in calls(text):
        known = options()[command]
        short = {name for name in given if not name.startswith("--") and name[:2] in known}  # -n4
        wrong = [name for name in given if name not in known | short | FOREIGN]
        assert not wrong, f"{' '.join(command)} has no {', '.join(wrong)}"


def test_a_wrong_option_would_be_found():
    text = """
    al-data toy --limit 3 | al-score rm --lr 1 > `a`
    $ torchrun --nnodes 2 $(which al-sft) base -o \\
        sft --bets 0

`al-eval winrate --judge "x --question y"`, and `al-sft --help`
"""
    assert list(calls(text)) == [
        (("al-data", "toy"), ["--limit"]), (("al-score",), ["--lr"]), (("al-sft",), ["-o", "--bets"]),
        (("al-eval", "winrate"), ["--judge"]), (("al-sft",), ["--help"])]
    assert "--lr" not in options()["al-score",] and "--bets" not in options()["al-sft",]


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


def bullets(text: str) -> list[tuple[str, list[str]]]:
    """The points of a page, each with the pages that it links to."""
    points = re.findall(r"^- ((?:.+\n)(?:  .+\n)*)", text, re.MULTILINE)
    return [(re.sub(r"\(?\[[^\]]+\]\([^)]+\)\)?", "", point), re.findall(r"\]\(([^)]+)\)", point)) for point in points]


def test_what_did_not_work_says_what_its_sources_say():
    """Every number of a point stands in a page that the point links to."""
    page = ROOT / "docs" / "what-did-not-work.md"
    points = bullets(page.read_text())
    assert len(points) > 20
    for point, links in points:
        known = {number for link in links for number in re.findall(NUMBER, (page.parent / link).resolve().read_text())}
        assert links and set(re.findall(NUMBER, point)) - known == set(), point


def test_the_readme_leads_to_every_page():
    pages = {f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")}
    assert pages - set(re.findall(r"\]\((docs/[\w.-]+)\)", text_of("README.md"))) == set()
