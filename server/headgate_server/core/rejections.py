"""Rejections: refused events that are kept, so that users can see, edit and replay them. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import NamedTuple

from headgate_server.core.types import EventId, RejectionId, WorkspaceId

MOST_BYTES = 64 * 1024
"""The most bytes of an event that are kept. Most events are smaller, and ten thousand of this size are 640 MB."""


class Encoding(StrEnum):
    """The encoding of an event's bytes."""

    JSON = "json"
    PROTOBUF = "protobuf"
    BYTES = "bytes"
    """Of a JSON body, but not UTF-8, so that no text holds it."""
    HTTP = "http"
    """A CloudEvent whose attributes were headers: the JSON of its headers and its body."""


TEXTS = frozenset({Encoding.JSON, Encoding.HTTP})
"""The encodings that are texts."""


class Rejection(NamedTuple):
    """One refused event. The order of the fields is the order of the columns."""

    workspace_id: WorkspaceId
    id: RejectionId
    """A UUIDv7 of `received_at`, so that rejections sort by time."""
    received_at: int
    """By the clock of the process that refused it. Rejections of one request are a microsecond apart, in its order."""
    reason: str
    field: str
    message: str
    receiver: str
    endpoint: str
    """Method and path within the receiver, such as "POST /v1/events/batch"; empty for Headgate's own API."""
    key_id: str
    request_id: str
    encoding: str
    """One of `Encoding`."""
    size: int
    """Bytes of the event as it was sent."""
    replayed_at: int | None
    """When a replay stored it; None if no replay has."""
    event_id: EventId | None
    """The id of the event that the replay stored."""
    event: bytes
    """The event as it was sent, cut after `MOST_BYTES`."""

    @property
    def is_cut(self) -> bool:
        """Whether only the beginning of the event is kept."""
        return self.size > len(self.event)


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectionQuery:
    """A query for rejections of one workspace: filters, order and start."""

    workspace_id: WorkspaceId
    limit: int
    reason: str | None = None
    receiver: str | None = None
    key_id: str | None = None
    received_from: int | None = None
    """Inclusive."""
    received_to: int | None = None
    """Exclusive."""
    replayed: bool | None = None
    newest_first: bool = True
    after: RejectionId | None = None
    """The last id of the previous page; exclusive in the direction of the order."""

    def after_id(self, rejection_id: RejectionId) -> "RejectionQuery":
        """Return the query for the page after this id."""
        return replace(self, after=rejection_id)


class RejectionPage(NamedTuple):
    """Rejections, and the id after which the next page begins; None if there are no more."""

    rejections: Sequence[Rejection]
    resume: RejectionId | None


def encoding_of(event: bytes, encoding: Encoding) -> Encoding:
    """Return the encoding of one event in a request of this encoding. A line of a body may be no UTF-8."""
    if encoding is Encoding.JSON and not event.isascii():
        try:
            event.decode()
        except UnicodeDecodeError:
            return Encoding.BYTES
    return encoding


def kept_of(event: bytes, encoding: Encoding) -> bytes:
    """Return the part of an event that is kept. A text is cut between two characters."""
    if len(event) <= MOST_BYTES:
        return event
    cut = event[:MOST_BYTES]
    return cut.decode(errors="ignore").encode() if encoding in TEXTS else cut


def storable(text: str, most: int = 1_000) -> str:
    """Return a text of at most `most` characters that every store accepts. The message of a problem may quote any
    input.
    """
    return text.replace("\0", "\\u0000").encode(errors="backslashreplace").decode()[:most]
