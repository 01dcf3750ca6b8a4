"""Events as they are given and as they are sent."""

import uuid
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.v1.event_pb2 import Event as Message
from headgate.v1.event_pb2 import StoredEvent as StoredMessage
from headgate.v1.ingest_service_pb2 import BatchIngestRequest
from headgate_client import Event, InvalidEvent
from headgate_client.core.events import decoded, new_key, prepare
from headgate_client.core.requests import batch_request, stored_event


def message(event):
    return Message.FromString(prepare(event).encoded)


def test_an_event_gets_a_key_before_it_is_sent():
    keys = {prepare({"type": "t"}).key for _ in range(1000)}
    assert len(keys) == 1000
    assert {uuid.UUID(key).version for key in keys} == {7}
    assert {uuid.UUID(key).variant for key in keys} == {uuid.RFC_4122}
    one = prepare({"type": "t"})
    assert Message.FromString(one.encoded).idempotency_key == one.key


def test_a_new_key_carries_the_time():
    before = datetime.now(UTC) - timedelta(milliseconds=1)
    milliseconds = uuid.UUID(new_key()).int >> 80
    assert before <= datetime.fromtimestamp(milliseconds / 1000, UTC) <= datetime.now(UTC)


@pytest.mark.parametrize("name", ["key", "idempotency_key"])
def test_its_own_key_is_kept(name):
    assert prepare({"type": "t", name: "k"}).key == "k"


def test_all_fields_are_sent():
    sent = message(
        {
            "type": "t",
            "source": "s",
            "subject": "u",
            "occurred_at": datetime(2024, 1, 15, 12, 30, tzinfo=timezone(timedelta(hours=2))),
            "data": {"ä": [1, 2.5, None, True]},
            "key": "k",
        }
    )
    assert (sent.type, sent.source, sent.subject, sent.idempotency_key) == ("t", "s", "u", "k")
    assert sent.occurred_at.ToJsonString() == "2024-01-15T10:30:00Z"
    assert sent.data_json == '{"ä":[1,2.5,null,true]}'.encode()


def test_a_time_may_be_text_and_data_may_be_bytes():
    sent = message(Event(type="t", occurred_at="2024-01-15T10:30:00Z", data=b'{"n": 1.10}'))
    assert sent.occurred_at.ToJsonString() == "2024-01-15T10:30:00Z"
    assert sent.data_json == b'{"n": 1.10}'


def test_the_given_mapping_is_not_changed():
    given_event = {"type": "t", "idempotency_key": "k", "subject": None}
    prepare(given_event)
    assert given_event == {"type": "t", "idempotency_key": "k", "subject": None}


def _circle():
    circle = {}
    circle["self"] = circle
    return circle


@pytest.mark.parametrize(
    ("event", "said"),
    [
        ({}, "no type"),
        ({"type": None}, "no type"),
        ({"type": 1}, "cannot be sent"),
        ({"type": "t", "colour": "red"}, "'colour'"),
        ({"type": "t", "key": "a", "idempotency_key": "b"}, "both"),
        ({"type": "t", "key": 5}, "cannot be sent"),
        ({"type": "t", "data": [1]}, "data is a mapping"),
        ({"type": "t", "data": "{}"}, "data is a mapping"),
        ({"type": "t", "data": {"n": float("nan")}}, "not JSON compliant"),
        ({"type": "t", "data": {"s": {1}}}, "not JSON serializable"),
        ({"type": "t", "data": {"s": "\ud800"}}, "surrogates"),
        ({"type": "\ud800"}, "cannot be sent"),
        ({"type": "t", "data": _circle()}, "Circular|itself"),
        ({"type": "t", "occurred_at": datetime(2024, 1, 1)}, "time zone"),  # noqa: DTZ001
        ({"type": "t", "occurred_at": "yesterday"}, "cannot be sent"),
        ({"type": "t", "occurred_at": 5}, "a datetime or a text"),
        ("t", "mapping"),
        (None, "mapping"),
    ],
)
def test_what_cannot_be_sent_says_why_and_where(event, said):
    with pytest.raises(InvalidEvent, match=said) as raised:
        prepare(event, index=3)
    assert raised.value.index == 3
    assert "position 3" in str(raised.value)


def test_a_prepared_event_is_read_back():
    event = Event(type="t", source="s", subject="u", occurred_at="2024-01-15T10:30:00Z", data={"n": 1}, key="k")
    assert decoded(prepare(event).encoded) == event
    for text in (
        b"[not json",
        b'{"n": 0.1000000000000000055511}',
        b'{"n": 1, "n": 2}',
        b'{"n": ' + b"9" * 5_000 + b"}",
    ):
        odd = Event(type="t", data=text, key="k")
        assert decoded(prepare(odd).encoded) == odd, "sent again, it would be another event under the same key"


@given(st.lists(st.binary(max_size=300), max_size=20), st.booleans(), st.booleans())
def test_a_batch_is_written_as_protobuf_writes_it(payloads, atomic, validate_only):
    events = [prepare(Event(type="t", data=payload, key="k")).encoded for payload in payloads]
    written = batch_request(events, atomic=atomic, validate_only=validate_only)
    expected = BatchIngestRequest(events=map(Message.FromString, events), atomic=atomic, validate_only=validate_only)
    assert BatchIngestRequest.FromString(written) == expected


def test_an_integer_of_a_stored_event_may_have_any_length():
    number = 10**6_000 - 1
    stored = StoredMessage(data_json=b'{"n": -' + b"9" * 6_000 + b', "m": 5}')
    assert stored_event(stored).data == {"n": -number, "m": 5}


def test_numbers_of_a_stored_event_are_exact():
    stored = StoredMessage(data_json=b'{"a": 9007199254740993, "b": 0.1, "c": 0.1000000000000000055511, "d": 1e400}')
    data = stored_event(stored).data
    assert data["a"] == 9007199254740993
    assert isinstance(data["b"], float)
    assert str(data["c"]) == "0.1000000000000000055511"
    assert str(data["d"]) == "1E+400"
    stored = StoredMessage()
    stored.data.update({"n": 5, "x": 2.5, "list": [1, {"y": 2}]})
    data = stored_event(stored).data
    assert data == {"n": 5, "x": 2.5, "list": [1, {"y": 2}]}
    assert isinstance(data["n"], int)
    assert isinstance(data["list"][1]["y"], int)
    assert stored_event(StoredMessage()).data is None


def test_a_cloudevent_has_any_data_and_attributes():
    stored = stored_event(StoredMessage(data_json=b"[1]", attributes_json=b'{"traceparent": "00-ab"}'))
    assert (stored.data, stored.attributes) == ([1], {"traceparent": "00-ab"})
    assert stored_event(StoredMessage()).attributes == {}
