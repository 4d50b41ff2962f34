"""The rule of the house, read from the imports: a command owns its room, the library is small, arrows only go down.

An import counts wherever it stands: in a function's body, and under TYPE_CHECKING too. The checks are functions of
{module: the modules of the house that it imports}, or of {path: text}. They yield a line for each thing that breaks the
rule, which names it and says what to do.
"""

import ast
import re
from collections.abc import Iterator
from importlib.util import resolve_name
from pathlib import PurePath

from helpers.process import ROOT

# The library's rooms: each imports only from itself and from the floors that stand below its own in this list.
FLOORS = (
    {"training", "decoding", "rewards"},
    {"models", "cli", "server"},
    {"records", "toy", "ranks", "hub", "model_names"},
    {"alignlib", "waits"},  # the package itself, which has the version
)
FILE_LINES, FUNCTION_LINES, LIBRARY_LINES = 320, 60, 13_410
SHORT_NAMES = {"numpy": "np"}  # what everybody calls it
# What a call must say so that no code of a folder is run, by the last of its function's name, and whose need not.
SAYS = {name: "trust_remote_code=False" for name in ("from_pretrained", "from_config", "AsyncEngineArgs", "pipeline")}
SAYS |= {"torch.load": "weights_only=True"}
KNOW_NO_CODE = {"PeftModel", "PeftConfig", "GenerationConfig"}  # they take no such argument

Imports = dict[str, set[str]]
Texts = dict[str, str]


# -- reading ---------------------------------------------------------------------------------------------------


def module_name(path: str) -> str:
    """lib/alignlib/models/load.py is alignlib.models.load, tools/al_eval/__init__.py is al_eval."""
    return ".".join(PurePath(path).with_suffix("").parts[1:]).removesuffix(".__init__")


def import_statements(path: str, text: str) -> Iterator[tuple[str, str | None]]:
    """Each imported name in full, the last part of it a module or what a module has, and its other name, if any."""
    package = module_name(path) if path.endswith("__init__.py") else module_name(path).rpartition(".")[0]
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, alias.asname) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = resolve_name("." * node.level + (node.module or ""), package)
            yield from ((f"{origin}.{alias.name}", alias.asname) for alias in node.names)


def read_imports(texts: Texts) -> Imports:
    """Which modules of the house each of its modules imports; `from package import module` imports the module."""
    modules = {module_name(path) for path in texts}
    return {module_name(path): {name if name in modules else name.rpartition(".")[0]
                                for name, _ in import_statements(path, text)} & modules
            for path, text in texts.items()}


def read_texts(*folders: str) -> Texts:
    paths = sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))
    return {path.relative_to(ROOT).as_posix(): path.read_text() for path in paths}


# -- the checks ------------------------------------------------------------------------------------------------


def command_name(module: str) -> str | None:
    """The command whose file this is; a file of the library has none."""
    top = module.split(".")[0]
    return None if top == "alignlib" else top


def reach(imports: Imports, start: str) -> dict[str, str]:
    """{module that `start` reaches: the one that imports it}, nearest first; `start` itself is there in a circle."""
    importers: dict[str, str] = {}
    queue = [start]
    for module in queue:  # which grows
        for other in sorted(imports[module] - set(importers)):
            importers[other] = module
            queue.append(other)
    return importers


def circles(imports: Imports) -> Iterator[str]:
    seen: set[frozenset[str]] = set()
    for start in imports:
        importers = reach(imports, start)
        if start in importers:
            circle = [start, importers[start]]
            while circle[-1] != start:
                circle.append(importers[circle[-1]])
            if frozenset(circle) not in seen:
                seen.add(frozenset(circle))
                yield f"{' -> '.join(reversed(circle))}: a circle; move what they share into a file below them"


def strangers(imports: Imports) -> Iterator[str]:
    for module, others in imports.items():
        for other in sorted(others):
            if (owner := command_name(other)) and owner != command_name(module):
                yield f"{module} imports {other}, which is {owner}'s own; move what it needs to lib/alignlib/"


def unshared(imports: Imports) -> Iterator[str]:
    users: dict[str, set[str]] = {module: set() for module in imports}
    for module in imports:
        if command := command_name(module):
            for other in reach(imports, module):
                users[other].add(command)
    packages = {module.rpartition(".")[0] for module in imports}  # each is reached with its modules
    for module, commands in users.items():
        if command_name(module) is None and module not in packages and len(commands) < 2:
            yield (f"{module} serves {min(commands)} only; move it to tools/{min(commands)}/" if commands else
                   f"{module} serves no command; delete it")


def room_name(module: str) -> str:
    """alignlib.models.load is in the room models, alignlib.ranks is one itself; so is the package, for its version."""
    return module.split(".")[1] if "." in module else module


def climbs(imports: Imports) -> Iterator[str]:
    floors = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
    library = {module for module in imports if command_name(module) is None}
    for module in sorted(library):
        if room_name(module) not in floors:
            yield f"{module} is in no room of FLOORS; give its room a floor there and in ARCHITECTURE.md"
            continue
        floor = floors[room_name(module)]
        for other in sorted(imports[module] & library):
            other_floor = floors.get(room_name(other), len(FLOORS))
            if room_name(other) != room_name(module) and other_floor <= floor:
                where = "beside" if other_floor == floor else "above"
                yield f"{module} imports {other}, from a room {where} its own; move what both need to a room below"


def renamed_modules(texts: Texts) -> Iterator[str]:
    modules = {module_name(path) for path in texts}
    for path, text in texts.items():
        statements = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Import)]
        known = modules | {alias.name for node in statements for alias in node.names}
        for name, other in import_statements(path, text):
            if other and name in known and SHORT_NAMES.get(name) != other:
                yield f"{path} imports {name} as {other}; call it by its own name, or import what it has by name"


def long_files(texts: Texts) -> Iterator[str]:
    for path, text in texts.items():
        if (lines := len(text.splitlines())) > FILE_LINES:
            yield f"{path} has {lines} lines, over {FILE_LINES}; give one of its subjects a file of its own"


def long_functions(texts: Texts) -> Iterator[str]:
    """A function's lines go from its def to its end; decorators, which are a command's options, do not count."""
    for path, text in texts.items():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                if (lines := node.end_lineno - node.lineno + 1) > FUNCTION_LINES:
                    yield f"{path}:{node.lineno}: {node.name} has {lines} lines, over {FUNCTION_LINES}; name its parts"


def has_functions(text: str) -> bool:
    return any(isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) for node in ast.walk(ast.parse(text)))


def mirror(path: str) -> str:
    """tests/ mirrors the rooms; the test of a folder's __init__.py has the folder's name."""
    source = PurePath(*PurePath(path).parts[1:])
    name = source.parent.name if source.stem == "__init__" else source.stem
    return str(PurePath("tests", source.parent, f"test_{name}.py"))


def untested_files(texts: Texts, tests: Texts) -> Iterator[str]:
    for path, text in texts.items():
        name = PurePath(path).name
        if name == "__main__.py" or (name == "__init__.py" and not has_functions(text)):
            continue
        if not re.search(r"^def test_", tests.get(mirror(path), ""), re.MULTILINE):
            yield f"{path} has no test of its own; write it in {mirror(path)}"


def borrowing_tests(tests: Texts) -> Iterator[str]:
    for path, text in tests.items():
        for name, _ in import_statements(path, text):
            if any(part.startswith("test_") for part in name.split(".")):
                yield f"{path} imports {name}, a test; move what they share to tests/helpers/"


def trusting_loads(texts: Texts) -> Iterator[str]:
    """Loads that would run a folder's code, or ask whether to; those by another name (load = x.from_pretrained) too."""
    for path, text in texts.items():
        nodes = list(ast.walk(ast.parse(text)))
        calls = {id(node.func): node for node in nodes if isinstance(node, ast.Call)}
        for node in nodes:
            if not isinstance(node, ast.Attribute | ast.Name):
                continue
            parts = ast.unparse(node).split(".")
            must = SAYS.get(".".join(parts[-2:])) or SAYS.get(parts[-1])
            if not must or len(parts) > 1 and parts[-2] in KNOW_NO_CODE:
                continue
            call = calls.get(id(node))
            if not call or must not in {f"{word.arg}={ast.unparse(word.value)}" for word in call.keywords}:
                yield f"{path}:{node.lineno}: {ast.unparse(node)} does not say {must}"


def taken_names(texts: Texts) -> Iterator[str]:
    """A constant that has another's name replaces it everywhere, also where the other was meant."""
    for path, text in texts.items():
        seen = set[str]()
        for node in ast.parse(text).body:
            for target in node.targets if isinstance(node, ast.Assign) else ():
                for name in (part.id for part in ast.walk(target)
                             if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store)):
                    if name in seen:
                        yield f"{path}:{node.lineno}: {name} is there already; give one of the two another name"
                    seen.add(name)
