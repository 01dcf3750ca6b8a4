"""Streams as server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""

import re
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from google.protobuf.message import Message

CONTENT_TYPE = "text/event-stream"
LAST_EVENT_ID = "last-event-id"
"""The header with the id of the last event that a client has seen before it reconnects."""

_UNNAMED = "event"
"""Messages of this name are sent without a name, so that a browser passes them to `onmessage`."""
_ID_FIELD = "sequence"
_LINE_END = re.compile(rb"\r\n|\r|\n")


def is_wanted(accept: str | None) -> bool:
    """Whether a header `Accept` asks for server-sent events (RFC 9110, 12.5.1)."""
    for part in (accept or "").split(","):
        kind, *parameters = (each.strip().lower() for each in part.split(";"))
        if kind == CONTENT_TYPE:
            return not any(_is_refusal(parameter) for parameter in parameters)
    return False


def _is_refusal(parameter: str) -> bool:
    name, _, value = parameter.partition("=")
    return name.strip() == "q" and not value.strip().strip("0.")


def frame(data: bytes, name: str = "", event_id: str = "") -> bytes:
    """Return one event of a stream. `data` may have several lines."""
    head = (f"id: {event_id}\n" if event_id else "") + (f"event: {name}\n" if name else "")
    return head.encode() + b"".join(b"data: %b\n" % line for line in _LINE_END.split(data)) + b"\n"


class Frames:
    """Turns the responses of one stream into events.

    If a response has one oneof and no other fields, the event is the field that is set: its name, its value as data,
    and its `sequence` as id. An id that the reader already has is not sent again. Any other response is the data
    itself.
    """

    def __init__(self, known: str | None, printed: Callable[[Message], Awaitable[bytes]]):
        """`known` is the id that the reader has."""
        self._known = known
        self._printed = printed

    async def __call__(self, response: Message) -> bytes:
        """Return the next event."""
        part = _part(response)
        event_id = ""
        if part.event_id is not None and part.event_id != self._known:
            event_id = self._known = part.event_id
        return frame(await self._printed(part.content), part.name, event_id)


class _Part(NamedTuple):
    """The part of a response that is sent as an event."""

    content: Message
    name: str = ""
    event_id: str | None = None


def _part(response: Message) -> _Part:
    choice = _choice(response)
    name = choice and response.WhichOneof(choice)
    if not name:
        return _Part(response)
    content: Any = getattr(response, name)
    has_id = _ID_FIELD in content.DESCRIPTOR.fields_by_name
    return _Part(content, "" if name == _UNNAMED else name, str(content.sequence) if has_id else None)


def _choice(message: Message) -> str | None:
    """Return the name of the oneof that holds all fields, each of them a message; None if there is none."""
    descriptor: Any = message.DESCRIPTOR
    oneofs = descriptor.oneofs
    whole = len(oneofs) == 1 and len(oneofs[0].fields) == len(descriptor.fields)
    return oneofs[0].name if whole and all(field.message_type is not None for field in descriptor.fields) else None
