"""Vendors' wire contracts, served on our core. `Receiver` is the interface; `registry.py` lists its implementations.

A receiver is pure: it turns a request's bytes into drafts, and outcomes into an answer. It imports neither grpc nor
SQLAlchemy, reads no clock, and does not use a store. docs/receivers.md shows on one page how to add one.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from headgate_server.core.destinations import Fate
from headgate_server.core.errors import HeadgateError
from headgate_server.core.ledger import Break
from headgate_server.core.model import Draft, Outcome, Problem, RateLimit, Scope, StoredEvent
from headgate_server.core.types import EventHash, EventId

STATUSES = range(200, 600)
"""The statuses that an answer may have; envoy.yaml passes them on."""

_NO_HEADERS: Mapping[str, str] = {}


class HttpRequest(NamedTuple):
    """One request under a vendor's prefix."""

    method: str
    path: str
    """The vendor's own path, without our prefix and without the query."""
    query: Mapping[str, str]
    """Percent-decoded. A name that occurs twice has its last value."""
    body: bytes
    """The body after decompression."""
    now: int
    """When it arrived, in microseconds. A receiver reads no clock itself."""
    headers: Mapping[str, str] = _NO_HEADERS
    """By name in lower case, without the API key."""
    content_type: str = ""
    """The header as it was sent, with parameters; empty if none was sent."""


class Reply(NamedTuple):
    """An answer: a status of `STATUSES`, a body, and headers.

    A body of bytes is sent as it is, with `content_type`; `b""` is no body. Any other value is written as JSON.
    """

    status: int
    body: Any
    headers: tuple[tuple[str, str], ...] = ()
    """Names in lower case."""
    content_type: str = "application/json"


class Intake(NamedTuple):
    """The events of a request: one slot per event, and whether they are stored all or nothing."""

    slots: Sequence[Draft | Problem]
    atomic: bool = False
    items: Sequence[Any] = ()
    """The events as they were read, by position, if the answer shows parts of them."""


class Page(NamedTuple):
    """The result of a read: the events, the previous hash of each if requested, and the cursor of the next page."""

    events: Sequence[StoredEvent]
    cursor: str | None
    previous: Sequence[EventHash] = ()
    fates: Sequence[Fate] = ()
    """What became of the delivery of each event, if requested."""


class Search(NamedTuple):
    """Which of the receiver's events to read. `match` filters by the event's content, for which there is no column."""

    limit: int
    cursor: str | None = None
    type: str | None = None
    type_prefix: str | None = None
    source: str | None = None
    subject: str | None = None
    created_from: int | None = None
    """Inclusive, microseconds."""
    created_to: int | None = None
    """Exclusive, microseconds."""
    newest_first: bool = True
    current_only: bool = False
    """Leave out events that a later revision replaced."""
    with_previous: bool = False
    """Read the previous event_hash of each event."""
    with_fates: bool = False
    """Read what became of the delivery of each event."""
    fates: frozenset[Fate] | None = None
    """Only events whose delivery has one of these fates; None: all."""
    match: Callable[[StoredEvent], bool] | None = None


class Check(NamedTuple):
    """Which part of the workspace's ledger to verify."""

    limit: int
    created_from: int | None = None
    created_to: int | None = None


class Checked(NamedTuple):
    """The result of a verification."""

    events_checked: int
    breaks: Sequence[Break]


class Retried(NamedTuple):
    """The result of a retry."""

    event_id: EventId
    destinations: int
    """The number of destinations at which the event is tried again. It is 0 if the event had not failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Take:
    """An endpoint that stores events. `read` raises `InvalidRequest` if the request as a whole is refused. `reply`
    raises `QuotaExceeded` if the quota refused every event: see `answers.check_quota`.
    """

    read: Callable[[HttpRequest], Intake]
    reply: Callable[[HttpRequest, Intake, Sequence[Outcome]], Reply]
    list_name: str | None = None
    """The member of the body that lists the events; empty if the body is the list itself; None if it is one event."""
    request_key: bool = False
    """Whether the vendor's `Idempotency-Key` is honoured."""
    scopes: tuple[str, ...] = (Scope.EVENTS_WRITE,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Find:
    """An endpoint that lists the receiver's events."""

    read: Callable[[HttpRequest], Search]
    reply: Callable[[HttpRequest, Page], Reply]
    scopes: tuple[str, ...] = (Scope.EVENTS_READ,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Get:
    """An endpoint that shows one of the receiver's events. `read` returns its id, `reply` gets a page of that event. If
    there is none, the receiver's `refusal` gets a `NotFound`.
    """

    read: Callable[[HttpRequest], EventId]
    reply: Callable[[HttpRequest, Page], Reply]
    scopes: tuple[str, ...] = (Scope.EVENTS_READ,)
    with_previous: bool = False
    with_fates: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Verify:
    """An endpoint that verifies the workspace's ledger."""

    read: Callable[[HttpRequest], Check]
    reply: Callable[[HttpRequest, Checked], Reply]
    scopes: tuple[str, ...] = (Scope.LEDGER_READ,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """An endpoint that has one of the receiver's events delivered again where its delivery failed. `read` returns its
    id. If there is no such event, the receiver's `refusal` gets a `NotFound`.
    """

    read: Callable[[HttpRequest], EventId]
    reply: Callable[[HttpRequest, Retried], Reply]
    scopes: tuple[str, ...] = (Scope.EVENTS_WRITE,)


Endpoint = Take | Find | Get | Verify | Retry


class Receiver(ABC):
    """One vendor's API."""

    name: str
    """Its name in the prefix `/compat/<name>` and in every event row."""
    rate: RateLimit | None = None
    """The rate limit of a workspace that has no setting of its own."""
    rate_headers: bool = False
    """Whether answers carry `X-RateLimit-Limit`, `-Remaining` and `-Reset`."""
    scopes: tuple[str, ...] = ()
    """The vendor's own scopes for its clients' keys. They allow only this receiver's endpoints."""

    @abstractmethod
    def routes(self) -> Mapping[tuple[str, str], Endpoint]:
        """Return the endpoints by method and path. The last segment of a path, or the one before it, may be
        "{id}": any text that is not empty.
        """

    @abstractmethod
    def refusal(self, status: int, error: HeadgateError) -> Reply:
        """Return an error in the vendor's own body. `status` is our status of the error; the vendor's may differ."""
