"""CloudEvents for tests, in every format and mode."""

import json
from typing import Any

import orjson
from google.api.httpbody_pb2 import HttpBody

from headgate.third_party.cloudevents.cloudevents_pb2 import CloudEvent
from headgate_server.core.model import Draft, Problem, StoredEvent
from headgate_server.reading.cloudevents import cloudevent
from headgate_server.rpc.cloudevents import Received, received
from tests.unit.linking import linked

LEAST = {"specversion": "1.0", "id": "A1", "source": "/sensors/7", "type": "reading"}
STRUCTURED, BATCH = "application/cloudevents+json", "application/cloudevents-batch+json"
PROTOBUF, PROTOBUF_BATCH = "application/cloudevents+protobuf", "application/cloudevents-batch+protobuf"
SALT = bytes(16)


def requested(content_type: str, body: bytes = b"", most: int = 10, **headers: str) -> Received:
    """Decode a request whose headers `ce-…` are the keywords."""
    return received(HttpBody(content_type=content_type, data=body), packed(headers), most)


def packed(headers: dict[str, str]) -> str:
    """Pack headers as the bridge does."""
    escaped = {name: "".join(f"%{byte:02X}" for byte in value.encode()) for name, value in headers.items()}
    return "&".join(f"{name}={value}" for name, value in escaped.items())


def one(content_type: str, body: bytes = b"", **headers: str) -> Draft | Problem:
    """Return the slot of a request with one event."""
    (slot,) = requested(content_type, body, **headers).slots
    return slot


def sealed(slot: Draft | Problem) -> Draft:
    """Return a slot that is a draft."""
    assert isinstance(slot, Draft), slot
    return slot


def structured(**more: Any) -> Draft | Problem:
    """Return the slot of an event in the JSON format, with more members than those that are required."""
    return one(STRUCTURED, json.dumps(LEAST | more).encode())


def message(data: dict[str, Any] | None = None, **attributes: Any) -> CloudEvent:
    """Return an event in the protobuf format."""
    values = {name: CloudEvent.CloudEventAttributeValue(**value) for name, value in attributes.items()}
    return CloudEvent(
        spec_version="1.0", id="A1", source="/sensors/7", type="reading", attributes=values, **(data or {})
    )


def read_back(draft: Draft) -> dict[str, Any]:
    """Return the event as a CloudEvent, without what is added to it."""
    (row,), _ = linked("acme", [draft])
    cloud = json.loads(_dumped(row))
    return {name: value for name, value in cloud.items() if name not in ADDED}


ADDED = {"recordedtime", "sequence", "receiver", "eventid", "eventhash"}


def _dumped(row: StoredEvent) -> bytes:
    return orjson.dumps(cloudevent(row))
