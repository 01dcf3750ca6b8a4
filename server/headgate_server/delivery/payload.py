"""The body of a webhook. Pure.

It is Standard Webhooks' form or CloudEvents' structured mode, of one event or of a list. A destination with several
events in a request always gets a list, even of one event, so that its receiver has to read only one form.
"""

import re
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any, NamedTuple
from urllib.parse import quote
from uuid import UUID

import orjson

from headgate_server.core import timestamps
from headgate_server.core.model import StoredEvent

Render = Callable[[StoredEvent], bytes]
"""Returns a stored event as JSON, in the same form as REST."""


class Format(StrEnum):
    """The format of a destination's events."""

    STANDARD = "standard"
    CLOUDEVENTS = "cloudevents"


class Payload(NamedTuple):
    """A body and its `Content-Type`."""

    content_type: str
    body: bytes


def payload(events: Sequence[StoredEvent], form: Format, *, several: bool, render: Render) -> Payload:
    """Return the body of the events. Without `several` there is exactly one."""
    if form is Format.STANDARD:
        messages = [standard(event, render) for event in events]
        return Payload("application/json", orjson.dumps({"events": messages} if several else messages[0]))
    clouds = [cloudevent(event) for event in events]
    if several:
        return Payload("application/cloudevents-batch+json", orjson.dumps(clouds))
    return Payload("application/cloudevents+json", orjson.dumps(clouds[0]))


def standard(event: StoredEvent, render: Render) -> dict[str, Any]:
    """Return an event in Standard Webhooks' form: its type, the time when it occurred, and the stored event."""
    return {"type": event.type, "timestamp": _occurred(event), "data": orjson.Fragment(render(event))}


def cloudevent(event: StoredEvent) -> dict[str, Any]:
    """Return an event as a CloudEvent 1.0. Its `id` is the stored event's id. The other names are CloudEvents'
    attributes and documented extensions, and our own extensions `receiver`, `idempotencykey` and `eventhash`.
    """
    cloud: dict[str, Any] = {
        "specversion": "1.0",
        "id": str(UUID(bytes=event.id)),
        "source": _uri_reference(event.source) or f"/receivers/{quote(event.receiver)}",
        "type": event.type,
        "time": _occurred(event),
        "recordedtime": timestamps.format(event.created_at),
        # The extension is a text. Padded with zeros, it has the order of the numbers.
        "sequence": f"{event.sequence:020}",
        "receiver": event.receiver,
        "eventhash": event.event_hash.hex(),
    }
    if event.subject:
        cloud["subject"] = event.subject
    if event.key is not None:
        cloud["idempotencykey"] = event.key
    if event.data is not None:
        cloud["datacontenttype"] = "application/json"
        cloud["data"] = orjson.Fragment(event.data)
    return cloud


def _occurred(event: StoredEvent) -> str:
    return timestamps.format(event.created_at if event.occurred_at is None else event.occurred_at)


_STRAY_PERCENT = re.compile("%(?![0-9A-Fa-f]{2})")


def _uri_reference(text: str) -> str:
    """Return a text as a URI-reference. Characters that are not allowed are percent-encoded."""
    return quote(_STRAY_PERCENT.sub("%25", text), safe="%/:?#[]@!$&'()*+,;=-._~")
