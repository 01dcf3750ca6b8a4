"""What both stores do alike: everything but the append, the clock and the connections."""

import os
from abc import abstractmethod
from collections.abc import Callable, Sequence
from types import EllipsisType
from typing import Any, TypeVar

from sqlalchemy import Connection

from headgate_server.core.errors import NotFound, Unavailable
from headgate_server.core.model import (
    ApiKey,
    EventPage,
    EventQuery,
    Head,
    LedgerEnd,
    LedgerRange,
    RateLimit,
    StoredEvent,
    StoredLedger,
    Usage,
    Workspace,
)
from headgate_server.store import NOT_DURABLE, Store, proof, sql

T = TypeVar("T")

_THOROUGH_BYTES = 64 * 1024
"""Of a thorough probe: more than the room that small commits leave at the end of a log or a file."""


def not_durable(message: str) -> Unavailable:
    """Return what to raise where the database would not keep what it acknowledges."""
    return Unavailable(f"{message}: it would lose acknowledged events.", reason=NOT_DURABLE)


class SqlStore(Store):
    """A store whose reads and small writes are functions of an open SQLAlchemy connection."""

    def __init__(self) -> None:
        # One row for each store that is open: processes that probe at the same time wait for no row of each other's.
        self._probe_key = os.urandom(16)

    @abstractmethod
    async def _read(self, work: Callable[[Connection], T]) -> T:
        """Return what `work` read. Raises `errors.Unavailable`."""

    @abstractmethod
    async def _write(self, work: Callable[[Connection], T]) -> T:
        """Return what `work` did, once it is committed. Raises `errors.Unavailable`."""

    @abstractmethod
    def _now(self, connection: Connection) -> int:
        """Return the database's clock."""

    @abstractmethod
    def _check_durability(self, connection: Connection) -> None:
        """Raise `errors.Unavailable` if the database would not keep what it acknowledges."""

    @abstractmethod
    def _insert_workspace(self, connection: Connection, name: str) -> int | None:
        """Return the id of the workspace just made, None if there is one of this name."""

    async def head(self, workspace_id: int) -> Head:
        """Return the last link of the workspace's ledger."""
        found = await self._read(lambda connection: sql.head(connection, workspace_id))
        if found is None:
            raise NotFound("There is no such workspace.")
        return found

    async def fetch(self, workspace_id: int, ids: Sequence[bytes]) -> list[StoredEvent]:
        """Return those of the workspace's events that have one of these ids, in the order of their ids."""
        return await self._read(lambda connection: sql.fetch(connection, workspace_id, ids))

    async def events(self, query: EventQuery) -> EventPage:
        """Return one page of a workspace's events."""
        if query.dedupe is None:
            return await self._read(lambda connection: sql.page(connection, query))
        holder = (await self.lookup(query.workspace_id, [query.dedupe])).get(query.dedupe)
        if holder is None:
            return EventPage([], None)
        return await self._read(lambda connection: sql.matching(connection, query, holder.id))

    async def hashes_before(self, workspace: Workspace, ids: Sequence[bytes]) -> dict[bytes, bytes]:
        """Return, for each of these events, the event_hash of the one before it."""
        return await self._read(lambda connection: sql.hashes_before(connection, workspace, ids))

    async def ledgers(self) -> list[StoredLedger]:
        """Return every ledger that the tables name."""
        return await self._read(proof.ledgers)

    async def ledger_end(self, workspace_id: int) -> LedgerEnd:
        """Return the head and the newest event as they were at one moment."""
        return await self._read(lambda connection: proof.end(connection, workspace_id))

    async def ledger_page(self, wanted: LedgerRange, limit: int, after: Any = None) -> EventPage:
        """Return the events of a range that follow the id `after`."""
        return await self._read(lambda connection: proof.page(connection, wanted, limit, after))

    async def ledger_event(self, workspace_id: int, event_id: Any) -> StoredEvent | None:
        """Return the event of this id."""
        return await self._read(lambda connection: proof.event(connection, workspace_id, event_id))

    async def ledger_event_before(self, workspace_id: int, first: bytes) -> StoredEvent | None:
        """Return the last event whose id is below `first`."""
        return await self._read(lambda connection: proof.before(connection, workspace_id, first))

    async def usage(self, workspace_id: int) -> Usage:
        """Return what the workspace may store a month, and has stored in the current one."""
        found = await self._read(lambda connection: sql.usage(connection, workspace_id, self._now(connection)))
        if found is None:
            raise NotFound("There is no such workspace.")
        return found

    async def set_quota(self, workspace_id: int, quota: int | None) -> None:
        """Set how many events the workspace may store a month."""
        await self._write(lambda connection: sql.set_quota(connection, workspace_id, quota))

    async def set_rate(self, workspace_id: int, receiver: str, rate: RateLimit | EllipsisType | None) -> None:
        """Set the workspace's own limit for a receiver."""
        await self._write(lambda connection: sql.set_rate(connection, workspace_id, receiver, rate))

    async def create_workspace(self, name: str) -> Workspace:
        """Return the workspace of this name, made if there is none."""

        def create(connection: Connection) -> Workspace | None:
            made = self._insert_workspace(connection, name)
            return sql.workspace(connection, name) if made is None else sql.add_workspace(connection, made, name)

        found = await self._write(create)
        if found is None:
            raise NotFound(f"The workspace {name!r} was removed while it was looked up.")
        return found

    async def workspace(self, name: str) -> Workspace | None:
        """Return the workspace of this name."""
        return await self._read(lambda connection: sql.workspace(connection, name))

    async def workspaces(self) -> list[Workspace]:
        """Return all workspaces by name."""
        return await self._read(sql.all_workspaces)

    async def add_key(self, key: ApiKey) -> None:
        """Store an API key."""
        await self._write(lambda connection: sql.add_key(connection, key))

    async def find_key(self, digest: bytes) -> ApiKey | None:
        """Return the key with this SHA-256."""
        return await self._read(lambda connection: sql.find_key(connection, digest))

    async def list_keys(self, workspace_id: int | None = None) -> list[ApiKey]:
        """Return the keys of one workspace, or of all."""
        return await self._read(lambda connection: sql.list_keys(connection, workspace_id))

    async def revoke_key(self, key_id: str, at: int) -> bool:
        """Revoke a key."""
        return await self._write(lambda connection: sql.revoke_key(connection, key_id, at))

    async def now(self) -> int:
        """Return the clock that `created_at` comes from."""
        return await self._read(self._now)

    async def ping(self, *, thorough: bool = False) -> None:
        """Return if an event can be stored durably now."""

        await self._write(lambda connection: self._try_out(connection, thorough))

    def _try_out(self, connection: Connection, thorough: bool) -> None:
        self._check_durability(connection)
        size = _THOROUGH_BYTES if thorough else 0
        sql.try_out(connection, self._probe_key, self._now(connection), os.urandom(size))

    async def purge_answers(self) -> int:
        """Delete the stored answers whose time is over, a chunk at a time."""
        purged = 0
        while True:
            chunk = await self._write(lambda connection: sql.purge_answers(connection, self._now(connection)))
            purged += chunk
            if chunk < sql.PURGE_CHUNK:
                return purged
