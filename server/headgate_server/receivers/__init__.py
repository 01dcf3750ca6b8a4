"""Vendors' wire contracts, served on our core. `Receiver` is the promise; `registry.py` lists who keeps it.

A receiver is pure: a request's bytes become drafts, outcomes become an answer. It imports neither grpc nor
SQLAlchemy, reads no clock, and knows no store. docs/receivers.md shows in one page how to add one.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from headgate_server.core.errors import HeadgateError
from headgate_server.core.ledger import Break
from headgate_server.core.model import Draft, Outcome, Problem, RateLimit, Scope, StoredEvent

STATUSES = range(200, 600)
"""What may be the status of an answer; envoy.yaml passes these on."""

_NO_HEADERS: Mapping[str, str] = {}


class HttpRequest(NamedTuple):
    """One request under a vendor's prefix."""

    method: str
    path: str
    """The vendor's own path, without our prefix and without the query."""
    query: Mapping[str, str]
    """Percent-decoded; of a name that stands twice the last value."""
    body: bytes
    """Inflated."""
    now: int
    """When it came, in microseconds: a receiver reads no clock of its own."""
    headers: Mapping[str, str] = _NO_HEADERS
    """By name in lower case, without the key that the request came with."""
    content_type: str = ""
    """As it was sent, parameters and all; empty where none was."""


class Reply(NamedTuple):
    """An answer: a status of `STATUSES`, a body, and headers beside it.

    A body of bytes is sent as it is, with `content_type`; `b""` is no body. Any other value is written as JSON.
    """

    status: int
    body: Any
    headers: tuple[tuple[str, str], ...] = ()
    """Names in lower case."""
    content_type: str = "application/json"


class Intake(NamedTuple):
    """What a request brings: a slot per event, and whether all or nothing."""

    slots: Sequence[Draft | Problem]
    atomic: bool = False
    items: Sequence[Any] = ()
    """The events as they were read, by position, where the answer shows some of that."""


class Page(NamedTuple):
    """What a read found: the events, the hash before each where it was asked for, and the cursor of the next page."""

    events: Sequence[StoredEvent]
    cursor: str | None
    previous: Sequence[bytes] = ()


class Search(NamedTuple):
    """Which of the receiver's events to read. What a column cannot tell, `match` tells from the event itself."""

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
    """Bring the event_hash before each event."""
    match: Callable[[StoredEvent], bool] | None = None


class Check(NamedTuple):
    """Which part of the workspace's ledger to verify."""

    limit: int
    created_from: int | None = None
    created_to: int | None = None


class Checked(NamedTuple):
    """What verifying found."""

    events_checked: int
    breaks: Sequence[Break]


@dataclass(frozen=True, slots=True, kw_only=True)
class Take:
    """An endpoint that takes events. `read` raises `InvalidRequest` where the request as a whole is not to be taken.
    `reply` raises `QuotaExceeded` where nothing was stored because of the quota: `common.check_quota`.
    """

    read: Callable[[HttpRequest], Intake]
    reply: Callable[[HttpRequest, Intake, Sequence[Outcome]], Reply]
    request_key: bool = False
    """Whether the vendor's `Idempotency-Key` is heard."""
    scopes: tuple[str, ...] = (Scope.EVENTS_WRITE,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Find:
    """An endpoint that lists the receiver's events."""

    read: Callable[[HttpRequest], Search]
    reply: Callable[[HttpRequest, Page], Reply]
    scopes: tuple[str, ...] = (Scope.EVENTS_READ,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Get:
    """An endpoint that shows one of the receiver's events: `read` names its id, `reply` gets a page of that one.
    Where there is none the receiver's `refusal` gets a `NotFound`.
    """

    read: Callable[[HttpRequest], bytes]
    reply: Callable[[HttpRequest, Page], Reply]
    scopes: tuple[str, ...] = (Scope.EVENTS_READ,)
    with_previous: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Verify:
    """An endpoint that verifies the workspace's ledger."""

    read: Callable[[HttpRequest], Check]
    reply: Callable[[HttpRequest, Checked], Reply]
    scopes: tuple[str, ...] = (Scope.LEDGER_READ,)


Endpoint = Take | Find | Get | Verify


class Receiver(ABC):
    """One vendor's API."""

    name: str
    """What stands in our prefix and in every event row: `/compat/<name>`."""
    rate: RateLimit | None = None
    """Requests that a workspace may make to it, unless its own setting says otherwise."""
    rate_headers: bool = False
    """Whether answers carry `X-RateLimit-Limit`, `-Remaining` and `-Reset`."""
    scopes: tuple[str, ...] = ()
    """The vendor's own scopes, which its clients' keys are made with. They open its endpoints and nothing else."""

    @abstractmethod
    def routes(self) -> Mapping[tuple[str, str], Endpoint]:
        """Return the endpoints by method and path; a path that ends in "/{id}" takes one more segment."""

    @abstractmethod
    def refusal(self, status: int, error: HeadgateError) -> Reply:
        """Return an error in the vendor's own body. `status` is what our error maps to; the vendor's may differ."""
