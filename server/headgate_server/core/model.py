"""The values that the service passes around. Pure: no I/O, no clock, no wire format.

Times are integers: microseconds since 1970-01-01T00:00:00Z. Ids, hashes, identities and salts are bytes, each
kind with a type of its own (`types.py`). Values that are made for every event are named tuples: they are immutable, and
made several times faster than frozen dataclasses.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum
from operator import itemgetter
from types import MappingProxyType
from typing import NamedTuple

from headgate_server.core.reasons import Reason
from headgate_server.core.types import (
    Commitment,
    Dedupe,
    EventHash,
    EventId,
    Fingerprint,
    Identity,
    KeyDigest,
    Salt,
    WorkspaceId,
)

NATIVE = "native"
"""The receiver of Headgate's own API."""
CLOUDEVENTS = "cloudevents"
"""The receiver of CloudEvents."""


class Status(StrEnum):
    """What became of the event at one position. The API uses the same words."""

    ACCEPTED = "accepted"
    REPLACED = "replaced"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"
    REJECTED = "rejected"
    ABORTED = "aborted"


STORED = frozenset({Status.ACCEPTED, Status.REPLACED, Status.DUPLICATE})
"""The statuses that promise that the event is on disk and in the ledger."""


class Mismatch(Enum):
    """What is done with a draft if an event with other content has its identity."""

    CONFLICT = "conflict"
    DUPLICATE = "duplicate"
    REPLACE = "replace"
    CONFLICT_UNLESS_TIME = "conflict_unless_time"
    """A duplicate with a warning if only `occurred_at` differs, a conflict otherwise. It is for clients that fill in
    the time anew when they send an event again.
    """


class Problem(NamedTuple):
    """Why one event is not stored.

    `reason` is for programs. `field` is a path into the event; "" means the whole event. `message` is a sentence.
    """

    reason: Reason
    field: str
    message: str
    retryable: bool = False
    differing_fields: tuple[str, ...] = ()


class Draft(NamedTuple):
    """An event that passed validation and is not stored yet. `core/validate.py` makes drafts."""

    receiver: str
    type: str
    source: str
    """Empty if none was sent."""
    subject: str
    """Empty if none was sent."""
    occurred_at: int | None
    data: bytes | None
    """The payload's canonical JSON: an object, or any JSON value for receivers that take it. None if none was sent."""
    scope: str | None
    """The key is unique within this scope. None without a key."""
    key: str | None
    dedupe: Dedupe | None
    """The first 16 bytes of the identity, which the unique index contains; None without a key."""
    salt: Salt
    commitment: Commitment
    """SHA-256(salt || canonical)."""
    identity: Identity
    """SHA-256 of (receiver, scope, key); empty without a key."""
    canonical: bytes
    """The canonical content: everything that was sent, except the identity."""
    on_mismatch: Mismatch = Mismatch.CONFLICT
    warnings: tuple[str, ...] = ()
    attributes: bytes | None = None
    """The canonical JSON of the attributes, an object with members (docs/design/canonical.md). None if there are none.
    """
    refused: Problem | None = None
    """Why it must not be stored as a new event. If it is stored already, its outcome is that of every resent event."""

    def stored(
        self, workspace_id: WorkspaceId, event_id: EventId, sequence: int, created_at: int, event_hash: EventHash
    ) -> "StoredEvent":
        """Return the row that is stored for this draft."""
        return StoredEvent._make(
            (workspace_id, event_id, sequence, created_at, *_shared(self), event_hash, self.attributes)
        )


class Link(NamedTuple):
    """A stored event's place in its ledger, with the salt, the commitment and the time that a resent event is compared
    with.
    """

    id: EventId
    sequence: int
    created_at: int
    event_hash: EventHash
    salt: Salt
    commitment: Commitment
    occurred_at: int | None = None


class Outcome(NamedTuple):
    """What became of the event at one position. `link` belongs to the stored event; for `duplicate` and `conflict` that
    is the original.
    """

    status: Status
    link: Link | None = None
    problem: Problem | None = None
    warnings: tuple[str, ...] = ()


class Head(NamedTuple):
    """The last link of a workspace's ledger. Sequence 0 carries the genesis hash and created_at 0."""

    sequence: int
    hash: EventHash
    created_at: int


class Usage(NamedTuple):
    """The number of events that a workspace has stored in a month (UTC, as a number such as 202611), and its quota for
    each month. None means no quota.
    """

    quota: int | None
    month: int
    events: int


UNLIMITED = Usage(None, 0, 0)


class StoredEvent(NamedTuple):
    """One row of the ledger, as stored. Only the order of these fields defines the order of columns."""

    workspace_id: WorkspaceId
    id: EventId
    sequence: int
    created_at: int
    receiver: str
    type: str
    source: str
    subject: str
    occurred_at: int | None
    data: bytes | None
    scope: str | None
    key: str | None
    dedupe: Dedupe | None
    salt: Salt
    commitment: Commitment
    event_hash: EventHash
    attributes: bytes | None = None


_SHARED = tuple(name for name in StoredEvent._fields if name in Draft._fields and name != "attributes")
_shared = itemgetter(*map(Draft._fields.index, _SHARED))
"""Return the fields from receiver to commitment, which a draft shares with its row, in the row's order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestKey:
    """A request's `Idempotency-Key`, within `scope` (the method, or a receiver's path) of its workspace."""

    scope: str
    key: str
    fingerprint: Fingerprint
    """SHA-256 over the raw body and the options. A second request under the key must have the same fingerprint."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """How a caller's answer is made, before the commit, and the request key that it is stored under, if any."""

    encode: Callable[[Sequence[Outcome]], bytes]
    """Makes the answer from the outcomes. It runs under the ledger's lock, so it must be quick and must not fail: if it
    raises, nothing is stored.
    """
    request_key: RequestKey | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """One caller's events, which are decided together. Each position has a slot: a draft, or why there is none."""

    workspace_id: WorkspaceId
    slots: Sequence[Draft | Problem]
    atomic: bool = False
    answer: Answer | None = None

    @property
    def request_key(self) -> RequestKey | None:
        """The key under which the answer is stored and looked up."""
        return None if self.answer is None else self.answer.request_key


class Settled(NamedTuple):
    """The submission was decided: one outcome for each slot, in order."""

    outcomes: Sequence[Outcome]


class Replayed(NamedTuple):
    """The same request used the request key before. This is its stored answer."""

    answer: bytes


class KeyReused(NamedTuple):
    """A different request used the request key before."""


Decision = Settled | Replayed | KeyReused


class StoredAnswer(NamedTuple):
    """The answer to an earlier request, as stored under its request key."""

    fingerprint: Fingerprint
    answer: bytes


class Scope(StrEnum):
    """What an API key may do. A receiver may have more scopes of its own: `Receiver.scopes`."""

    EVENTS_WRITE = "events:write"
    EVENTS_READ = "events:read"
    LEDGER_READ = "ledger:read"
    ADMIN = "admin"


class RateLimit(NamedTuple):
    """At most `requests` in `period` microseconds, evenly spread; at most `burst` of them at once."""

    requests: int
    period: int
    burst: int


class Admission(NamedTuple):
    """Whether a request is within its rate limit."""

    allowed: bool
    remaining: int
    """How many more requests are allowed at once."""
    retry_after: int
    """Microseconds until one request is allowed again."""
    reset_after: int
    """Microseconds until the whole burst is allowed again."""


class Workspace(NamedTuple):
    """A tenant. `rates` are the limits by receiver that differ from the receiver's default; None means no limit."""

    id: WorkspaceId
    name: str
    rates: Mapping[str, RateLimit | None] = MappingProxyType({})
    types_revision: int = 0
    """Grows with every change of its event types. 0: it has never had one, so its events are not checked."""
    unknown_types: str = "accept"
    """What is done with an event of an unknown type: a value of `event_types.Unknown`."""


class KeyLimits(NamedTuple):
    """The rate limits of one API key; None means no limit."""

    calls: RateLimit | None = None
    events: RateLimit | None = None


NO_LIMITS = KeyLimits()


class ApiKey(NamedTuple):
    """An API key as stored: its SHA-256, never the key itself."""

    id: str
    digest: KeyDigest
    prefix: str
    """The key's first characters, which distinguish keys in a list."""
    workspace: Workspace
    scopes: frozenset[str]
    created_at: int
    expires_at: int | None
    revoked_at: int | None
    name: str = ""
    limits: KeyLimits = NO_LIMITS
    last_used_at: int | None = None
    """The minute of the last use, known a minute or two later."""
    successor: str | None = None
    """The id of the key that replaces this one."""

    @property
    def lifetime(self) -> int | None:
        """The time from its creation to its expiry, None if it does not expire."""
        return None if self.expires_at is None else self.expires_at - self.created_at

    def state(self, now: int) -> str:
        """Return `valid`, `rotated` (still valid, and replaced), `expired` or `revoked`."""
        if self.revoked_at is not None:
            return "revoked"
        if self.expires_at is not None and self.expires_at <= now:
            return "expired"
        return "valid" if self.successor is None else "rotated"


@dataclass(frozen=True, slots=True, kw_only=True)
class EventQuery:
    """Which events of one workspace to read, in which order, and from which one on."""

    workspace_id: WorkspaceId
    limit: int
    receiver: str | None = None
    type: str | None = None
    type_prefix: str | None = None
    source: str | None = None
    subject: str | None = None
    dedupe: Dedupe | None = None
    """Only the event that has this identity now."""
    current_only: bool = False
    """Only events that have an identity and still have it: a later revision takes it over from the one it replaces."""
    created_from: int | None = None
    """Inclusive."""
    created_to: int | None = None
    """Exclusive."""
    newest_first: bool = False
    after: EventId | None = None
    """The last id of the previous page. The next page begins after it, in the direction of the order."""
    size: int | None = None
    """About how many bytes of content a page may hold beside its first event; None: as many as any page may."""


class EventPage(NamedTuple):
    """Events, and the id after which the next page begins; None at the end. A page may have fewer events than
    requested, even none.
    """

    events: Sequence[StoredEvent]
    resume: EventId | None


class Lease(NamedTuple):
    """The right of one process to do one job. `epoch` grows by one whenever a process takes the lease: it identifies
    one holder's term, and fences that holder's writes.
    """

    name: str
    holder: str
    epoch: int


class Position(NamedTuple):
    """How far a follower is in a ledger: the last event that it processed; 0 and None before the first."""

    sequence: int = 0
    id: EventId | None = None


class Lagging(NamedTuple):
    """A ledger with events beyond a follower's cursor: the cursor's position, and the sequence of the ledger's head."""

    workspace_id: WorkspaceId
    position: Position
    head: int
