"""The check and the words that follow from a schema; every field's own are in test_fields.py."""

import pytest

from alignlib.records import json_schema
from alignlib.records.fields import FIELDS, SURE
from alignlib.records.json_schema import array, check_for, in_words, sure_types


def fault(schema, value) -> str:
    with pytest.raises(ValueError) as caught:
        check_for(schema)(value, "x")
    return str(caught.value)


@pytest.mark.parametrize(("schema", "words"), [
    ({"type": "string"}, "string"),
    ({"type": ["boolean", "null"]}, "boolean / null"),
    ({"enum": [0, 1, None]}, "0 / 1 / null"),
    (array({"enum": ["stop", "length"]}), 'list of "stop" / "length"'),
    (array(array({"type": "integer"})), "list of lists of integers"),
    (array({"type": ["number", "null"]}, 1), "list of numbers / null"),
    (array({"type": "object", "properties": {"a": {}, "b": {}}}), "list of {a, b}"),
])
def test_a_schema_in_words(schema, words):
    assert in_words(schema) == words


def test_an_array_says_how_many_it_holds_at_least():
    assert array({"type": "string"}) == {"type": "array", "items": {"type": "string"}}
    assert array({"type": "string"}, 2)["minItems"] == 2
    check_for(array({"type": "string"}))([], "x")
    assert fault(array({"type": "string"}, 1), []) == "x: empty"


def test_a_number_has_bounds_that_are_its_own():
    share = {"type": "number", "minimum": 0, "maximum": 1}
    for value in (0, 1, 0.5):
        check_for(share)(value, "x")
    assert fault(share, 1.5) == "x: expected 0 to 1, got 1.5"
    assert fault(share, float("nan")) == "x: not finite"
    assert fault(share, True) == "x: expected a number, got a boolean"


def test_a_choice_is_of_its_own_type():
    verdict = {"enum": [0, 1, None]}
    for value in (0, 1, None):
        check_for(verdict)(value, "x")
    assert fault(verdict, 1.0) == "x: expected 0, 1 or null, got a number"
    assert fault({"enum": ["stop", "length"]}, None) == 'x: expected "stop" or "length", got null'


def test_the_place_of_a_fault_is_named_however_deep():
    chat = array({"type": "object", "required": ["role"], "properties": {"role": {"type": "string"}}})
    check_for(array(chat))([[], [{"role": "user", "name": 3}]], "x")
    assert fault(array(chat), [[], [{"role": "user"}, {"role": None}]]) == "x[1][1].role: expected a string, got null"
    assert fault(array(chat), [[{}]]) == "x[0][0].role: missing"


def test_types_that_need_no_look_change_no_verdict(monkeypatch):
    """Of every field: with and without the short way, the same values pass, and the same place is named."""
    ones = [None, True, 0, 1.5, -1, float("nan"), float("inf"), "", "stop", [], {}, {"role": "user", "content": "x"},
            {"role": 3}, {"text": None}]
    pairs = ([first, one] for first in ones for one in ones)
    values = [*ones, *([one] for one in ones), *([[one]] for one in ones), *pairs]
    quick = {name: check_for(field.schema) for name, field in FIELDS.items()}
    monkeypatch.setattr(json_schema, "sure_types", lambda schema: frozenset())
    passed = 0
    for name, field in FIELDS.items():
        slow = check_for(field.schema)
        for value in values:
            said = []
            for check in (quick[name], slow):
                try:
                    said.append(check(value, "x"))
                except ValueError as error:
                    said.append(str(error))
            assert said[0] == said[1], (name, value)
            passed += said[0] is None
            assert type(value) not in SURE[name] or said[0] is None
    assert passed > 200


def test_a_type_is_sure_only_where_all_its_values_fit():
    assert sure_types({"type": ["integer", "null"]}) == {int, type(None)}
    assert sure_types({"anyOf": [{"type": "string"}, array({"type": "string"})]}) == {str}
    for schema in ({"type": "number"}, array({"type": "string"}), {"enum": ["a"]},
                   {"type": "object", "required": [], "properties": {}}):
        assert sure_types(schema) == set()
