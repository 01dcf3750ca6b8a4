"""Requests to Scrip's endpoints, and their answers."""

import json
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from headgate_server.core.model import Draft, Link, StoredEvent
from headgate_server.receivers import HttpRequest, Intake, Take
from headgate_server.receivers.scrip import Scrip

PROGRAM = "550e8400-e29b-41d4-a716-446655440000"
# The example request of the vendor's page.
EXAMPLE = {
    "event_data": {},
    "event_timestamp": "2024-01-15T10:30:00Z",
    "idempotency_key": "order-12345-completed",
    "program_id": PROGRAM,
    "external_id": "user_abc123",
    "participant_id": "550e8400-e29b-41d4-a716-446655440000",
    "recipient_external_id": "user_xyz789",
    "recipient_id": "550e8400-e29b-41d4-a716-446655440001",
}
MOMENT = 1_705_314_600_000_000  # 2024-01-15T10:30:00Z
ID = UUID("018d0d1a-7b10-7000-8000-000000000001")
LINK = Link(ID.bytes, 1, MOMENT, bytes(32), bytes(16), bytes(32))
ROUTES = Scrip().routes()
BATCH, SINGLE = ROUTES["POST", "/v1/events/batch"], ROUTES["POST", "/v1/events"]
LIST, GET = ROUTES["GET", "/v1/events"], ROUTES["GET", "/v1/events/{id}"]


def request(body: bytes = b"", path: str = "/v1/events/batch", query: Mapping[str, str] | None = None) -> HttpRequest:
    return HttpRequest("POST" if body else "GET", path, query or {}, body, MOMENT)


def take(*events: Any) -> Intake:
    assert isinstance(BATCH, Take)
    return BATCH.read(request(json.dumps({"events": events}).encode()))


def stored(event: dict[str, Any]) -> StoredEvent:
    [slot] = take(event).slots
    assert isinstance(slot, Draft)
    return StoredEvent(
        1, ID.bytes, 1, MOMENT + 1, slot.receiver, slot.type, slot.source, slot.subject, slot.occurred_at, slot.data,
        slot.scope, slot.key, slot.dedupe, slot.salt, slot.commitment, bytes(32),
    )  # fmt: skip
