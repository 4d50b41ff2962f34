"""Write the generated parts of README.md anew: `make docs`. A test fails where README.md is behind.

A part stands between `<!-- NAME -->` and `<!-- /NAME -->`; what is between is made here.
"""

import re
import tomllib
from importlib import import_module
from pathlib import Path

from alignlib.records import fields

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"


def commands() -> str:
    """A table of the commands: the first line of each one's docstring."""
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    rows = []
    for name, target in scripts.items():
        line = import_module(target.split(":")[0]).__doc__.strip().splitlines()[0]
        rows.append(f"| `{name}` | {line.removeprefix(f'{name}: ')} |")
    return "\n".join(["| command | what it does |", "|---|---|", *rows])


PARTS = {"fields": fields.table, "commands": commands}


def filled(text: str) -> str:
    """`text` with its generated parts as they should be. Raises ValueError where one is missing."""
    for name, make in PARTS.items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        if not pattern.search(text):
            raise ValueError(f"README.md has no part <!-- {name} -->")
        made = make()
        text = pattern.sub(lambda match, made=made: match[1] + made + "\n" + match[2], text)
    return text


if __name__ == "__main__":
    README.write_text(filled(README.read_text()))
