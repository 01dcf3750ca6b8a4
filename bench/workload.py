"""The events that all senders store: a shop's orders, each with an idempotency key that was never used before."""

import secrets
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import orjson

from headgate.v1.bridge_view_pb2 import RawBatchIngestRequest
from headgate.v1.event_pb2 import Event
from headgate_server.core.model import Draft
from headgate_server.rpc import decode

Order = dict[str, Any]
"""An event, as its JSON is written."""


def order(number: int, nonce: str) -> Order:
    """Return one event. `nonce` makes its key new. The payload has about 150 bytes; its members are not sorted."""
    key, first = f"order-{nonce}-{number}", number % 7 == 0
    items = [{"sku": "A-1001", "quantity": 2}, {"sku": "B-2002", "quantity": 1}]
    return {
        "type": "order.completed",
        "source": "shop/checkout",
        "subject": f"user_{number % 10_000:06}",
        "occurred_at": "2024-01-15T10:30:00Z",
        "data": {"order_id": key, "amount": 49.99, "currency": "EUR", "items": items, "coupon": None, "first": first},
        "idempotency_key": key,
    }


def orders(count: int) -> list[Order]:
    """Return this many new events."""
    nonce = secrets.token_hex(6)
    return [order(number, nonce) for number in range(count)]


def protobuf(one: Order) -> bytes:
    """Return one serialized Event, its payload as `data_json`."""
    changed = {"occurred_at": datetime.fromisoformat(one["occurred_at"]), "data_json": orjson.dumps(one["data"])}
    return Event(**{name: value for name, value in one.items() if name != "data"} | changed).SerializeToString()


def drafts(of: Sequence[Order]) -> list[Draft]:
    """Return the drafts that the server would make. Raises `TypeError` if an event is not valid."""
    slots = decode.batch(RawBatchIngestRequest(events=map(protobuf, of)), max_events=len(of)).slots
    made = [slot for slot in slots if isinstance(slot, Draft)]
    if len(made) != len(of):
        raise TypeError("an event of the workload is not valid")
    return made
