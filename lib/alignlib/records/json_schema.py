"""JSON Schema of a value, as far as our fields need it: the check that it stands for, and its words.

    >>> schema = array({"type": ["number", "null"]}, least=1)
    >>> in_words(schema)
    "list of numbers / null"
    >>> check_for(schema)([7, "8"], "scores")
    ValueError: scores[1]: expected a number, got a string
"""

from collections.abc import Callable
from math import isfinite
from typing import Any

import orjson

from alignlib.records.jsonl import kind

Schema = dict[str, Any]
Types = frozenset[type]
Check = Callable[[Any, str], None]  # (value, path): raises ValueError that names the path

PYTHON = {"string": (str,), "number": (float, int), "integer": (int,), "boolean": (bool,), "array": (list,),
          "object": (dict,)}  # exact types: True is no number
ARTICLES = {"array": "an array", "integer": "an integer", "object": "an object"}


def array(items: Schema, least: int = 0) -> Schema:
    """The schema of an array of at least so many items."""
    return {"type": "array", "items": items, **({"minItems": least} if least else {})}


def check_for(schema: Schema) -> Check:
    """The check of a value against `schema`: its type, its range or choices, and all that is in it."""
    if "enum" in schema:
        return _check_choice(schema["enum"])
    if "anyOf" in schema:
        return _check_any(schema["anyOf"])
    name, nullable = _type(schema)
    parts = [_check_type(name)]
    if name == "number":
        parts.append(_check_range(schema.get("minimum"), schema.get("maximum")))
    elif name == "array":
        parts.append(_check_items(schema["items"], schema.get("minItems", 0)))
    elif "properties" in schema:
        checks = {part: check_for(properties) for part, properties in schema["properties"].items()}
        parts.append(_check_properties(checks, schema["required"]))
    if len(parts) == 1 and not nullable:
        return parts[0]

    def check(value: Any, path: str) -> None:
        if value is None and nullable:
            return
        for part in parts:
            part(value, path)

    return check


def in_words(schema: Schema, plural: str = "") -> str:
    """The type for people: 'list of "stop" / "length"'; `plural`, "s", of many."""
    if "enum" in schema:
        return " / ".join(_json(choice) for choice in schema["enum"])
    if "anyOf" in schema:
        return " or ".join(in_words(one, plural) for one in schema["anyOf"])
    name, nullable = _type(schema)
    if name == "array":
        words = f"list{plural} of {in_words(schema['items'], 's')}"
    elif "properties" in schema:
        words = f"{{{', '.join(schema['properties'])}}}"
    else:
        words = name + plural
    return f"{words} / null" if nullable else words


def _type(schema: Schema) -> tuple[str, bool]:
    """The name of the type, of a schema without choices, and whether null may stand there too."""
    names = schema["type"]
    return (names, False) if isinstance(names, str) else (names[0], "null" in names)


def sure_types(schema: Schema) -> Types:
    """The types of which any value fits the schema, so that nothing else of it needs to be looked at."""
    if "enum" in schema:
        return frozenset()
    if "anyOf" in schema:
        return frozenset().union(*map(sure_types, schema["anyOf"]))
    name, nullable = _type(schema)
    whole = () if name in ("number", "array") or "properties" in schema else PYTHON[name]
    return frozenset(whole) | ({type(None)} if nullable else set())


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()


def _check_type(name: str) -> Check:
    expected, types = ARTICLES.get(name, f"a {name}"), PYTHON[name]

    def check(value: Any, path: str) -> None:
        if type(value) not in types:
            raise ValueError(f"{path}: expected {expected}, got {kind(value)}")

    return check


def _check_choice(choices: list[Any]) -> Check:
    *most, last = map(_json, choices)
    expected = f"{', '.join(most)} or {last}"
    types = {type(choice) for choice in choices} - {type(None)}

    def check(value: Any, path: str) -> None:
        if value is None and None in choices:
            return
        if type(value) not in types:
            raise ValueError(f"{path}: expected {expected}, got {kind(value)}")
        if value not in choices:
            raise ValueError(f"{path}: expected {expected}, got {value}")

    return check


def _check_any(schemas: list[Schema]) -> Check:
    """One of several schemas, told apart by their types; a list, the longer form of a value, is not asked for."""
    checks = [(PYTHON[_type(schema)[0]], check_for(schema)) for schema in schemas]
    names = [ARTICLES.get(name, f"a {name}") for name, _ in map(_type, schemas) if name != "array"]
    nullable = any(nullable for _, nullable in map(_type, schemas))
    sure = sure_types({"anyOf": schemas})

    def check(value: Any, path: str) -> None:
        if type(value) in sure:
            return None
        for types, check_one in checks:
            if type(value) in types:
                return check_one(value, path)
        if value is not None or not nullable:
            raise ValueError(f"{path}: expected {' or '.join(names)}, got {kind(value)}")

    return check


def _check_range(least: float | None, most: float | None) -> Check:
    """Both bounds, or none."""

    def check(value: Any, path: str) -> None:
        if not isfinite(value):
            raise ValueError(f"{path}: not finite")
        if least is not None and most is not None and not least <= value <= most:
            raise ValueError(f"{path}: expected {least} to {most}, got {value}")

    return check


def _check_items(schema: Schema, least: int) -> Check:
    check_item, sure = check_for(schema), sure_types(schema)
    numbers = frozenset(PYTHON["number"] if schema == {"type": "number"} else ())

    def check(value: Any, path: str) -> None:
        if len(value) < least:
            raise ValueError(f"{path}: empty")
        kinds = set(map(type, value))
        if kinds <= sure or kinds <= numbers and all(map(isfinite, value)):
            return
        try:
            for item in value:
                check_item(item, path)
        except ValueError:  # once more, to name the place: thousands of good items need no names
            for i, item in enumerate(value):
                check_item(item, f"{path}[{i}]")

    return check


def _check_properties(checks: dict[str, Check], required: list[str]) -> Check:
    def check(value: Any, path: str) -> None:
        for name, check_part in checks.items():
            if name in value:
                check_part(value[name], f"{path}.{name}")
            elif name in required:
                raise ValueError(f"{path}.{name}: missing")

    return check
