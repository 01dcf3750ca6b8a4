"""Answers as values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

ACCEPTED = "accepted"
DUPLICATE = "duplicate"
CONFLICT = "conflict"
REJECTED = "rejected"
ABORTED = "aborted"
UNANSWERED = "unanswered"
"""A status of the client's own: the call of this event failed, and the event may be stored or not."""


@dataclass(frozen=True, slots=True)
class EventError:
    """Why one event is not stored."""

    reason: str
    """A constant for programs (docs/reasons.md)."""
    message: str = ""
    field: str = ""
    """A path into the event. Empty: the whole event."""
    retryable: bool = False
    """Whether the same event, sent again unchanged, can be stored."""
    differing_fields: tuple[str, ...] = ()
    """For a conflict: JSON Pointers to where the stored event differs."""


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one event."""

    index: int
    """The event's position in the call, from 0."""
    status: str
    """`accepted`, `duplicate`, `conflict`, `rejected`, `aborted`; or `unanswered`, if the call failed."""
    key: str
    """The idempotency key under which the event was sent."""
    id: str = ""
    """The stored event's id. Empty: no event is stored."""
    sequence: int = 0
    """The stored event's place in the ledger. 0: no event is stored."""
    created_at: datetime | None = None
    event_hash: str = ""
    error: EventError | None = None
    warnings: tuple[str, ...] = ()

    @property
    def stored(self) -> bool:
        """Whether the event is in the ledger with this content."""
        return self.status in (ACCEPTED, DUPLICATE)


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An event as it is in the ledger."""

    id: str
    sequence: int
    created_at: datetime
    event_hash: str
    receiver: str
    """The API it came through. "native" is this client's."""
    type: str
    source: str
    subject: str
    occurred_at: datetime | None
    data: Any
    """The payload: a dict, or any JSON value of a CloudEvent. None: none was sent. Numbers that no float can express
    exactly are `decimal.Decimal`.
    """
    key: str | None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    """The attributes of a CloudEvent that have no field here."""
    delivery: str = ""
    """Only with `view="FULL"`: `none`, `pending`, `delivered` or `failed`."""


@dataclass(frozen=True, slots=True)
class Page:
    """Some events of a list, in its order."""

    events: tuple[StoredEvent, ...]
    next_page_token: str
    """Empty: there are no more events now."""


@dataclass(frozen=True, slots=True)
class Head:
    """The last link of a ledger."""

    sequence: int
    """0: the ledger is empty."""
    hash: str
    created_at: datetime | None


@dataclass(frozen=True, slots=True)
class Break:
    """A place at which the ledger differs from what was sealed."""

    event_id: str
    sequence: int
    type: str
    expected_hash: str
    actual_hash: str


@dataclass(frozen=True, slots=True)
class Verification:
    """The result of a check of the ledger."""

    valid: bool
    events_checked: int
    breaks: tuple[Break, ...]
