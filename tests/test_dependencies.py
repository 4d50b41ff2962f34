"""pyproject.toml declares what lib and tools import, and nothing else."""

import ast
import importlib.metadata
import re
import sys
import tomllib

from helpers.process import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
FILES = sorted([*(ROOT / "lib").rglob("*.py"), *(ROOT / "tools").rglob("*.py")])


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def declared() -> set[str]:
    """The distributions that the commands may need: the dependencies and the extras that are not for development."""
    extras = [line for extra, lines in PROJECT["optional-dependencies"].items() if extra != "dev" for line in lines]
    return {canonical(re.match(r"[\w.-]+", line)[0]) for line in [*PROJECT["dependencies"], *extras]}


def imported() -> dict[str, str]:
    """The distributions of the modules that are imported anywhere: {name: a file that does it}."""
    ours = {path.stem for folder in ("lib", "tools") for path in (ROOT / folder).iterdir()}
    distributions = importlib.metadata.packages_distributions()
    files: dict[str, str] = {}
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
            for top in {module.split(".")[0] for module in modules} - ours - sys.stdlib_module_names:
                files[canonical(distributions.get(top, [top])[0])] = str(path.relative_to(ROOT))
    return files


def test_what_is_imported_is_declared():
    assert len(FILES) > 50
    missing = {name: path for name, path in imported().items() if name not in declared()}
    assert not missing, "pyproject.toml, dependencies, lacks what these files import"


def test_what_is_declared_is_imported():
    unused = declared() - set(imported())
    assert not unused, "nothing in lib and tools imports these"
