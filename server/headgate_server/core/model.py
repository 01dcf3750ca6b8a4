"""The values that the service passes around. Pure: no I/O, no clock, no wire format.

Times are integers: microseconds since 1970-01-01T00:00:00Z. Ids are the 16 bytes of a UUIDv7. Hashes are 32 bytes.
Values made once per event are named tuples: immutable, and several times cheaper to make than frozen dataclasses.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum
from operator import itemgetter
from types import MappingProxyType
from typing import Any, NamedTuple

from headgate_server.core.reasons import Reason

NATIVE = "native"
"""The receiver of Headgate's own API."""


class Status(StrEnum):
    """What became of the event at one position; the words of the wire."""

    ACCEPTED = "accepted"
    REPLACED = "replaced"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"
    REJECTED = "rejected"
    ABORTED = "aborted"


STORED = frozenset({Status.ACCEPTED, Status.REPLACED, Status.DUPLICATE})
"""The statuses that promise that the event is on disk and in the ledger."""


class Mismatch(Enum):
    """What a draft asks for when its identity is taken by an event with other content."""

    CONFLICT = "conflict"
    DUPLICATE = "duplicate"
    REPLACE = "replace"


class Problem(NamedTuple):
    """Why one event is not stored.

    `reason` is for programs, `field` a path into the event ("" for the whole of it), `message` a
    sentence.
    """

    reason: Reason
    field: str
    message: str
    retryable: bool = False
    differing_fields: tuple[str, ...] = ()


class Draft(NamedTuple):
    """An event that passed validation and is not stored yet. `core/validate.py` makes them."""

    receiver: str
    type: str
    source: str
    """Empty where none was sent."""
    subject: str
    """Empty where none was sent."""
    occurred_at: int | None
    data: bytes | None
    """The payload's canonical JSON; None where none was sent."""
    scope: str | None
    """What the key is unique within; None without a key."""
    key: str | None
    dedupe: bytes | None
    """What the unique index holds: the first 16 bytes of the identity; None without a key."""
    salt: bytes
    commitment: bytes
    """SHA-256(salt || canonical)."""
    identity: bytes
    """SHA-256 of (receiver, scope, key); empty without a key."""
    canonical: bytes
    """The canonical content, all that was sent except the identity."""
    on_mismatch: Mismatch = Mismatch.CONFLICT
    warnings: tuple[str, ...] = ()

    def stored(
        self, workspace_id: int, event_id: bytes, sequence: int, created_at: int, event_hash: bytes
    ) -> "StoredEvent":
        """Return the row that is stored of it."""
        return StoredEvent._make((workspace_id, event_id, sequence, created_at, *_shared(self), event_hash))


class Link(NamedTuple):
    """A stored event as its ledger knows it, with what a resend is compared by."""

    id: bytes
    sequence: int
    created_at: int
    event_hash: bytes
    salt: bytes
    commitment: bytes


class Outcome(NamedTuple):
    """What became of the event at one position. `link` is the stored event's: for `duplicate` and `conflict` the
    original's.
    """

    status: Status
    link: Link | None = None
    problem: Problem | None = None
    warnings: tuple[str, ...] = ()


class Head(NamedTuple):
    """The last link of a workspace's ledger. Sequence 0 carries the genesis hash and created_at 0."""

    sequence: int
    hash: bytes
    created_at: int


class Usage(NamedTuple):
    """What a workspace has stored in a month (UTC, as a number such as 202611), and may store in each; None: any
    number.
    """

    quota: int | None
    month: int
    events: int


UNLIMITED = Usage(None, 0, 0)


class StoredEvent(NamedTuple):
    """One row of the ledger, as stored. The order of its fields is the one place that says the order of columns."""

    workspace_id: int
    id: bytes
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
    dedupe: bytes | None
    salt: bytes
    commitment: bytes
    event_hash: bytes


class StoredHead(NamedTuple):
    """A row of `heads`, as stored: what a check of the ledger reads, and takes nothing of for granted."""

    sequence: Any
    hash: Any
    created_at: Any
    month: Any
    """The month (UTC) in which the next microsecond after `created_at` lies, such as 202611; 0 in an empty ledger."""
    month_events: Any
    """The events of that month."""


class LedgerEnd(NamedTuple):
    """Where a ledger ends, read at one moment: its head, and the event with the highest id; None: there is none."""

    head: StoredHead | None
    newest: StoredEvent | None


class StoredLedger(NamedTuple):
    """A ledger as the tables name it. One without a `name` has rows, and no row in `workspaces`."""

    workspace_id: Any
    name: Any


_shared = itemgetter(*(Draft._fields.index(name) for name in StoredEvent._fields if name in Draft._fields))
"""What a draft and its row have in common, in the row's order: receiver to commitment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestKey:
    """A request's `Idempotency-Key`, within `scope` (the method, or a receiver's path) of its workspace."""

    scope: str
    key: str
    fingerprint: bytes
    """SHA-256 over the raw body and the options: a second request under the key must have the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A caller's answer, which is made before the commit, and the request key that it is stored under, if any."""

    encode: Callable[[Sequence[Outcome]], bytes]
    """Makes the answer of the outcomes. It runs under the ledger's lock, so it must be quick and must not fail: what it
    raises stores nothing.
    """
    request_key: RequestKey | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """One caller's events, decided as one: a slot per position, either a draft or why it is none."""

    workspace_id: int
    slots: Sequence[Draft | Problem]
    atomic: bool = False
    answer: Answer | None = None

    @property
    def request_key(self) -> RequestKey | None:
        """The key under which the answer is stored, and found again."""
        return None if self.answer is None else self.answer.request_key


class Settled(NamedTuple):
    """A submission was decided: one outcome per slot, in order."""

    outcomes: Sequence[Outcome]


class Replayed(NamedTuple):
    """The request key was used before, by the same request: its stored answer."""

    answer: bytes


class KeyReused(NamedTuple):
    """The request key was used before, by another request."""


Decision = Settled | Replayed | KeyReused


class StoredAnswer(NamedTuple):
    """The answer to an earlier request, as stored under its request key."""

    fingerprint: bytes
    answer: bytes


class Scope(StrEnum):
    """What an API key may do. A receiver may have scopes of its own beside these: `Receiver.scopes`."""

    EVENTS_WRITE = "events:write"
    EVENTS_READ = "events:read"
    LEDGER_READ = "ledger:read"
    ADMIN = "admin"


class RateLimit(NamedTuple):
    """At most `requests` in `period` microseconds, evenly; `burst` of them at once."""

    requests: int
    period: int
    burst: int


class Admission(NamedTuple):
    """Whether a request is within its rate, how many more are at once, and after how many microseconds one, and all,
    are again.
    """

    allowed: bool
    remaining: int
    retry_after: int
    reset_after: int


class Workspace(NamedTuple):
    """A tenant. `rates` are its own limits by receiver, where they differ from the receiver's; None there: no limit."""

    id: int
    name: str
    rates: Mapping[str, RateLimit | None] = MappingProxyType({})


class ApiKey(NamedTuple):
    """An API key as stored: never the key itself, only its SHA-256."""

    id: str
    digest: bytes
    prefix: str
    """The first characters, to tell keys apart in a list."""
    workspace: Workspace
    scopes: frozenset[str]
    created_at: int
    expires_at: int | None
    revoked_at: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EventQuery:
    """Which events of one workspace, in which order, from where."""

    workspace_id: int
    limit: int
    receiver: str | None = None
    type: str | None = None
    type_prefix: str | None = None
    source: str | None = None
    subject: str | None = None
    dedupe: bytes | None = None
    """Only the event that holds this identity now."""
    current_only: bool = False
    """Only events that hold their identity now: none that a later revision replaced, and none without one."""
    created_from: int | None = None
    """Inclusive."""
    created_to: int | None = None
    """Exclusive."""
    newest_first: bool = False
    after: bytes | None = None
    """The id at which the page before ended; exclusive in the direction of the order."""


class LedgerRange(NamedTuple):
    """Which events of one ledger to check, in the order of their ids. None: no bound."""

    workspace_id: int
    first: bytes | None = None
    """Inclusive."""
    before: bytes | None = None
    """Exclusive."""
    last: Any = None
    """Inclusive: the id of a stored event, whatever it is."""


class EventPage(NamedTuple):
    """Events, and the id from which to go on; None at the end. It may hold fewer events than asked for, even none."""

    events: Sequence[StoredEvent]
    resume: bytes | None


class Lease(NamedTuple):
    """The right to do one thing, held by one process. `epoch` grows by one whenever it is taken: it names one holder's
    time in office, and fences that holder's writes.
    """

    name: str
    holder: str
    epoch: int


class Position(NamedTuple):
    """How far a follower has come in a ledger: the last event that it has dealt with; None and 0 before the first."""

    sequence: int = 0
    id: bytes | None = None


class Lagging(NamedTuple):
    """A ledger that has events beyond a follower's cursor: its cursor, and the sequence of the ledger's head."""

    workspace_id: int
    position: Position
    head: int
