"""The events that the contenders store: a shop's order, each under an idempotency key that was never used before."""

import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import orjson

from headgate.v1.bridge_view_pb2 import RawBatchIngestRequest
from headgate.v1.event_pb2 import Event
from headgate_server.core.model import Draft
from headgate_server.rpc import decode

_TYPE = "order.completed"
_SOURCE = "shop/checkout"
_OCCURRED_AT = datetime(2024, 1, 15, 10, 30, tzinfo=UTC)
_OCCURRED_AT_TEXT = "2024-01-15T10:30:00Z"


class Order(NamedTuple):
    """What differs from event to event."""

    number: int
    nonce: str
    """Random for each run: it makes the idempotency keys fresh."""

    @property
    def key(self) -> str:
        """The idempotency key."""
        return f"order-{self.nonce}-{self.number}"

    @property
    def subject(self) -> str:
        """Whom the event is about."""
        return f"user_{self.number % 10_000:06}"

    @property
    def data(self) -> dict[str, Any]:
        """The payload, about 150 bytes as JSON; its members are not in canonical order, as a client's are not."""
        return {
            "order_id": self.key,
            "amount": 49.99,
            "currency": "EUR",
            "items": [{"sku": "A-1001", "quantity": 2}, {"sku": "B-2002", "quantity": 1}],
            "coupon": None,
            "first": self.number % 7 == 0,
        }


def orders(count: int) -> list[Order]:
    """Return so many orders that nobody has seen."""
    nonce = secrets.token_hex(6)
    return [Order(number, nonce) for number in range(count)]


def drafts(of: Sequence[Order]) -> list[Draft]:
    """Return the events as the server makes them of a request. Their salts are random."""
    request = RawBatchIngestRequest(events=map(protobuf, of))
    slots = decode.batch(request, max_events=len(of)).slots
    made = [slot for slot in slots if isinstance(slot, Draft)]
    if len(made) != len(of):
        raise TypeError("an event of the workload is not valid")
    return made


def protobuf(order: Order) -> bytes:
    """Return one serialized Event, its payload as `data_json`."""
    event = Event(
        type=_TYPE,
        source=_SOURCE,
        subject=order.subject,
        occurred_at=_OCCURRED_AT,
        data_json=orjson.dumps(order.data),
        idempotency_key=order.key,
    )
    return event.SerializeToString()


def json(order: Order) -> bytes:
    """Return the same event as JSON."""
    return orjson.dumps(
        {
            "type": _TYPE,
            "source": _SOURCE,
            "subject": order.subject,
            "occurred_at": _OCCURRED_AT_TEXT,
            "data": order.data,
            "idempotency_key": order.key,
        }
    )
