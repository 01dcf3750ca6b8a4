"""Twenty shapes of events that services really send, each as gRPC and as JSON."""

import json
from typing import Any, NamedTuple

from google.protobuf import json_format
from google.protobuf.timestamp_pb2 import Timestamp

from headgate.v1.event_pb2 import Event

_ORDER = {
    "order_id": "ord_81723",
    "amount": 49.99,
    "currency": "EUR",
    "items": [{"sku": "A-1", "quantity": 2, "price": 20.0}, {"sku": "B-7", "quantity": 1, "price": 9.99}],
    "customer": {"id": 4711, "email": "ada@example.com", "is_new": False},
    "coupon": None,
}
_TIME = "2026-11-30T12:25:09Z"


class Shape(NamedTuple):
    """An event: its members, as JSON has them, and how its payload is sent over gRPC."""

    name: str
    members: dict[str, Any]
    payload: str = "data_json"
    """The field of the payload over gRPC."""
    text: str | None = None
    """The JSON text of the payload, if `json.dumps` does not write it so."""


SHAPES = (
    Shape("an order", {"type": "order.completed", "source": "shop", "idempotency_key": "ord_81723", "data": _ORDER}),
    Shape("an order as a Struct", {"type": "order.completed", "source": "shop", "data": _ORDER}, "data"),
    Shape("a page view", {"type": "page.viewed", "source": "web", "subject": "u_1", "data": {"path": "/", "ms": 12}}),
    Shape("no payload", {"type": "user.logged_in", "source": "auth", "subject": "user_1", "occurred_at": _TIME}),
    Shape("only a type", {"type": "ping"}),
    Shape("an empty payload", {"type": "heartbeat", "source": "probe", "data": {}}),
    Shape("milliseconds", {"type": "job.done", "occurred_at": "2026-11-30T12:25:09.120Z", "data": {"ok": True}}),
    Shape("an offset", {"type": "visit", "occurred_at": "2026-11-30T13:25:09.000001+01:00", "data": {"n": 1}}),
    Shape("a time of nanoseconds", {"type": "span", "occurred_at": "2026-11-30T12:25:09.123456789Z", "data": {"d": 1}}),
    Shape("text beyond ASCII", {"type": "review", "source": "café", "data": {"text": "très bien, 5 ★ 👍", "ключ": 1}}),
    Shape(
        "escaped text",
        {"type": "mail", "idempotency_key": 'a"b\\c', "data": {"body": 'Dear "Ada",\n\tsee \\\\server\\share\n'}},
    ),
    Shape("text escaped to ASCII", {"type": "review"}, "data_json", '{"text": "tr\\u00e8s bien \\ud83d\\udc4d"}'),
    Shape(
        "exponents",
        {"type": "measurement", "source": "lab"},
        "data_json",
        '{"x": 1.5e-9, "y": 6.02214076e23, "z": 1E3}',
    ),
    Shape(
        "long numbers",
        {"type": "trade"},
        "data_json",
        '{"id": 12345678901234567890123, "price": 0.30000000000000000001}',
    ),
    Shape(
        "coordinates", {"type": "position", "data": {"lat": 48.208174, "lon": -16.373819, "path": [[1.5, 2.0]] * 20}}
    ),
    Shape("unsorted deep data", {"type": "trace", "data": {"z": {"y": {"x": [{"c": 1, "b": 2, "a": {"k": []}}]}}}}),
    Shape("200 members", {"type": "features", "data": {f"feature_{n}": n / 8 for n in range(200)}}, "data"),
    Shape("4 KB of text", {"type": "log.line", "source": "app-7", "data": {"message": "word " * 800, "level": "info"}}),
    Shape("a field that is not known", {"type": "order.completed", "version": 2, "data": {"amount": 5}}),
    Shape("ProtoJSON's names and nulls", {"type": "t", "idempotencyKey": "k-1", "occurredAt": _TIME, "subject": None}),
)


def as_json(shape: Shape, **more: Any) -> bytes:
    """Return the JSON text of an event."""
    text = json.dumps(shape.members | more, ensure_ascii=False)
    if shape.text is not None:
        text = f'{text[:-1]}, "data": {shape.text}}}'
    return text.encode()


def as_message(shape: Shape, **more: Any) -> bytes:
    """Return a serialized Event. It has no fields that a stub does not know."""
    members = {
        name: value for name, value in (shape.members | more).items() if name not in ("version", "data", "occurred_at")
    }
    event: Event = json_format.ParseDict(members, Event())
    moment = shape.members.get("occurred_at")
    if moment is not None:
        event.occurred_at.CopyFrom(_timestamp(moment))
    data = shape.members.get("data")
    if shape.text is not None:
        event.data_json = shape.text.encode()
    elif data is not None and shape.payload == "data":
        json_format.ParseDict(data, event.data)
    elif data is not None:
        event.data_json = json.dumps(data, ensure_ascii=False).encode()
    return event.SerializeToString()


def _timestamp(text: str) -> Timestamp:
    moment = Timestamp()
    moment.FromJsonString(text)
    return moment
