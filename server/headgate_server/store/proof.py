"""Reads a ledger for a check: every cell as it is stored, whether or not it has its column's type.

SQLite can store a text in a column of bytes, and a text that is not UTF-8. Other reads fail on such a cell. A check
must not fail, since then it would not report any other fault.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Connection, Text, cast, func, literal, select, true, type_coerce
from sqlalchemy.types import TypeEngine

from headgate_server.core.checked_rows import LedgerEnd, LedgerRange, StoredHead, StoredLedger
from headgate_server.core.model import EventPage, Link, StoredEvent
from headgate_server.core.types import Dedupe, EventId, WorkspaceId
from headgate_server.store.database import Database
from headgate_server.store.holds import Holds
from headgate_server.store.ledgers import FETCH_CHUNK, PAGE_BYTES, lookup
from headgate_server.store.schema import CONTENT_SIZE, events, heads, id_type, workspaces


class _AsStored(TypeEngine[Any]):
    """A value that the driver takes and returns without conversion."""

    cache_ok = True


_AS_STORED = _AsStored()
_ID_AS_STORED = id_type(_AS_STORED)
_ID = type_coerce(events.c.id, _ID_AS_STORED).label("id")
_EVENT = [
    _ID if column is events.c.id else type_coerce(column, _AS_STORED).label(column.name) for column in events.columns
]
_HEAD = [type_coerce(heads.columns[name], _AS_STORED).label(f"head_{name}") for name in StoredHead._fields]

T = TypeVar("T")

_BEFORE_ALL_BUT_NULL = float("-inf")
"""In SQLite's order (NULL, numbers, texts, bytes) every id except NULL comes after this."""


class Proof:
    """Reads ledgers for a check. Every cell MUST be returned as it is stored, whatever its value."""

    def __init__(self, database: Database):
        self._database = database

    async def ledgers(self) -> list[StoredLedger]:
        """Return every ledger in the tables, also one without a workspace, with its name as stored."""
        return await self._read(
            lambda connection: _ledgers(connection, self._database.workspaces_of_events(connection))
        )

    async def end(self, workspace_id: WorkspaceId) -> LedgerEnd:
        """Return the head and the newest event, read at one moment."""
        return await self._read(lambda connection: _end(connection, workspace_id))

    async def page(self, id_range: LedgerRange, limit: int, after: Any = None) -> EventPage:
        """Return the events of a range that follow the id `after`, in the order of their ids.

        It returns at most `limit` events and about `PAGE_BYTES` of content. `resume` is the `after` of the next call.
        """
        return await self._read(lambda connection: _page(connection, id_range, limit, after))

    async def event(self, workspace_id: WorkspaceId, event_id: Any) -> StoredEvent | None:
        """Return the event of this id."""
        return await self._read(
            lambda connection: _one(connection, [events.c.workspace_id == workspace_id, events.c.id == _id(event_id)])
        )

    async def event_before(self, workspace_id: WorkspaceId, first: EventId) -> StoredEvent | None:
        """Return the last event whose id is below `first`."""
        return await self._read(
            lambda connection: _one(connection, [events.c.workspace_id == workspace_id, events.c.id < _id(first)])
        )

    async def holders(self, workspace_id: WorkspaceId, dedupes: Sequence[Dedupe]) -> dict[Dedupe, Link]:
        """Return the links of the events that have these identities now."""
        return await self._read(lambda connection: lookup(connection, workspace_id, dedupes))

    async def is_guarded(self) -> bool:
        """Return whether the database itself refuses a second event of an identity."""
        return await self._read(self._database.guards_identities)

    async def shared(self, workspace_id: WorkspaceId, dedupes: Sequence[Dedupe]) -> dict[Dedupe, int]:
        """Return those of these identities that more than one event has now, with their number. The index of identities
        finds them, also if it is not unique.
        """
        return await self._read(lambda connection: _shared(connection, workspace_id, dedupes))

    async def _read(self, work: Callable[[Connection], T]) -> T:
        return await self._database.read(work, as_stored=True)


def _shared(connection: Connection, workspace_id: WorkspaceId, dedupes: Sequence[Dedupe]) -> dict[Dedupe, int]:
    found: dict[Dedupe, int] = {}
    count = func.count().label("number")
    grouped = select(events.c.dedupe, count).group_by(events.c.dedupe).having(count > 1)
    for start in range(0, len(dedupes), FETCH_CHUNK):
        statement = grouped.where(Holds(workspace_id, dedupes[start : start + FETCH_CHUNK]))
        found |= {row.dedupe: row.number for row in connection.execute(statement)}
    return found


def _end(connection: Connection, workspace_id: WorkspaceId) -> LedgerEnd:
    """Return the ledger's head and its newest event. One statement reads both, so no append comes between them."""
    here = select(*_HEAD, literal(1).label("head_found")).where(heads.c.workspace_id == workspace_id).subquery()
    newest = (
        select(*_EVENT, literal(1).label("event_found"))
        .where(events.c.workspace_id == workspace_id)
        .order_by(events.c.id.desc())
        .limit(1)
        .subquery()
    )
    one = select(literal(1)).subquery()
    both = select(here, newest).select_from(one.outerjoin(here, true()).outerjoin(newest, true()))
    row = tuple(connection.execute(both).one())
    split = len(_HEAD)
    head, event = row[: split + 1], row[split + 1 :]
    return LedgerEnd(
        StoredHead._make(head[:-1]) if head[-1] is not None else None,
        StoredEvent._make(event[:-1]) if event[-1] is not None else None,
    )


def _page(connection: Connection, id_range: LedgerRange, limit: int, after: Any = None) -> EventPage:
    """Return the next events of a range: at most `limit` and about `PAGE_BYTES` of content, but at least one event."""
    bounds = _bounds(id_range)
    if after is not None:
        bounds.append(events.c.id > _id(after))
    size = CONTENT_SIZE.label("size")
    hits = connection.execute(select(_ID, size).where(*bounds).order_by(events.c.id).limit(limit + 1)).all()
    count = _fitting([hit.size for hit in hits[:limit]])
    rows = connection.execute(select(*_EVENT).where(*bounds).order_by(events.c.id).limit(count))
    found = [StoredEvent._make(row) for row in rows]
    more = count < len(hits)
    return EventPage(found, _cursor(found[-1].id) if more and found else None)


def _ledgers(connection: Connection, with_events: Collection[WorkspaceId]) -> list[StoredLedger]:
    """Return every ledger: one for each workspace, and one for each id in `heads` or `events` without a workspace."""
    named = [StoredLedger(*row) for row in connection.execute(select(workspaces.c.id, workspaces.c.name))]
    with_rows = {*connection.execute(select(heads.c.workspace_id)).scalars(), *with_events}
    orphans = with_rows - {ledger.workspace_id for ledger in named} - {None}
    # SQLite can store ids of other types.
    return named + [StoredLedger(orphan, None) for orphan in sorted(orphans, key=repr)]


def _one(connection: Connection, bounds: Sequence[ColumnElement[bool]]) -> StoredEvent | None:
    row = connection.execute(select(*_EVENT).where(*bounds).order_by(events.c.id.desc()).limit(1)).first()
    return None if row is None else StoredEvent._make(row)


def _bounds(id_range: LedgerRange) -> list[ColumnElement[bool]]:
    bounds = [events.c.workspace_id == id_range.workspace_id]
    if id_range.first is not None:
        bounds.append(events.c.id >= _id(id_range.first))
    if id_range.before is not None:
        bounds.append(events.c.id < _id(id_range.before))
    if id_range.last is not None:
        bounds.append(events.c.id <= _id(id_range.last))
    return bounds


def _id(value: Any) -> ColumnElement[Any]:
    if isinstance(value, str):  # perhaps no UTF-8, which the driver would refuse
        return cast(literal(value.encode(errors="surrogateescape"), _AS_STORED), Text)
    return literal(value, _ID_AS_STORED)


def _cursor(event_id: Any) -> Any:
    return _BEFORE_ALL_BUT_NULL if event_id is None else event_id


def _fitting(sizes: Sequence[int]) -> int:
    """Return how many events of these sizes fit into one page. The first always fits."""
    content = 0
    for count, size in enumerate(sizes):
        content += size
        if content > PAGE_BYTES and count:
            return count
    return len(sizes)
