"""The pages say what the code says."""

import re
import shutil
import subprocess
from importlib import import_module

import click
import pytest

import generate
from helpers.process import ROOT

PAGES = {str(path.relative_to(ROOT)): path.read_text() for path in (
    ROOT / "README.md", ROOT / "ARCHITECTURE.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")),
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


# -- the commands' own pages ---------------------------------------------------------------------------------------

every_command = pytest.mark.parametrize("name", generate.COMMANDS)


def test_the_generated_pages_are_up_to_date():
    there = {str(path.relative_to(ROOT)): path.read_text()
             for folder in ("docs/commands", "docs/man") for path in (ROOT / folder).iterdir()}
    assert there == generate.own_pages(), "run `make docs`"


def options_of(command: click.Command) -> set[str]:
    """Every name of every option, --help among them."""
    names = [name for parameter in command.get_params(click.Context(command, **command.context_settings))
             if isinstance(parameter, click.Option) and not parameter.hidden
             for name in (*parameter.opts, *parameter.secondary_opts)]
    return set(names)


def options_by_command() -> dict[str, set[str]]:
    """Of each command, and of each subcommand as "al-data toy"."""
    options = {}
    for name in generate.COMMANDS:
        command = import_module(name.replace("-", "_")).main
        options[name] = options_of(command)
        for part, its in getattr(command, "commands", {}).items():
            options[f"{name} {part}"] = options_of(its)
    return options


OPTIONS = options_by_command()


@every_command
def test_every_option_is_in_the_command_s_pages(name):
    """A subcommand's in its own section, by name or among those that several have."""
    markdown = (ROOT / f"docs/commands/{name}.md").read_text()
    man = (ROOT / f"docs/man/{name}.1").read_text().replace("\\-", "-")
    sections = dict(re.findall(r"^## (.+)\n((?:(?!^## ).*\n)+)", markdown, re.MULTILINE))
    for command, options in OPTIONS.items():
        if command == name or command.startswith(f"{name} "):
            part = sections[command] + sections["Options that several have"] if " " in command else markdown
            assert [option for option in options if not re.search(rf"[`\s]{option}[`,\s]", part)] == [], command
            assert [option for option in options if rf"\fB{option}\fR" not in man] == [], command


@pytest.mark.skipif(not shutil.which("groff"), reason="groff is not installed here")
@every_command
def test_man_finds_nothing_wrong_with_a_page(name):
    done = subprocess.run(["groff", "-man", "-Tutf8", "-ww", ROOT / f"docs/man/{name}.1"], capture_output=True,
                          text=True, check=True)
    assert done.stderr == ""
    shown = re.sub(".\b", "", done.stdout)
    assert all(title in shown for title in ("NAME", "SYNOPSIS", "OPTIONS", "EXAMPLE", "EXIT STATUS", "SEE ALSO"))
    assert generate.command_pages.EXITS[65] in shown


# Options of other programs that pages name: torchrun, the deepspeed launcher, Slurm.
FOREIGN = {"--nnodes", "--nproc_per_node", "--rdzv_backend", "--rdzv_endpoint", "--no-python", "--hostfile", "--nodes",
           "--ntasks-per-node", "--gpus-per-node", "--gpus", "--array"}
# A command with what follows it in its line, up to where another begins.
CALL = re.compile(r"\b(al-[a-z0-9-]+)((?: (?!al-)[^|;&>`\s]*)*)")


def wrong_options(text: str) -> list[str]:
    """What a page says of options that the command, or any command, does not have."""
    text = re.sub(r"\\\n\s*", " ", text.replace("\\|", "|"))  # a line that goes on; a table's cells
    text = re.sub(r'"[^"\n]*"', '""', text)  # what is in quotes is another program's
    wrong = []
    for name, rest in CALL.findall(text):
        words = rest.split()
        command = f"{name} {words[0]}" if words and f"{name} {words[0]}" in OPTIONS else name
        named = re.findall(r"(?<![\w-])(--[a-z][\w-]*)", rest)
        known = set().union(*(its for other, its in OPTIONS.items() if other.split()[0] == name)) \
            if command == name else OPTIONS[command]
        wrong += [f"{command} {option}" for option in named if name in OPTIONS and option not in known]
    everywhere = set().union(FOREIGN, *OPTIONS.values())
    return wrong + [option for option in re.findall(r"(?<![\w-])(--[a-z][\w-]*)", text) if option not in everywhere]


@every_page
def test_no_page_names_an_option_that_does_not_exist(page):
    assert wrong_options(PAGES[page]) == []


@pytest.mark.parametrize(("text", "wrong"), [
    ("`al-sft base -o x --lr 1 | al-score rm --logps`", []), ("`al-sft base --logps`", ["al-sft --logps"]),
    ("    al-sample sft \\\n        --beta-pi 1", ["al-sample --beta-pi"]), ("with `--no-such`", ["--no-such"]),
    ("al-data toy --chat", ["al-data toy --chat"]), ("al-data hh --chat", []), ("al-data --chat", []),
])
def test_an_option_that_does_not_exist_is_found(text, wrong):
    assert wrong_options(text) == wrong
