"""Destinations as values: where a workspace's events are delivered to, and what became of those that failed. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from headgate_server.core.model import Position
from headgate_server.core.types import EventId, WorkspaceId

PREFIX = "dst_"
"""How the id of every destination begins."""

BEGINNING = 0
NOW = -1
"""Where a destination may start, beside the sequence of its first event."""

MOST_RETRYING = 1_000
"""Set-aside events of one destination that wait for their next attempt. At this bound the destination delivers no
further events until some of them were delivered, given up or skipped: a receiver that is down for a day must not fill
the table.
"""


class State(StrEnum):
    """Whether a destination is delivered to; the words of the wire."""

    ACTIVE = "active"
    PAUSED = "paused"
    """The operator stopped it. Its cursor stays."""
    DISABLED = "disabled"
    """The service stopped it, and says why. Its cursor stays."""


class Ordering(StrEnum):
    """What a failed event means for the events after it; the words of the wire."""

    PARALLEL = "parallel"
    """It is set aside, and retried beside the cursor."""
    ORDERED = "ordered"
    """It stops the destination until it is delivered or skipped."""


class Format(StrEnum):
    """What a webhook's body looks like; the words of the wire."""

    STANDARD = "standard"
    CLOUDEVENTS = "cloudevents"


class Signature(StrEnum):
    """How a webhook's requests are signed; the words of the wire."""

    HMAC = "hmac"
    ED25519 = "ed25519"


class FailureState(StrEnum):
    """What will become of a set-aside event; the words of the wire."""

    RETRYING = "retrying"
    FAILED = "failed"
    """The schedule is over. The operator may retry it."""
    SKIPPED = "skipped"
    """The operator gave it up."""


class Fate(StrEnum):
    """What became of the delivery of one event, over all destinations that it is meant for; the words of the wire."""

    NONE = "none"
    """It is meant for no destination."""
    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"
    """One destination at least did not get it, and will not without the operator."""


class EventFilter(NamedTuple):
    """Which events a destination is meant for: those that match one of each kind. An empty kind matches all."""

    types: tuple[str, ...] = ()
    """A type, or the beginning of types, such as `document.*`."""
    sources: tuple[str, ...] = ()
    receivers: tuple[str, ...] = ()

    def matches(self, receiver: str, type: str, source: str) -> bool:  # noqa: A002 - the event's word
        """Whether an event of this receiver, type and source is meant."""
        return (
            (not self.receivers or receiver in self.receivers)
            and (not self.sources or source in self.sources)
            and (not self.types or any(_is_of(type, wanted) for wanted in self.types))
        )


def _is_of(type_: str, wanted: str) -> bool:
    return type_.startswith(wanted[:-1]) if wanted.endswith(".*") else type_ == wanted


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """An HTTP receiver."""

    url: str
    max_events: int = 1
    """Events of one request: one is what most receivers expect."""
    timeout: float = 15.0
    """Seconds for a whole request; receivers should answer first and work later."""
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
    """What signs a webhook's requests, and what its requests carry beside. Never shown again, never logged."""

    current: str
    previous: str = ""
    """The secret before the last rotation; empty: there is none that is valid."""
    previous_until: int = 0
    headers: tuple[tuple[str, str], ...] = ()


NO_SECRETS = Secrets(current="")
"""A destination that signs nothing has these."""


class Replay(NamedTuple):
    """Events that are delivered once more, beside the cursor: those after `position`, up to a sequence."""

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
    """Why it is disabled, in a sentence; empty otherwise."""
    start: int
    """The sequence after which it began: earlier events are not meant for it."""
    cursor: Position
    replay: Replay | None
    delivered: int
    """Events that were delivered, repetitions included."""
    failed_attempts: int
    failing_since: int | None
    """When the first of the newest failures was, with no success since; None: the last attempt was a success."""
    last_error: str
    """What the newest failed attempt got for an answer."""
    last_error_at: int | None
    created_at: int
    updated_at: int
    revision: int
    """Grows with every change that an operator makes."""


class Status(NamedTuple):
    """A destination, and how far it is behind."""

    destination: Destination
    lag_events: int
    """Events of the ledger beyond the cursor, whether they match the filter or not."""
    lag_seconds: int
    """Since the first of them was stored; 0 if there is none."""
    set_aside: int
    """Events that are retried, or were given up by the service."""
    retry_after: int | None
    """When the next of them is tried again, in microseconds since the epoch; None: none is."""


class Failure(NamedTuple):
    """An event whose delivery to a destination failed."""

    sequence: int
    event_id: EventId
    state: FailureState
    attempts: int
    first_failed_at: int
    last_attempt_at: int
    next_attempt_at: int | None
    """None: there will be none."""
    status: int | None
    """The HTTP status of the last answer; None: there was none."""
    error: str
    """What the receiver answered, or why there was no answer."""


class SetAside(NamedTuple):
    """A failed attempt to deliver one event, as it is recorded."""

    sequence: int
    event_id: EventId
    attempts: int
    """How many there were, this one included."""
    delay: float | None
    """Seconds until the next one; None: there will be none."""
    status: int | None
    error: str


class Move(NamedTuple):
    """A cursor, or a replay, on its way: from where its mover saw it."""

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
    """Sequences of failures that were delivered after all."""
    delivered: int = 0
    failed_attempts: int = 0
    error: str | None = None
    """What the last failed attempt got for an answer; None: none failed."""
    disable: str | None = None
    """Why the destination is disabled now; None: it is not."""


class Watched(NamedTuple):
    """An active destination at one look: its revision, and how far its ledger goes."""

    workspace_id: WorkspaceId
    destination_id: str
    revision: int
    cursor: int
    head: int


class Assignment(NamedTuple):
    """All that is needed to deliver to a destination, read at one moment."""

    destination: Destination
    secrets: Secrets
    now: int
    """The database's clock."""
    ahead: Sequence[Failure]
    """Failures beyond the cursor: what stops an ordered destination, and what the operator skipped."""
