"""The events that the contenders store: a shop's order, each under an idempotency key that was never used before."""

import secrets
from datetime import UTC, datetime
from typing import NamedTuple

import orjson

from headgate.v1.event_pb2 import Event
from headgate.v1.ingest_service_pb2 import BatchIngestRequest
from headgate_server import validate
from headgate_server.model import Draft

_TYPE = "order.completed"
_SOURCE = "shop/checkout"
_OCCURRED_AT = datetime(2024, 1, 15, 10, 30, tzinfo=UTC)
_MICROSECONDS = int(_OCCURRED_AT.timestamp()) * 1_000_000


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
    def data(self) -> bytes:
        """The payload as JSON text, about 150 bytes."""
        return orjson.dumps(
            {
                "order_id": self.key,
                "amount": 49.99,
                "currency": "EUR",
                "items": [{"sku": "A-1001", "quantity": 2}, {"sku": "B-2002", "quantity": 1}],
                "coupon": None,
                "first": self.number % 7 == 0,
            }
        )


def orders(count: int) -> list[Order]:
    """Return so many orders that nobody has seen."""
    nonce = secrets.token_hex(6)
    return [Order(number, nonce) for number in range(count)]


def draft(order: Order) -> Draft:
    """Return the event as the server makes it of a request. Its salt is random."""
    made = validate.native(
        type_=_TYPE,
        source=_SOURCE,
        subject=order.subject,
        occurred_at=_MICROSECONDS,
        data=orjson.loads(order.data),
        key=order.key,
    )
    if not isinstance(made, Draft):
        raise TypeError(f"the workload's event is not valid: {made.message}")
    return made


def batch(of: list[Order]) -> bytes:
    """Return one serialized BatchIngestRequest of these orders, their payloads as `data_json`."""
    request = BatchIngestRequest(events=[_message(order) for order in of])
    return request.SerializeToString()


def _message(order: Order) -> Event:
    return Event(
        type=_TYPE,
        source=_SOURCE,
        subject=order.subject,
        occurred_at=_OCCURRED_AT,
        data_json=order.data,
        idempotency_key=order.key,
    )
