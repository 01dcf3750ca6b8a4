"""Destinations as values: where a workspace's events are delivered to, and the failed deliveries. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from headgate_server.core.model import Position, StoredEvent
from headgate_server.core.types import EventId, WorkspaceId

PREFIX = "dst_"
"""The beginning of every destination's id."""

BEGINNING = 0
NOW = -1
"""The other places where a destination may start, besides the sequence of its first event."""

MOST_RETRYING = 1_000
"""Set-aside events of one destination that wait for their next attempt. At this bound the destination delivers no
further events until some of them are delivered or skipped, or their schedule ends, so that a receiver that is down for
a day does not fill the table.
"""


class State(StrEnum):
    """Whether events are delivered to a destination. The API uses the same words."""

    ACTIVE = "active"
    PAUSED = "paused"
    """The operator stopped it. Its cursor stays."""
    DISABLED = "disabled"
    """The service stopped it and gives a reason. Its cursor stays."""


class Ordering(StrEnum):
    """The effect of a failed event on the events after it. The API uses the same words."""

    PARALLEL = "parallel"
    """The event is set aside, and retried while the cursor moves on."""
    ORDERED = "ordered"
    """The event stops the destination until it is delivered or skipped."""


class Format(StrEnum):
    """The format of a webhook's body. The API uses the same words."""

    STANDARD = "standard"
    CLOUDEVENTS = "cloudevents"


class Signature(StrEnum):
    """How a webhook's requests are signed. The API uses the same words."""

    HMAC = "hmac"
    ED25519 = "ed25519"


class FailureState(StrEnum):
    """The state of a set-aside event. The API uses the same words."""

    RETRYING = "retrying"
    FAILED = "failed"
    """All attempts of the schedule failed. The operator may retry the event."""
    SKIPPED = "skipped"
    """The operator decided not to deliver the event."""


GIVEN_UP = (FailureState.FAILED, FailureState.SKIPPED)
"""The states in which an event is not tried again, unless the operator or the event's sender asks for it."""


class Fate(StrEnum):
    """The state of one event's delivery, over all destinations that it is meant for. The API uses the same words."""

    NONE = "none"
    """The event is meant for no destination."""
    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"
    """At least one destination did not get the event, and it is not tried again there unless that is asked for."""


class EventFilter(NamedTuple):
    """The events that a destination gets: those that match one value of each kind. An empty kind matches all events."""

    types: tuple[str, ...] = ()
    """Types, or beginnings of types such as `document.*`."""
    sources: tuple[str, ...] = ()
    receivers: tuple[str, ...] = ()

    def matches(self, receiver: str, type: str, source: str) -> bool:  # noqa: A002 - the event's word
        """Whether an event of this receiver, type and source matches."""
        return (
            (not self.receivers or receiver in self.receivers)
            and (not self.sources or source in self.sources)
            and (not self.types or any(_is_of(type, each) for each in self.types))
        )


def _is_of(type_: str, type_or_prefix: str) -> bool:
    if type_or_prefix.endswith(".*"):
        return type_.startswith(type_or_prefix[:-1])
    return type_ == type_or_prefix


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """An HTTP receiver."""

    url: str
    max_events: int = 1
    """Events of one request. Most receivers expect one."""
    timeout: float = 15.0
    """Seconds for a whole request. Receivers should answer first and work later."""
    format: Format = Format.STANDARD
    signature: Signature = Signature.HMAC


@dataclass(frozen=True, slots=True, kw_only=True)
class JetStream:
    """A stream of NATS."""

    stream: str
    subject_prefix: str


Target = Webhook | JetStream


@dataclass(frozen=True, slots=True, kw_only=True)
class Secrets:
    """The keys that sign a webhook's requests, and additional headers. They are never shown again and never logged."""

    current: str
    previous: str = ""
    """The secret before the last rotation; empty if none is valid any more."""
    previous_until: int = 0
    headers: tuple[tuple[str, str], ...] = ()


NO_SECRETS = Secrets(current="")
"""The secrets of a destination that signs nothing."""


class Replay(NamedTuple):
    """Events that are delivered once more, independently of the cursor: those after `position`, up to a sequence."""

    position: Position
    until: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """A destination as stored, without its secrets."""

    workspace_id: WorkspaceId
    id: str
    name: str
    filter: EventFilter
    ordering: Ordering
    target: Target
    state: State
    why: str
    """A sentence that says why it is disabled; empty otherwise."""
    start: int
    """The sequence after which it began. It does not get earlier events."""
    cursor: Position
    replay: Replay | None
    delivered: int
    """Events that were delivered, repetitions included."""
    failed_attempts: int
    failing_since: int | None
    """When the first failure after the last success was. None means that the last attempt was a success."""
    last_error: str
    """The error of the newest failed attempt."""
    last_error_at: int | None
    created_at: int
    updated_at: int
    revision: int
    """It grows with every change that an operator makes."""

    def gets(self, event: StoredEvent) -> bool:
        """Whether the event is meant for this destination."""
        return event.sequence > self.start and self.filter.matches(event.receiver, event.type, event.source)


class Status(NamedTuple):
    """A destination, and its lag."""

    destination: Destination
    lag_events: int
    """Events of the ledger beyond the cursor, whether they match the filter or not."""
    lag_seconds: int
    """Seconds since the first of them was stored; 0 if there is none."""
    set_aside: int
    """The number of events that are retried, or whose schedule is over."""
    retry_after: int | None
    """When the next of them is tried again, in microseconds since the epoch. None means that none is."""


class Failure(NamedTuple):
    """An event whose delivery to a destination failed."""

    sequence: int
    event_id: EventId
    state: FailureState
    attempts: int
    first_failed_at: int
    last_attempt_at: int
    next_attempt_at: int | None
    """None means that there will be no further attempt."""
    status: int | None
    """The HTTP status of the last answer. None means that there was no answer."""
    error: str
    """The receiver's answer, or why there was no answer."""


class SetAside(NamedTuple):
    """A failed attempt to deliver one event, in a report."""

    sequence: int
    event_id: EventId
    attempts: int
    """The number of attempts, including this one."""
    delay: float | None
    """Seconds until the next attempt. None means that there will be none."""
    status: int | None
    error: str


class Move(NamedTuple):
    """A move of a cursor, or of a replay, from the position that was read."""

    old: Position
    new: Position
    of_replay: bool = False


class Report(NamedTuple):
    """What the delivering process did for one destination since its last report."""

    workspace_id: WorkspaceId
    destination_id: str
    move: Move | None = None
    set_aside: Sequence[SetAside] = ()
    settled: Sequence[int] = ()
    """Sequences of failed events that are delivered now."""
    delivered: int = 0
    failed_attempts: int = 0
    error: str | None = None
    """The error of the last failed attempt. None means that no attempt failed."""
    disable: str | None = None
    """Why the destination is disabled now. None means that it is not."""


class Watched(NamedTuple):
    """An active destination at one moment: its revision, its cursor, and the sequence of its ledger's head."""

    workspace_id: WorkspaceId
    destination_id: str
    revision: int
    cursor: int
    head: int


class Assignment(NamedTuple):
    """The values that a delivery to a destination needs, read at one moment."""

    destination: Destination
    secrets: Secrets
    now: int
    """The database's clock."""
    ahead: Sequence[Failure]
    """Failures beyond the cursor: the one that stops an ordered destination, and those that the operator skipped."""
