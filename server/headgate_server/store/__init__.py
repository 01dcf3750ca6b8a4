"""Where ledgers live. `Store` is the promise that both dialects keep; `tests/contract` holds them to it."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from types import EllipsisType
from typing import Any

from headgate_server.core.model import (
    Admission,
    ApiKey,
    Decision,
    EventPage,
    EventQuery,
    Head,
    LedgerEnd,
    LedgerRange,
    Link,
    RateLimit,
    StoredEvent,
    StoredLedger,
    Submission,
    Usage,
    Workspace,
)


class DataRefused(Exception):
    """The database refused a value of the group, and nothing of the group was stored. The caller tries each
    submission alone.
    """


class Store(ABC):
    """A database of ledgers.

    Every method may raise `errors.Unavailable`: the database could not be reached or did not answer in time, and
    nothing was changed. No other exception of a driver leaves a store. Methods are safe to call concurrently from
    one event loop.
    """

    one_workspace_per_group = False
    """Whether `append` takes submissions of one workspace alone."""

    @abstractmethod
    async def append(self, submissions: Sequence[Submission], *, wait: bool = True) -> list[Decision | None]:
        """Decide and store submissions, in order, in one transaction; one decision each.

        When it returns, all that is `accepted` or `replaced` MUST be on disk, linked into its workspace's ledger,
        and visible to every reader, and every stored answer with it. Submissions are decided under the lock of their
        workspace's head, so concurrent calls, also of other processes, MUST behave as if they came one after the
        other: sequences have no gap, an identity is accepted once, and a request key answers once.

        With `wait=False` a workspace whose head is locked by somebody else is skipped: its submissions get None, and
        nothing of theirs is stored.

        Raises `DataRefused` (nothing stored, try each submission alone), `errors.Unavailable` (nothing stored),
        `errors.OutcomeUnknown` (the connection was lost during COMMIT and the store could not find out what became
        of it).
        """

    @abstractmethod
    async def lookup(self, workspace_id: int, dedupes: Sequence[bytes]) -> dict[bytes, Link]:
        """Return the links of the events that hold these identities now, without a lock: advisory."""

    @abstractmethod
    async def head(self, workspace_id: int) -> Head:
        """Return the last link of the workspace's ledger; of an empty ledger sequence 0 and the genesis hash."""

    @abstractmethod
    async def fetch(self, workspace_id: int, ids: Sequence[bytes]) -> list[StoredEvent]:
        """Return those of the workspace's events that have one of these ids, in the order of their ids."""

    @abstractmethod
    async def events(self, query: EventQuery) -> EventPage:
        """Return one page of a workspace's events in the order of their ids.

        Looks at no more than `SCAN_LIMIT` rows and returns no more than about `PAGE_BYTES` of content (but at least
        one event where there is one): `resume` tells from where to go on. `resume` is None only if the end was
        reached.
        """

    @abstractmethod
    async def hashes_before(self, workspace: Workspace, ids: Sequence[bytes]) -> dict[bytes, bytes]:
        """Return, for each of these events, the event_hash of the one before it; for the first event the genesis
        hash.
        """

    @abstractmethod
    async def ledgers(self) -> list[StoredLedger]:
        """Return every ledger that the tables name, those without a workspace too, with its name as stored."""

    @abstractmethod
    async def ledger_end(self, workspace_id: int) -> LedgerEnd:
        """Return the head and the newest event as they were at one moment, every cell as it is stored."""

    @abstractmethod
    async def ledger_page(self, wanted: LedgerRange, limit: int, after: Any = None) -> EventPage:
        """Return the events of a range that follow the id `after`, in the order of their ids, every cell as it is
        stored.

        At most `limit`, and no more than about `PAGE_BYTES` of content; `resume` is what `after` is next.
        """

    @abstractmethod
    async def ledger_event(self, workspace_id: int, event_id: Any) -> StoredEvent | None:
        """Return the event of this id, every cell as it is stored."""

    @abstractmethod
    async def ledger_event_before(self, workspace_id: int, first: bytes) -> StoredEvent | None:
        """Return the last event whose id is below `first`, every cell as it is stored."""

    @abstractmethod
    async def usage(self, workspace_id: int) -> Usage:
        """Return what the workspace may store a month, and what it has stored in the current one: the month in which
        an event that is appended now would be counted.
        """

    @abstractmethod
    async def set_quota(self, workspace_id: int, quota: int | None) -> None:
        """Set how many events the workspace may store a month; None for any number. It holds from the next append
        on.
        """

    @abstractmethod
    async def set_rate(self, workspace_id: int, receiver: str, rate: RateLimit | EllipsisType | None) -> None:
        """Set the workspace's own limit for a receiver; None for no limit at all, ... for the receiver's own again."""

    @abstractmethod
    async def admit(self, workspace_id: int, receiver: str, rate: RateLimit) -> Admission:
        """Count one request against a rate limit (GCRA), in one statement, exact over all processes.

        A refused request is not counted. What was counted need not survive a power cut.
        """

    @abstractmethod
    async def create_workspace(self, name: str) -> Workspace:
        """Return the workspace of this name, made if there is none. Its ledger is empty, not absent."""

    @abstractmethod
    async def workspace(self, name: str) -> Workspace | None:
        """Return the workspace of this name, None if there is none."""

    @abstractmethod
    async def workspaces(self) -> list[Workspace]:
        """Return all workspaces by name."""

    @abstractmethod
    async def add_key(self, key: ApiKey) -> None:
        """Store an API key."""

    @abstractmethod
    async def find_key(self, digest: bytes) -> ApiKey | None:
        """Return the key with this SHA-256, revoked and expired ones too; None if there is none."""

    @abstractmethod
    async def list_keys(self, workspace_id: int | None = None) -> list[ApiKey]:
        """Return the keys of one workspace, or of all, oldest first."""

    @abstractmethod
    async def revoke_key(self, key_id: str, at: int) -> bool:
        """Revoke a key; False if there is none of that id. A key that was revoked before stays revoked as of then."""

    @abstractmethod
    async def purge_answers(self) -> int:
        """Delete the stored answers whose time is over (`ANSWER_LIFETIME`); return how many."""

    @abstractmethod
    async def now(self) -> int:
        """Return the clock that `created_at` comes from: the database's, in microseconds since the epoch."""

    @abstractmethod
    async def ping(self, *, thorough: bool = False) -> None:
        """Return if an event can be stored durably now, raise `errors.Unavailable` if not.

        It writes what an append writes, takes that back, and commits a small row of its own, which costs an fsync:
        call it every few seconds at most. `thorough` writes and commits some tens of kilobytes: for a store that just
        failed, since the last pages of a full disk may still take a small row. Also raises if the database would not
        keep, in a power cut, what it acknowledges (`STORE_NOT_DURABLE`).
        """

    @abstractmethod
    async def close(self) -> None:
        """Finish what is under way and let go of every connection."""


NOT_DURABLE = "STORE_NOT_DURABLE"
"""The reason of `errors.Unavailable` where the database is set to lose, in a power cut, what it acknowledges."""

SCAN_LIMIT = 10_000
"""Rows that one page of `events` looks at: some milliseconds of work, whatever the filter."""

PAGE_BYTES = 4 * 1024 * 1024
"""Content that one page of `events` returns: it fits beside others in memory and under every default limit of an
HTTP client.
"""

ANSWER_LIFETIME = 24 * 3600 * 1_000_000
"""How long a request key answers, in microseconds: 24 hours, as the vendors' contracts say."""
