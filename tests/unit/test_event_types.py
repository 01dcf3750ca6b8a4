"""Names, modes and schemas of event types as clients send them."""

from typing import Any

import pytest

from headgate_server.core import event_types, jsonbody
from headgate_server.core.errors import InvalidRequest


def _refusal(read: Any, value: Any) -> tuple[str, str]:
    with pytest.raises(InvalidRequest) as caught:
        read(value)
    return caught.value.reason, caught.value.field


def test_a_schema_is_kept_in_canonical_form_with_every_digit() -> None:
    sent = b' { "minimum" : 1.50, "maximum": 12345678901234567890.10, "$ref": "#" } '
    kept = b'{"$ref":"#","maximum":12345678901234567890.1,"minimum":1.5}'
    assert event_types.schema_of(jsonbody.read_one(sent)) == kept


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "MISSING_FIELD"),
        ("text", "WRONG_TYPE"),
        ([], "WRONG_TYPE"),
        (5, "WRONG_TYPE"),
        (True, "WRONG_TYPE"),
        ({"description": "x" * 65_536}, "TOO_LONG"),
        ({"description": "é" * 32_768}, "TOO_LONG"),
        ({"description": "\ud800"}, "INVALID_UNICODE"),
        (jsonbody.read_one(b'{"a": 1, "a": 2}'), "DUPLICATE_FIELD"),
        (jsonbody.read_one(b'{"not":' * 101 + b"1" + b"}" * 101), "NESTING_TOO_DEEP"),
    ],
)
def test_a_schema_that_is_refused(value: Any, reason: str) -> None:
    assert _refusal(event_types.schema_of, value) == (reason, "schema")


def test_the_largest_schema_is_accepted() -> None:
    most = event_types.MOST_BYTES
    assert len(event_types.schema_of({"description": "x" * (most - len('{"description":""}'))})) == most


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("", "MISSING_FIELD"),
        (None, "MISSING_FIELD"),
        ("x" * 256, "TOO_LONG"),
        ("a\0b", "INVALID_CHARACTER"),
        ("\ud800", "INVALID_UNICODE"),
        (5, "WRONG_TYPE"),
    ],
)
def test_a_name_that_is_refused(value: Any, reason: str) -> None:
    assert _refusal(event_types.type_of, value) == (reason, "event_type")


def test_a_name_is_what_an_events_type_may_be() -> None:
    for name in ("order.completed", "a/b c", "Bestellung größer", ".", "x" * 255, "%2F"):
        assert event_types.type_of(name) == name


def test_modes_and_settings() -> None:
    assert [event_types.mode_of(value) for value in (None, "", "strict", "permissive")] == [
        *("strict", "strict", "strict", "permissive")
    ]
    assert [event_types.unknown_of(value) for value in ("accept", "warn", "reject")] == ["accept", "warn", "reject"]
    for value in ("STRICT", 5, True, [], {}):
        assert _refusal(event_types.mode_of, value) == ("INVALID_FIELD", "mode")
        assert _refusal(event_types.unknown_of, value) == ("INVALID_FIELD", "unknown_event_types")
    assert _refusal(event_types.unknown_of, None) == ("MISSING_FIELD", "unknown_event_types")
