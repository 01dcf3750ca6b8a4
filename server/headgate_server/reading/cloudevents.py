"""Any stored event as a CloudEvent 1.0. Webhooks and reads have the same form. Pure.

docs/cloudevents.md describes the mapping. `receivers/cloudevents.py` is the other direction.
"""

import re
from typing import Any
from urllib.parse import quote
from uuid import UUID

import orjson

from headgate_server.core import timestamps
from headgate_server.core.model import CLOUDEVENTS, StoredEvent
from headgate_server.receivers.cloudevent_data import BYTES, MESSAGE
from headgate_server.receivers.cloudevents import JSON, SPECVERSION

CONTENT_TYPE = "application/cloudevents+json"
BATCH_CONTENT_TYPE = "application/cloudevents-batch+json"

_STRAY_PERCENT = re.compile("%(?![0-9A-Fa-f]{2})")
_PROTOBUF = "application/protobuf"


def cloudevent(event: StoredEvent, delivery: str = "") -> dict[str, Any]:
    """Return an event as a CloudEvent in the JSON format, a value for orjson.

    An event that came as a CloudEvent has its own `id`, `source` and attributes. Any other has the stored event's id.
    The documented extensions `recordedtime` and `sequence` are added, and our own: `receiver`, `eventhash`,
    `idempotencykey` (for a CloudEvent `eventid` instead), and `delivery` if it is given. An extension that the event
    has itself is not replaced.
    """
    cloud: dict[str, Any] = {
        "specversion": SPECVERSION,
        "id": str(UUID(bytes=event.id)),
        "source": _uri_reference(event.source) or f"/receivers/{quote(event.receiver)}",
        "type": event.type,
        "time": timestamps.format(event.created_at if event.occurred_at is None else event.occurred_at),
        "recordedtime": timestamps.format(event.created_at),
        # The extension is a text. Padded with zeros, it has the order of the numbers.
        "sequence": f"{event.sequence:020}",
        "receiver": event.receiver,
        "eventhash": event.event_hash.hex(),
    }
    if event.subject:
        cloud["subject"] = event.subject
    if delivery:
        cloud["delivery"] = delivery
    attributes = {} if event.attributes is None else orjson.loads(event.attributes)
    if event.receiver == CLOUDEVENTS:
        _restore(cloud, event, attributes)
    elif event.key is not None:
        cloud["idempotencykey"] = event.key
    if event.data is not None:
        _add_payload(cloud, event.data, attributes)
    return cloud


def _restore(cloud: dict[str, Any], event: StoredEvent, attributes: dict[str, Any]) -> None:
    """Set what an event that came as a CloudEvent had. A time that it did not have is left out."""
    cloud["eventid"] = cloud["id"]
    cloud["id"] = event.key
    cloud["source"] = event.source
    if event.occurred_at is None:
        del cloud["time"]
    cloud.update({name: value for name, value in attributes.items() if name not in (BYTES, MESSAGE)})


def _add_payload(cloud: dict[str, Any], data: bytes, attributes: dict[str, Any]) -> None:
    if BYTES not in attributes:
        cloud.setdefault("datacontenttype", JSON)
        cloud["data"] = orjson.Fragment(data)
        return
    if MESSAGE in attributes:
        cloud.setdefault("datacontenttype", _PROTOBUF)
        cloud.setdefault("dataschema", attributes[MESSAGE])
    cloud["data_base64"] = orjson.Fragment(data)


def _uri_reference(text: str) -> str:
    """Return a text as a URI-reference. Characters that are not allowed are percent-encoded."""
    return quote(_STRAY_PERCENT.sub("%25", text), safe="%/:?#[]@!$&'()*+,;=-._~")
