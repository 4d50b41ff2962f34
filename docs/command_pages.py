"""A command's page, as Markdown and for man, made of what the command itself says: its options, its help, its example.

What several subcommands take alike stands once, at the end of their page.
"""

import inspect
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path

import click

from alignlib.cli.exits import BAD_DATA, FAILED, INTERRUPTED, TERMINATED, USAGE, Command
from alignlib.cli.sections import LAST

EXAMPLES = Path(__file__).resolve().parent / "examples"  # NAME.txt, by examples.py
SHARED = 3  # subcommands that have an option in common, from which on it stands once
EXITS = {
    0: "done",
    FAILED: "failed while running; a full disk too",
    USAGE: "usage; also a folder that is not the model it should be, a file that another run is writing",
    BAD_DATA: "bad data",
    INTERRUPTED: "interrupted",
    TERMINATED: "terminated",
}

Entry = tuple[str, str]  # an option as it is written, and what it does


@dataclass(frozen=True)
class Page:
    """What there is to say of a command, or of a subcommand."""

    name: str  # "al-data toy"
    usage: str
    help: list[str]  # paragraphs; one that is indented is shown as it is
    sections: Mapping[str, list[Entry]]
    rules: list[str]  # which options go together
    parts: tuple["Page", ...] = ()

    def without(self, entries: Iterable[Entry]) -> "Page":
        """The same but for these options."""
        others = {title: [entry for entry in its if entry not in entries] for title, its in self.sections.items()}
        left = {title: its for title, its in others.items() if its}
        return replace(self, sections=left)


def page(name: str) -> Page:
    """The page of the command al-NAME."""
    command = import_module(module(name)).main
    return describe(command, click.Context(command, info_name=name, **command.context_settings))


def module(name: str) -> str:
    return name.replace("-", "_")


def describe(command: Command, context: click.Context) -> Page:
    subcommands = getattr(command, "commands", {})
    parts = tuple(describe(part, click.Context(part, info_name=name, parent=context, **part.context_settings))
                  for name, part in subcommands.items())
    sections = {title: [record(option, context) for option in options]
                for title, options in command.arranged(context).items()}
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    rules = [f"{rule}." for rule in command.rules]
    return Page(context.command_path, usage, paragraphs(command.help or ""), sections, rules, parts)


def record(option: click.Option, context: click.Context) -> Entry:
    """As --help has it, but for RANGE, which says nothing beside the range itself."""
    names, text = option.get_help_record(context) or ("", "")
    return names.replace(" RANGE", ""), " ".join(text.split())


def paragraphs(text: str) -> list[str]:
    """A docstring's, each on one line; those that click leaves as they are, behind a \\b, indented."""
    found = []
    for block in inspect.cleandoc(text).split("\n\n"):
        marker, lines = (block[:1], block[2:].splitlines()) if block.startswith("\b") else ("", block.splitlines())
        depth = min(len(line) - len(line.lstrip()) for line in lines)
        found.append("\n".join(f"    {line[depth:]}" for line in lines) if marker else " ".join(map(str.strip, lines)))
    return found


def shared(parts: Iterable[Page]) -> dict[str, list[Entry]]:
    """The options that several subcommands have, word for word, by section; those of --help and the like apart."""
    counts = Counter((title, entry) for part in parts for title, entries in part.sections.items() for entry in entries)
    sections: dict[str, list[Entry]] = {}
    for (title, entry), count in counts.items():
        if count >= SHARED:
            sections.setdefault(title, []).append(entry)
    return {title: sections[title] for title in sorted(sections, key=LAST.__eq__)}


def first_line(name: str) -> str:
    """What the command is for: the first line of its file."""
    return (import_module(module(name)).__doc__ or "").splitlines()[0].removeprefix(f"{name}: ")


def shape(name: str) -> str:
    """The lines of its file that show what goes in, what comes out, and a pipe."""
    _, _, lines = inspect.cleandoc(import_module(module(name)).__doc__ or "").partition("\n\n")
    kept = [line for block in lines.split("\n\n") if re.match(r"\s*(in:?\s|al-)", block)
            for line in inspect.cleandoc(block).splitlines()]
    return "\n".join(kept)


def example(name: str) -> str:
    """Commands and what they print; a test runs them."""
    return (EXAMPLES / f"{name}.txt").read_text().strip("\n")


# -- Markdown --------------------------------------------------------------------------------------------------


def indented(text: str) -> str:
    return "\n".join(f"    {line}".rstrip() for line in text.splitlines())


def markdown(name: str) -> str:
    whole = page(name)
    common = shared(whole.parts)
    blocks = [f"# {name}", first_line(name), indented(whole.usage), *whole.help,
              f"Records, and a pipe:\n\n{indented(shape(name))}",
              f"## Example\n\n{indented(example(name))}"]
    if not whole.parts:
        blocks += ["## Every option", *tables(whole.sections, "###")]
        blocks += ["### What goes together", "\n".join(f"- {rule}" for rule in whole.rules)] if whole.rules else []
    for part in whole.parts:
        rest = part.without([entry for entries in common.values() for entry in entries])
        takes = [title for title, entries in common.items() if any(e in part.sections.get(title, ()) for e in entries)]
        also = f"Also: {', '.join(listed(part, common, title) for title in takes if title != LAST)}."
        blocks += [f"## {part.name}", indented(part.usage), *part.help, *tables(rest.sections, ""),
                   *([also] if takes[0] != LAST else [])]
    if common:
        blocks += ["## Options that several have", *tables(common, "###")]
    blocks.append("What holds for all commands is in [conventions](../conventions.md), what else there is to say of "
                  f"this one in [commands](../commands.md#{name}).")
    return "\n\n".join(blocks) + "\n"


def listed(part: Page, common: Mapping[str, list[Entry]], title: str) -> str:
    """The names of a subcommand's options that stand elsewhere."""
    return ", ".join(f"`{short(names)}`" for names, text in common[title] if (names, text) in part.sections[title])


def short(names: str) -> str:
    """ "-o, --output FILE" -> "--output"."""
    return re.findall(r"--?[\w-]+", names)[-1 if " / " not in names else 0]


def tables(sections: Mapping[str, list[Entry]], heading: str) -> list[str]:
    """A table a section, under its title."""
    blocks = []
    for title, entries in sections.items():
        rows = [f"| `{cell(names)}` | {cell(text)} |" for names, text in entries]
        blocks += [f"{heading} {title}"] if heading else []
        blocks.append("\n".join([f"| {'option' if heading else title.lower()} | what it does |", "|---|---|", *rows]))
    return blocks


def cell(text: str) -> str:
    return text.replace("|", "\\|")


# -- man -------------------------------------------------------------------------------------------------------


def man(name: str, others: Iterable[str]) -> str:
    """The page in roff's man macros; `others`: the commands that it points to."""
    whole = page(name)
    common = shared(whole.parts)
    lines = [f'.TH {escaped(name.upper())} 1 "" "align tools" "align tools"', ".SH NAME",
             rf"{escaped(name)} \- {escaped(first_line(name).removesuffix('.'))}",
             ".SH SYNOPSIS", *usage(whole), ".SH DESCRIPTION", *prose(whole.help),
             ".SH RECORDS", *verbatim(shape(name))]
    if not whole.parts:
        lines += [".SH OPTIONS", *lists(whole.sections)]
        lines += [".SS What goes together", *prose(whole.rules)] if whole.rules else []
    else:
        lines.append(".SH COMMANDS")
    for part in whole.parts:
        rest = part.without([entry for entries in common.values() for entry in entries])
        lines += [f".SS {escaped(part.name)}", *usage(part), *prose(part.help), *lists(rest.sections, titled=False)]
    if common:
        lines += [".SH OPTIONS THAT SEVERAL HAVE", *lists(common)]
    lines += [".SH EXAMPLE", *verbatim(example(name)), ".SH EXIT STATUS"]
    for code, meaning in EXITS.items():
        lines += [".TP", f".B {code}", escaped(meaning)]
    others = sorted(set(others) - {name})
    lines += [".SH SEE ALSO", ",\n".join(rf".BR {escaped(other)} (1)" for other in others).replace("(1),", "(1) ,")]
    return "\n".join(lines) + "\n"


def escaped(text: str) -> str:
    """For roff: its backslash, its minus, no control line."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{text}" if text[:1] in (".", "'") else text


def usage(part: Page) -> list[str]:
    return [".PP", rf"\fB{escaped(part.name)}\fR{escaped(part.usage.removeprefix(part.name))}"]


def prose(blocks: Iterable[str]) -> list[str]:
    """Paragraphs."""
    lines = []
    for block in blocks:
        lines += verbatim(inspect.cleandoc(block)) if block.startswith(" ") else [".PP", escaped(block)]
    return lines


def verbatim(text: str) -> list[str]:
    return [".PP", ".RS 4", ".nf", *map(escaped, text.splitlines()), ".fi", ".RE"]


def lists(sections: Mapping[str, list[Entry]], titled: bool = True) -> list[str]:
    """The options, each with what it does beneath."""
    lines = []
    for title, entries in sections.items():
        lines += [f".SS {escaped(title)}"] if titled else []
        for names, text in entries:
            bold = re.sub(r"(?<![\w-])(--?[\w-]+)", lambda name: rf"\fB{escaped(name[0])}\fR", names)
            lines += [".TP", bold, escaped(text)]
    return lines
