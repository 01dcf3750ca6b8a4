"""Data against a compiled schema: the first violation, in words without the data."""

from typing import Any

import orjson
import pytest

from headgate_server.core.errors import InvalidRequest
from headgate_server.core.reasons import Reason
from headgate_server.core.validator import Validator


def _compiled(schema: Any) -> Validator:
    return Validator(orjson.dumps(schema))


_LOW = "the value is less than the minimum of 3."


def _check(schema: Any, data: Any) -> tuple[str, str] | None:
    found = _compiled(schema).check(data if isinstance(data, bytes) else orjson.dumps(data))
    return None if found is None else tuple(found)


@pytest.mark.parametrize(
    ("schema", "data", "path", "message"),
    [
        ({"required": ["amount"]}, {}, "", '"amount" is a required property.'),
        ({"properties": {"n": {"type": "number"}}}, {"n": "SECRET"}, "n", 'the value is not of type "number".'),
        (
            {"properties": {"a": {"items": {"minimum": 3}}}},
            {"a": [4, 2]},
            "a.1",
            "the value is less than the minimum of 3.",
        ),
        ({"properties": {"s": {"pattern": "^a$"}}}, {"s": "SECRET"}, "s", 'the value does not match "^a$".'),
        ({"enum": [{"a": 1}]}, {"a": "SECRET"}, "", 'the value is not one of {"a":1}.'),
        (False, {}, "", "False schema does not allow the value."),
        ({"type": "integer"}, b"1.5", "", 'the value is not of type "integer".'),
    ],
)
def test_the_first_violation(schema: Any, data: Any, path: str, message: str) -> None:
    assert _check(schema, data) == (path, message)


@pytest.mark.parametrize(
    ("schema", "data"),
    [
        (True, {}),
        ({"format": "email"}, "no address"),
        ({"type": "integer"}, b"1"),
        ({"type": "integer"}, b"123456789012345678901234567890"),
        ({"type": "number"}, b"1" + b"0" * 400),
        ({"minimum": 0}, b"-0.0"),
        ({"properties": {"child": {"$ref": "#"}}}, {"child": {"child": {}}}),
        ({"$ref": "#"}, {}),
    ],
)
def test_data_that_matches(schema: Any, data: Any) -> None:
    assert _check(schema, data) is None


def test_a_number_beyond_a_double_keeps_its_sign() -> None:
    assert _check({"properties": {"n": {"maximum": 5}}}, b'{"n":-1%s}' % (b"0" * 400)) is None
    assert _check({"properties": {"n": {"maximum": 5}}}, b'{"n":1%s}' % (b"0" * 400)) is not None


def test_a_violation_is_short() -> None:
    found = _check({"additionalProperties": False}, {f"name {number}": 1 for number in range(10_000)})
    assert found is not None
    assert len(found[1]) <= 310
    deep: Any = "x"
    for _ in range(90):
        deep = {"a long name" * 20: deep}
    found = _check({"type": "object", "additionalProperties": {"$ref": "#"}}, deep)
    assert found is not None
    assert len(found[0]) <= 200


@pytest.mark.parametrize(
    ("schema", "field"),
    [
        ({"type": "objekt"}, "schema.type"),
        ({"properties": 5}, "schema.properties"),
        ({"properties": {"a": {"pattern": "("}}}, "schema.properties.a.pattern"),
        ({"pattern": "(?=lookahead)"}, "schema.pattern"),
        ({"pattern": r"(a)\1"}, "schema.pattern"),
        ({"pattern": "((a{0,1000}){0,1000}){0,1000}"}, "schema.pattern"),
        ({"patternProperties": {"(": True}}, "schema.patternProperties.("),
        ({"$ref": "#/nowhere"}, "schema"),
        ({"$ref": "http://127.0.0.1:1/x"}, "schema"),
        ({"required": "amount"}, "schema.required"),
        ({"minLength": -1}, "schema.minLength"),
    ],
)
def test_what_is_no_schema_is_refused(schema: Any, field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        _compiled(schema)
    assert caught.value.reason is Reason.INVALID_SCHEMA
    assert caught.value.field.startswith(field.rpartition(".(")[0])
    assert len(caught.value.message) < 500


def test_a_regular_expression_takes_time_in_proportion_to_the_text() -> None:
    """With backtracking this would take longer than the universe."""
    assert _check({"pattern": "^(a+)+$"}, "a" * 50_000 + "!") is not None
