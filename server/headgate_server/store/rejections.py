"""Rejections: events that were refused, and the numbers of those that were left out."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, delete, func, select, update
from sqlalchemy.dialects import postgresql

from headgate_server.core import ledger
from headgate_server.core.rejections import Rejection, RejectionPage, RejectionQuery
from headgate_server.core.types import EventId, RejectionId, WorkspaceId
from headgate_server.store.database import Database
from headgate_server.store.schema import omitted_rejections, rejections

PAGE_BYTES = 4 * 1024 * 1024
"""The most bytes of events in a page. A page of stored events has the same bound."""

TRIM_CHUNK = 500
"""The most rejections that one transaction deletes. Each may be large, and on SQLite every append waits for it."""

_DAY = 86_400_000_000
"""Microseconds of a day."""


class Rejections:
    """Keeps rejections. Their durability is not promised: they need not survive a power cut, and a write MUST NOT wait
    for a disk if the dialect can avoid it. A rejection never changes, except that a replay marks it once.
    """

    def __init__(self, database: Database):
        self._database = database

    async def keep(self, kept: Sequence[Rejection], omitted: Mapping[WorkspaceId, int]) -> None:
        """Store rejections, and for each workspace the number of those that were left out. A rejection that is already
        stored does not change. If the connection is lost during COMMIT and the caller tries again, the numbers may be
        counted twice.
        """
        await self._database.write(
            lambda connection: _keep(connection, kept, omitted, self._today(connection)), durable=False
        )

    async def get(self, workspace_id: WorkspaceId, rejection_id: RejectionId) -> Rejection | None:
        """Return one rejection of the workspace, None if it has none with this id."""
        statement = select(rejections).where(rejections.c.workspace_id == workspace_id, rejections.c.id == rejection_id)
        row = await self._database.read(lambda connection: connection.execute(statement).first())
        return None if row is None else Rejection._make(row)

    async def page(self, query: RejectionQuery) -> RejectionPage:
        """Return one page with at most about `PAGE_BYTES` of events. It has at least one rejection if any matches."""
        return await self._database.read(lambda connection: _page(connection, query))

    async def omitted(self, workspace_id: WorkspaceId) -> int:
        """Return the number of the workspace's rejections that were left out in the days that are kept."""
        statement = select(func.coalesce(func.sum(omitted_rejections.c.number), 0)).where(
            omitted_rejections.c.workspace_id == workspace_id
        )
        return int(await self._database.read(lambda connection: connection.execute(statement).scalar_one()))

    async def mark(self, workspace_id: WorkspaceId, replayed: Mapping[RejectionId, EventId]) -> None:
        """Mark rejections as replayed, each with the event that was stored. A mark that exists does not change."""
        await self._database.write(
            lambda connection: _mark(connection, workspace_id, replayed, self._database.now(connection)), durable=False
        )

    async def trim(self, workspace_id: WorkspaceId, most: int) -> int:
        """Delete all but the newest `most` rejections of the workspace. Return the number of deleted rejections."""
        oldest_kept = (
            select(rejections.c.id)
            .where(rejections.c.workspace_id == workspace_id)
            .order_by(rejections.c.id.desc())
            .offset(most - 1)
            .limit(1)
            .scalar_subquery()
        )
        here = rejections.c.workspace_id == workspace_id
        chunk = select(rejections.c.id).where(here, rejections.c.id < oldest_kept).limit(TRIM_CHUNK)
        statement = delete(rejections).where(here, rejections.c.id.in_(chunk))
        return await self._delete_chunks(lambda connection: connection.execute(statement).rowcount)

    async def purge(self, days: int) -> int:
        """Delete rejections and numbers that are older than so many days. Return the number of deleted rejections."""
        purged = await self._delete_chunks(
            lambda connection: _purge_some(connection, self._database.now(connection), days)
        )
        await self._database.write(
            lambda connection: connection.execute(
                delete(omitted_rejections).where(omitted_rejections.c.day < self._today(connection) - days)
            ).close(),
            durable=False,
        )
        return purged

    async def _delete_chunks(self, delete_chunk: Callable[[Connection], int]) -> int:
        """Delete chunks until one is not full. Return the number of deleted rows."""
        total = 0
        while True:
            chunk = await self._database.write(delete_chunk, durable=False)
            total += chunk
            if chunk < TRIM_CHUNK:
                return total

    def _today(self, connection: Connection) -> int:
        return self._database.now(connection) // _DAY


def _keep(connection: Connection, kept: Sequence[Rejection], omitted: Mapping[WorkspaceId, int], day: int) -> None:
    if kept:
        statement = postgresql.insert(rejections).on_conflict_do_nothing()
        connection.execute(statement, [rejection._asdict() for rejection in kept])
    for workspace_id, number in sorted(omitted.items()):
        new = postgresql.insert(omitted_rejections).values(workspace_id=workspace_id, day=day, number=number)
        connection.execute(
            new.on_conflict_do_update(
                index_elements=[omitted_rejections.c.workspace_id, omitted_rejections.c.day],
                set_={"number": omitted_rejections.c.number + number},
            )
        )


def _page(connection: Connection, query: RejectionQuery) -> RejectionPage:
    """Return one page. Read the ids and sizes of matching rows first, then the rows that fit."""
    order = rejections.c.id.desc() if query.newest_first else rejections.c.id.asc()
    size = func.octet_length(rejections.c.event).label("size")
    scan = select(rejections.c.id, size).where(*_conditions(query)).order_by(order).limit(query.limit + 1)
    hits = connection.execute(scan).all()
    count, content = 0, 0
    for hit in hits[: query.limit]:
        content += hit.size
        if content > PAGE_BYTES and count:
            break
        count += 1
    ids = [hit.id for hit in hits[:count]]
    rows = select(rejections).where(rejections.c.workspace_id == query.workspace_id, rejections.c.id.in_(ids))
    page = [Rejection._make(row) for row in connection.execute(rows.order_by(order))] if ids else []
    return RejectionPage(page, ids[-1] if count < len(hits) else None)


def _conditions(query: RejectionQuery) -> list[ColumnElement[bool]]:
    columns = rejections.c
    equal: dict[str, Any] = {"reason": query.reason, "receiver": query.receiver, "key_id": query.key_id}
    conditions = [columns.workspace_id == query.workspace_id]
    conditions += [columns[name] == value for name, value in equal.items() if value is not None]
    if query.after is not None:
        conditions.append(columns.id < query.after if query.newest_first else columns.id > query.after)
    if query.received_from is not None:
        conditions.append(columns.id >= ledger.first_id(query.received_from))
    if query.received_to is not None:
        conditions.append(columns.id < ledger.first_id(query.received_to))
    if query.replayed is not None:
        conditions.append(columns.replayed_at.is_not(None) if query.replayed else columns.replayed_at.is_(None))
    return conditions


def _mark(connection: Connection, workspace_id: WorkspaceId, replayed: Mapping[RejectionId, EventId], now: int) -> None:
    for rejection_id, event_id in sorted(replayed.items()):
        here = (rejections.c.workspace_id == workspace_id, rejections.c.id == rejection_id)
        marked = update(rejections).where(*here, rejections.c.replayed_at.is_(None))
        connection.execute(marked.values(replayed_at=now, event_id=event_id))


def _purge_some(connection: Connection, now: int, days: int) -> int:
    old = (
        select(rejections.c.workspace_id, rejections.c.id)
        .where(rejections.c.received_at <= now - days * _DAY)
        .limit(TRIM_CHUNK)
    )
    rows = connection.execute(old).all()
    for workspace_id in {row.workspace_id for row in rows}:
        ids = [row.id for row in rows if row.workspace_id == workspace_id]
        here = (rejections.c.workspace_id == workspace_id, rejections.c.id.in_(ids))
        connection.execute(delete(rejections).where(*here))
    return len(rows)
