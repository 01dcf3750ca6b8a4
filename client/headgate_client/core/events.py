"""Events as a caller gives them, and as they are sent. Every event has a key before it is first sent."""

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple

from google.protobuf.timestamp_pb2 import Timestamp

from headgate.v1 import event_pb2
from headgate_client.core.errors import InvalidEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """An event to send."""

    type: str
    data: Mapping[str, Any] | bytes | None = None
    """The payload: a JSON object, or the text of one in UTF-8, which is sent as it is. None: no payload."""
    source: str = ""
    """The context in which it happened. It is also the scope of `key`."""
    subject: str = ""
    occurred_at: datetime | str | None = None
    """When it happened: a time with a zone, or RFC 3339. None: unknown."""
    key: str | None = None
    """Identifies the event within `source`, for ever. None: the client draws one."""


EventLike = Event | Mapping[str, Any]
"""An event, or a mapping with the names of its fields. A mapping may say `idempotency_key` in place of `key`."""

_FIELDS = frozenset(field.name for field in fields(Event))
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


class Prepared(NamedTuple):
    """An event as it is sent."""

    encoded: bytes
    """A serialized `headgate.v1.Event`."""
    key: str

    def event(self) -> Event:
        """Return the event that was prepared, with its key."""
        return decoded(self.encoded)


def new_key() -> str:
    """Return a new key: a UUIDv7 (RFC 9562, 5.7). Keys of one moment are neighbours in the server's index."""
    drawn = int.from_bytes(os.urandom(10))
    value = (time.time_ns() // 1_000_000 & (1 << 48) - 1) << 80 | drawn
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def prepare(event: EventLike, make_key: Callable[[], str] = new_key, index: int = 0) -> Prepared:
    """Return the event as it is sent, under its own key or a new one.

    Raises `InvalidEvent` if it cannot be written down. Everything else is for the service to judge.
    """
    try:
        return _prepare(event if isinstance(event, Event) else _from_mapping(event), make_key)
    except (TypeError, ValueError, RecursionError) as error:
        said = "it refers to itself or nests too deep" if isinstance(error, RecursionError) else str(error)
        raise InvalidEvent(f"The event at position {index} cannot be sent: {said}", index) from error


def _from_mapping(event: Mapping[str, Any]) -> Event:
    if not isinstance(event, Mapping):
        raise TypeError(f"an event is a mapping or an Event, not {type(event).__name__}")
    named = dict(event)
    if "idempotency_key" in named:
        if named.get("key") is not None:
            raise ValueError("it has both `key` and `idempotency_key`")
        named["key"] = named.pop("idempotency_key")
    if unknown := named.keys() - _FIELDS:
        raise ValueError(f"unknown field {min(map(str, unknown))!r}; the fields are {', '.join(sorted(_FIELDS))}")
    named = {name: value for name, value in named.items() if value is not None}
    if "type" not in named:
        raise ValueError("it has no type")
    return Event(**named)


def _prepare(event: Event, make_key: Callable[[], str]) -> Prepared:
    key = event.key if event.key is not None else make_key()
    message = event_pb2.Event(type=event.type, source=event.source, subject=event.subject, idempotency_key=key)
    if event.data is not None:
        message.data_json = _json(event.data)
    if event.occurred_at is not None:
        message.occurred_at.CopyFrom(_timestamp(event.occurred_at))
    return Prepared(message.SerializeToString(), key)


def _json(data: Mapping[str, Any] | bytes) -> bytes:
    if isinstance(data, bytes):
        return data
    if not isinstance(data, Mapping):
        raise TypeError(f"data is a mapping or bytes, not {type(data).__name__}")
    return _encode(data if isinstance(data, dict) else dict(data)).encode()


def _timestamp(time: datetime | str) -> Timestamp:
    stamp = Timestamp()
    if isinstance(time, datetime):
        if time.utcoffset() is None:
            raise ValueError("occurred_at has no time zone")
        stamp.FromDatetime(time)
    elif isinstance(time, str):
        stamp.FromJsonString(time)
    else:
        raise TypeError(f"occurred_at is a datetime or a text, not {type(time).__name__}")
    return stamp


def decoded(encoded: bytes) -> Event:
    """Return the event that these bytes are."""
    message = event_pb2.Event.FromString(encoded)
    return Event(
        type=message.type,
        data=_data(message),
        source=message.source,
        subject=message.subject,
        occurred_at=message.occurred_at.ToJsonString() if message.HasField("occurred_at") else None,
        key=message.idempotency_key,
    )


def _data(message: event_pb2.Event) -> Mapping[str, Any] | bytes | None:
    if not message.HasField("data_json"):
        return None
    try:
        data = json.loads(message.data_json, parse_float=_exact, object_pairs_hook=_once)
    except (ValueError, RecursionError):
        return message.data_json
    return data if isinstance(data, dict) else message.data_json


def _exact(text: str) -> float:
    """Return the float that is exactly this number. Another one would be other content under the same key."""
    number = float(text)
    if Decimal(repr(number)) != Decimal(text):
        raise ValueError("no float")
    return number


def _once(members: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object in which no name occurs twice."""
    found = dict(members)
    if len(found) != len(members):
        raise ValueError("a name occurs twice")
    return found
