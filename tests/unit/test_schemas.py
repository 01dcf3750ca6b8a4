"""What is accepted as a schema of a caller, before it is compiled, and the work that it can make."""

import contextlib
from typing import Any

import pytest

from headgate_server.core.errors import InvalidRequest
from headgate_server.core.reasons import Reason
from headgate_server.core.schemas import DIALECT, examine

ORDER = {
    "type": "object",
    "required": ["amount"],
    "properties": {
        "amount": {"type": "number", "minimum": 0},
        "currency": {"enum": ["EUR", "USD"]},
        "code": {"pattern": "^[A-Z]{3}-[0-9]{1,8}$"},
        "items": {"type": "array", "items": {"$ref": "#/$defs/item"}},
    },
    "$defs": {"item": {"type": "object", "properties": {"sku": {"type": "string"}}}},
}


@pytest.mark.parametrize(
    ("schema", "field"),
    [
        ({"$ref": "http://example.com/schema.json"}, "schema.$ref"),
        ({"$ref": "//example.com/schema.json"}, "schema.$ref"),
        ({"properties": {"a": {"$ref": "file:///etc/passwd"}}}, "schema.properties.a.$ref"),
        ({"items": {"anyOf": [True, {"$ref": "other.json#/a"}]}}, "schema.items.anyOf.1.$ref"),
        ({"$ref": DIALECT}, "schema.$ref"),
        ({"$dynamicRef": "https://example.com/x#node"}, "schema.$dynamicRef"),
        ({"$defs": {"unused": {"$ref": "urn:x:y"}}}, "schema.$defs.unused.$ref"),
        ({"$id": "https://example.com/a", "$ref": "b"}, "schema.$ref"),
        ({"$ref": "http://[bad"}, "schema.$ref"),
        ({"$id": "https://example.com/a", "items": {"$ref": "http://[bad"}}, "schema.items.$ref"),
        ({"$schema": "http://json-schema.org/draft-07/schema#"}, "schema.$schema"),
        ({"$schema": 5}, "schema.$schema"),
        ({"not": {"$schema": "https://example.com/mine"}}, "schema.not.$schema"),
    ],
)
def test_a_reference_to_outside_and_another_dialect_are_refused(schema: Any, field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        examine(schema)
    assert (caught.value.reason, caught.value.field) == (Reason.INVALID_SCHEMA, field)


@pytest.mark.parametrize(
    "schema",
    [
        True,
        {"$schema": DIALECT, "$ref": "#/$defs/a", "$defs": {"a": True}},
        {"$ref": "#a", "$defs": {"a": {"$anchor": "a"}}},
        {"$id": "https://example.com/a", "$ref": "https://example.com/a#/$defs/b", "$defs": {"b": True}},
        {"$id": "https://example.com/a", "$ref": "b", "$defs": {"b": {"$id": "b"}}},
        {"properties": {"$ref": {"type": "string"}}},
        {"const": {"$ref": "http://example.com"}},
        {"enum": [{"$schema": "other"}]},
        {"x-remark": {"$ref": "http://example.com"}},
    ],
)
def test_a_reference_to_itself_and_data_that_look_like_one_are_accepted(schema: Any) -> None:
    examine(schema)


def _doubling(depth: int) -> dict[str, Any]:
    """Return a schema of few bytes that applies 2^depth schemas."""
    definitions: dict[str, Any] = {
        f"a{level}": {"allOf": [{"$ref": f"#/$defs/a{level + 1}"}] * 2} for level in range(depth)
    }
    return {"$ref": "#/$defs/a0", "$defs": definitions | {f"a{depth}": {"type": "object"}}}


def test_an_ordinary_schema_makes_little_work() -> None:
    steps = examine(ORDER).steps
    assert steps is not None
    assert steps < 30


@pytest.mark.parametrize(
    ("small", "large"),
    [
        (_doubling(2), _doubling(6)),
        ({"enum": ["a"] * 9}, {"enum": [{"a": 1}] * 9}),
        ({"const": 1}, {"const": list(range(100))}),
        ({"type": "array"}, {"uniqueItems": True}),
        ({"required": ["a"]}, {"required": [str(number) for number in range(100)]}),
        ({"pattern": "^a+$"}, {"pattern": "[ab]*a[ab]{500}c"}),
        ({"pattern": "(a{2}){2}"}, {"pattern": "(a{9}){9}(b{9}){9}"}),
        ({"patternProperties": {"a": True}}, {"patternProperties": {"a" * 1_000: True}}),
        ({"items": {"type": "string"}}, {"items": {"enum": [{}] * 50}}),
    ],
)
def test_more_work_is_counted_as_more(small: Any, large: Any) -> None:
    less, more = examine(small).steps, examine(large).steps
    assert less is not None
    assert more is not None
    assert less < more


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"properties": {"child": {"$ref": "#"}}},
        {"$ref": "#/$defs/a", "$defs": {"a": {"items": {"$ref": "#/$defs/b"}}, "b": {"items": {"$ref": "#/$defs/a"}}}},
        {"$dynamicAnchor": "node", "items": {"$dynamicRef": "#node"}},
        {"unevaluatedProperties": False},
        {"items": {"unevaluatedItems": False}},
        {"$ref": "b", "$id": "https://example.com/a", "$defs": {"b": {"$id": "b"}}},
        {"$ref": "#/$defs/a%20b", "$defs": {"a b": True}},
        {"pattern": "a{2000}"},
        {"pattern": r"\p{L}+"},
        _doubling(12),
        _doubling(60),
    ],
)
def test_work_that_cannot_be_bounded_is_said_to_be_unbounded(schema: Any) -> None:
    assert examine(schema).steps is None


_WORDS = ("allOf", "properties", "items", "$ref", "enum", "required", "pattern", "$id", "const", "$schema")


@pytest.mark.parametrize("word", _WORDS)
@pytest.mark.parametrize("value", [None, 5, "x", [], [5, None], {}, {"a": 5}, True])
def test_what_is_no_schema_is_examined_without_another_error(word: str, value: Any) -> None:
    """The compiler refuses it afterwards."""
    with contextlib.suppress(InvalidRequest):
        examine({word: value, "not": {word: value}})
