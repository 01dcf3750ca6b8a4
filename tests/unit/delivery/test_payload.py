"""The body of a webhook, in each format."""

from uuid import UUID

import orjson
import pytest

from headgate_server.delivery.payload import Format, Payload, payload
from tests.support.delivering import stored

FULL = stored(
    7, {"total": 12, "text": "größer"}, key="k-1", type="order.placed", source="shop", subject="o-1", occurred_at=0
)
BARE = stored(8, source="")


def _payload(*events: object, form: Format = Format.STANDARD, several: bool = False) -> Payload:
    return payload(events, form, several=several, render=lambda event: b'{"sequence":%d}' % event.sequence)  # type: ignore[arg-type]


def test_a_standard_body_has_the_type_the_time_and_the_event_as_it_is_read() -> None:
    assert _payload(FULL) == (
        "application/json",
        b'{"type":"order.placed","timestamp":"1970-01-01T00:00:00Z","data":{"sequence":7}}',
    )


def test_without_a_time_of_its_own_an_event_has_the_time_when_it_was_stored() -> None:
    assert orjson.loads(_payload(BARE).body)["timestamp"] == "2026-11-30T06:00:00.123464Z"


def test_several_standard_bodies_are_a_list_in_an_object_also_a_single_one() -> None:
    body = orjson.loads(_payload(FULL, BARE, several=True).body)
    assert [one["data"]["sequence"] for one in body["events"]] == [7, 8]
    assert orjson.loads(_payload(FULL, several=True).body) == {"events": [orjson.loads(_payload(FULL).body)]}


def test_a_cloudevent_has_the_event_in_cloudevents_attributes() -> None:
    content_type, body = _payload(FULL, form=Format.CLOUDEVENTS)
    assert content_type == "application/cloudevents+json"
    assert orjson.loads(body) == {
        "specversion": "1.0",
        "id": str(UUID(bytes=FULL.id)),
        "source": "shop",
        "type": "order.placed",
        "subject": "o-1",
        "time": "1970-01-01T00:00:00Z",
        "recordedtime": "2026-11-30T06:00:00.123463Z",
        "sequence": "00000000000000000007",
        "receiver": "native",
        "idempotencykey": "k-1",
        "eventhash": "01" * 32,
        "datacontenttype": "application/json",
        "data": {"total": 12, "text": "größer"},
    }


def test_a_cloudevent_leaves_out_missing_fields() -> None:
    body = orjson.loads(_payload(BARE, form=Format.CLOUDEVENTS).body)
    assert not body.keys() & {"subject", "idempotencykey", "datacontenttype", "data"}
    assert body["source"] == "/receivers/native"


@pytest.mark.parametrize(
    ("source", "written"),
    [
        ("https://shop.example/a?b=c#d", "https://shop.example/a?b=c#d"),
        ("urn:shop:1", "urn:shop:1"),
        ("my shop", "my%20shop"),
        ("größe", "gr%C3%B6%C3%9Fe"),
        ("100%", "100%25"),
        ("a%20b", "a%20b"),
        ('"<>\\^`{|}', "%22%3C%3E%5C%5E%60%7B%7C%7D"),
    ],
)
def test_the_source_of_a_cloudevent_is_a_uri_reference(source: str, written: str) -> None:
    assert orjson.loads(_payload(stored(source=source), form=Format.CLOUDEVENTS).body)["source"] == written


def test_several_cloudevents_are_a_list() -> None:
    content_type, body = _payload(FULL, BARE, form=Format.CLOUDEVENTS, several=True)
    assert content_type == "application/cloudevents-batch+json"
    assert [cloud["sequence"][-1] for cloud in orjson.loads(body)] == ["7", "8"]


def test_numbers_stay_as_they_were_stored() -> None:
    event = stored()._replace(data=b'{"n":12345678901234567890123}')
    assert b"12345678901234567890123" in _payload(event, form=Format.CLOUDEVENTS).body
