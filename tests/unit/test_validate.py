"""An event's fields become a draft, or one problem."""

from typing import Any

import pytest

from headgate_server.core import canonical, jsonbody, ledger, validate
from headgate_server.core.model import NATIVE, Draft, Problem


def slot_of(event: Any) -> Draft | Problem:
    return validate.native_json(event)


def accepted(event: Any) -> Draft:
    draft = slot_of(event)
    assert isinstance(draft, Draft), draft
    return draft


FULL = {
    "type": "order.completed",
    "source": "shop",
    "subject": "user_abc123",
    "occurred_at": "2024-01-15T10:30:00.5Z",
    "data": {"amount": 49.99, "a": 1.0},
    "idempotency_key": "order-12345",
}


def test_a_full_event_becomes_a_draft_of_what_was_sent() -> None:
    draft = accepted(FULL)
    assert (draft.receiver, draft.type, draft.source, draft.subject) == (
        NATIVE,
        "order.completed",
        "shop",
        "user_abc123",
    )
    assert draft.occurred_at == 1_705_314_600_500_000
    assert draft.data == b'{"a":1,"amount":49.99}'
    assert (draft.scope, draft.key) == ("shop", "order-12345")
    assert draft.identity == ledger.identity("native", "shop", "order-12345")
    assert draft.dedupe == draft.identity[:16]
    assert draft.canonical == canonical.content(draft.type, draft.source, draft.subject, draft.occurred_at, draft.data)
    assert draft.commitment == ledger.commitment(draft.salt, draft.canonical)
    assert draft.warnings == ()


def test_only_type_is_required_and_what_is_absent_stays_absent() -> None:
    for event in ({"type": "t"}, dict.fromkeys(FULL) | {"type": "t"}, {"type": "t", "source": "", "subject": ""}):
        draft = accepted(event)
        assert (draft.source, draft.subject, draft.occurred_at, draft.data) == ("", "", None, None)
        assert (draft.scope, draft.key, draft.identity, draft.dedupe) == (None, None, b"", None)
        assert draft.canonical == b'{"type":"t"}'


def test_every_draft_has_a_salt_of_its_own() -> None:
    one, other = accepted(FULL), accepted(FULL)
    assert len(one.salt) == 16
    assert one.salt != other.salt
    assert one.commitment != other.commitment
    assert (one.canonical, one.identity) == (other.canonical, other.identity)


def test_a_key_without_a_source_lives_in_the_empty_scope() -> None:
    assert accepted({"type": "t", "idempotency_key": "k"}).scope == ""


def test_the_key_is_not_part_of_the_content() -> None:
    assert accepted(FULL).canonical == accepted(FULL | {"idempotency_key": "other"}).canonical


@pytest.mark.parametrize(
    ("event", "reason", "field"),
    [
        ({}, "MISSING_FIELD", "type"),
        ({"type": None}, "MISSING_FIELD", "type"),
        ({"type": ""}, "MISSING_FIELD", "type"),
        ({"type": 5}, "WRONG_TYPE", "type"),
        ({"type": ["t"]}, "WRONG_TYPE", "type"),
        ({"type": True}, "WRONG_TYPE", "type"),
        ({"type": canonical.Number("1e+400")}, "WRONG_TYPE", "type"),
        ({"type": "t" * 256}, "TOO_LONG", "type"),
        ({"type": "t\0"}, "INVALID_CHARACTER", "type"),
        ({"type": "\ud800"}, "INVALID_UNICODE", "type"),
        ({"type": "t", "source": 5}, "WRONG_TYPE", "source"),
        ({"type": "t", "source": "s" * 256}, "TOO_LONG", "source"),
        ({"type": "t", "source": "\0"}, "INVALID_CHARACTER", "source"),
        ({"type": "t", "subject": {}}, "WRONG_TYPE", "subject"),
        ({"type": "t", "subject": "é" * 256}, "TOO_LONG", "subject"),
        ({"type": "t", "subject": "\udc00"}, "INVALID_UNICODE", "subject"),
        ({"type": "t", "idempotency_key": ""}, "EMPTY_FIELD", "idempotency_key"),
        ({"type": "t", "idempotency_key": 5}, "WRONG_TYPE", "idempotency_key"),
        ({"type": "t", "idempotency_key": "k" * 256}, "TOO_LONG", "idempotency_key"),
        ({"type": "t", "idempotency_key": "é\0"}, "INVALID_CHARACTER", "idempotency_key"),
        ({"type": "t", "occurred_at": 5}, "WRONG_TYPE", "occurred_at"),
        ({"type": "t", "occurred_at": "yesterday"}, "INVALID_TIMESTAMP", "occurred_at"),
        ({"type": "t", "occurred_at": ""}, "INVALID_TIMESTAMP", "occurred_at"),
        ({"type": "t", "data": []}, "WRONG_TYPE", "data"),
        ({"type": "t", "data": "{}"}, "WRONG_TYPE", "data"),
        ({"type": "t", "data": False}, "WRONG_TYPE", "data"),
        ({"type": "t", "data": {"a": "\ud800"}}, "INVALID_UNICODE", "data"),
        ({"type": "t", "data": {"a": float("nan")}}, "INVALID_NUMBER", "data"),
        ({"type": "t", "data_json": "{}"}, "UNKNOWN_FIELD", "data_json"),
        ({"type": "t", "dataJson": "{}"}, "UNKNOWN_FIELD", "dataJson"),
        ({"type": "t", "occurredAt": None, "occurred_at": None}, "DUPLICATE_FIELD", "occurred_at"),
        (5, "WRONG_TYPE", ""),
        (None, "WRONG_TYPE", ""),
        ([], "WRONG_TYPE", ""),
        ("t", "WRONG_TYPE", ""),
        (True, "WRONG_TYPE", ""),
    ],
)
def test_each_reason_for_which_an_event_is_rejected(event: Any, reason: str, field: str) -> None:
    problem = slot_of(event)
    assert isinstance(problem, Problem)
    assert (problem.reason, problem.field) == (reason, field)
    assert problem.message.endswith("."), problem.message
    assert not problem.retryable


def test_the_message_names_the_type_that_was_sent() -> None:
    values: list[Any] = [5, None, [], "t", True]
    messages = [slot_of(value)[2] for value in values]
    assert messages == [
        f"An event must be a JSON object, not {name}."
        for name in ("a number", "null", "a list", "a string", "a boolean")
    ]


def test_255_characters_are_counted_as_characters() -> None:
    longest = "\U0001f600" * 255
    draft = accepted({"type": longest, "source": longest, "subject": longest, "idempotency_key": longest})
    assert (draft.type, draft.source, draft.subject, draft.key) == (longest,) * 4


def test_nul_is_welcome_inside_of_data() -> None:
    assert accepted({"type": "t", "data": {"\0": "\0"}}).data == b'{"\\u0000":"\\u0000"}'


def test_the_other_spelling_of_protojson_is_read() -> None:
    draft = accepted({"type": "t", "occurredAt": "2024-01-15T10:30:00Z", "idempotencyKey": "k"})
    assert (draft.occurred_at, draft.key, draft.warnings) == (1_705_314_600_000_000, "k", ())


def test_a_time_finer_than_a_microsecond_is_cut_off_with_a_warning() -> None:
    draft = accepted({"type": "t", "occurred_at": "2024-01-15T10:30:00.1234567Z"})
    assert draft.occurred_at == 1_705_314_600_123_456
    assert draft.warnings == (validate.FINER_THAN_MICROSECONDS,)


def test_an_unknown_field_is_a_warning_and_no_content() -> None:
    draft = accepted({"type": "t", "colour": 1})
    assert draft.warnings == ('The field "colour" is not known and was ignored.',)
    assert draft.canonical == b'{"type":"t"}'


def test_warnings_are_bounded_in_number_and_length_and_are_unicode() -> None:
    draft = accepted({"type": "t", "\ud800" + "x" * 1_000_000: 1} | {f"f{n}": n for n in range(1000)})
    assert len(draft.warnings) == 11
    assert draft.warnings[-1] == "991 more fields are not known and were ignored."
    assert all(len(warning.encode()) < 150 for warning in draft.warnings)


def test_a_problem_found_in_reading_stays_what_it_is() -> None:
    (item,) = jsonbody.read_batch(b'{"events":[{"type":"a","type":"b"}]}').items
    assert slot_of(item) is item
