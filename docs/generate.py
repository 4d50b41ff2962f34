"""Write the generated pages, and the generated parts of others, anew: `make docs`. A test fails where one is behind.

A part stands between `<!-- NAME -->` and `<!-- /NAME -->`; what is between is made here. The commands' own pages,
docs/commands and docs/man, are made whole, by command_pages.py.
"""

import tomllib
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import command_pages
from alignlib.records import fields

ROOT = Path(__file__).resolve().parent.parent
COMMANDS: list[str] = list(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"])
OWN_PAGES = {f"docs/commands/{name}.md": name for name in COMMANDS}
MAN_PAGES = {f"docs/man/{name}.1": name for name in COMMANDS}


def commands() -> str:
    """A table of the commands: the first line of each one's docstring."""
    return table("command", {name: command_pages.first_line(name) for name in COMMANDS})


def exits() -> str:
    """A table of the exit codes."""
    rows = [f"| {code} | {meaning} |" for code, meaning in command_pages.EXITS.items()]
    return "\n".join(["| exit code | meaning |", "|---:|---|", *rows])


def own_pages() -> dict[str, str]:
    """{path: text} of the pages that are generated whole."""
    return {**{path: command_pages.markdown(name) for path, name in OWN_PAGES.items()},
            **{path: command_pages.man(name, COMMANDS) for path, name in MAN_PAGES.items()}}


def subcommands(title: str, module: str) -> str:
    """A table of a command's subcommands: the first line of each one's --help."""
    return table(title, {name: first_line(part.help) for name, part in import_module(module).main.commands.items()})


def first_line(text: str | None) -> str:
    return (text or "").strip().splitlines()[0]


def table(title: str, rows: dict[str, str]) -> str:
    """Names and what each does, in Markdown."""
    cells = {name: line.replace("|", "\\|") for name, line in rows.items()}
    lines = [f"| `{name}` | {cell} |" for name, cell in cells.items()]
    return "\n".join([f"| {title} | what it does |", "|---|---|", *lines])


# The page of each part, and what makes it.
PARTS: dict[str, tuple[str, Callable[[], str]]] = {
    "commands": ("README.md", commands),
    "exits": ("docs/conventions.md", exits),
    "fields": ("docs/records.md", fields.table),
    "sets": ("docs/commands.md", lambda: subcommands("al-data", "al_data")),
    "figures": ("docs/commands.md", lambda: subcommands("al-eval", "al_eval")),
}
PAGES = sorted({page for page, _ in PARTS.values()})


def fill(page: str, text: str) -> str:
    """The page's text with its generated parts as they should be. Raises ValueError where one is missing."""
    for name, (home, make) in PARTS.items():
        if home == page:
            before, opening, rest = text.partition(f"<!-- {name} -->\n")
            _, closing, after = rest.partition(f"<!-- /{name} -->")
            if not closing:
                raise ValueError(f"{page} has no part <!-- {name} -->")
            text = "".join([before, opening, make(), "\n", closing, after])
    return text


if __name__ == "__main__":
    for page in PAGES:
        path = ROOT / page
        path.write_text(fill(page, path.read_text()))
    for page, text in own_pages().items():
        path = ROOT / page
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
