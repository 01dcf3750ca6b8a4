"""The body of a webhook. Pure.

It is Standard Webhooks' form or CloudEvents' structured mode, of one event or of a list. A destination with several
events in a request always gets a list, even of one event, so that its receiver has to read only one form.
"""

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

import orjson

from headgate_server.core import timestamps
from headgate_server.core.model import StoredEvent
from headgate_server.reading.cloudevents import BATCH_CONTENT_TYPE, CONTENT_TYPE, cloudevent

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
        return Payload(BATCH_CONTENT_TYPE, orjson.dumps(clouds))
    return Payload(CONTENT_TYPE, orjson.dumps(clouds[0]))


def standard(event: StoredEvent, render: Render) -> dict[str, Any]:
    """Return an event in Standard Webhooks' form: its type, the time when it occurred, and the stored event."""
    return {"type": event.type, "timestamp": _occurred(event), "data": orjson.Fragment(render(event))}


def _occurred(event: StoredEvent) -> str:
    return timestamps.format(event.created_at if event.occurred_at is None else event.occurred_at)
