"""Reads the ledgers: heads, events and pages of events. Only the append writes them."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnCollection, ColumnElement, Connection, Row, func, select

from headgate_server.core import ledger
from headgate_server.core.errors import NotFound
from headgate_server.core.model import EventPage, EventQuery, Head, Link, Position, StoredEvent, Workspace
from headgate_server.core.types import Dedupe, EventHash, EventId, WorkspaceId
from headgate_server.store import positions
from headgate_server.store.database import Database
from headgate_server.store.holds import Holds
from headgate_server.store.schema import CONTENT_SIZE, events, heads

SCAN_LIMIT = 10_000
"""Rows that one page of `events` examines: some milliseconds of work, whatever the filter."""

PAGE_BYTES = 4 * 1024 * 1024
"""Bytes of content that one page of `events` returns. Several pages fit into memory, and one is below the default
limit of every HTTP client.
"""

FETCH_CHUNK = 1_000
"""Events that one statement looks up by id or identity."""

_LINKS = select(*(events.c[name] for name in ("dedupe", *Link._fields)))


class Ledgers:
    """Reads ledgers. A read MUST see every event that an append has acknowledged. An event never changes, except that
    it loses its identity when it is replaced. A new event is never inserted between old ones.
    """

    def __init__(self, database: Database):
        self._database = database

    async def head(self, workspace_id: WorkspaceId) -> Head:
        """Return the last link of the workspace's ledger. For an empty ledger that is sequence 0 and the genesis hash.

        Raises `errors.NotFound`.
        """
        statement = select(heads.c.sequence, heads.c.hash, heads.c.created_at).where(
            heads.c.workspace_id == workspace_id
        )
        row = await self._database.read(lambda connection: connection.execute(statement).first())
        if row is None:
            raise NotFound("There is no such workspace.")
        return Head(*row)

    async def heads(self, workspace_ids: Collection[WorkspaceId]) -> Mapping[WorkspaceId, Head]:
        """Return the last links of these workspaces' ledgers; none of a workspace that there is not."""
        return await self._database.read(lambda connection: _heads(connection, list(workspace_ids)))

    async def place(self, workspace_id: WorkspaceId, sequence: int) -> Position:
        """Return the place of the event of this sequence, or of the last one before it."""
        return await self._database.read(lambda connection: positions.at(connection, workspace_id, sequence))

    async def place_before(self, workspace_id: WorkspaceId, created_at: int) -> Position:
        """Return the place of the last event that was stored before this time."""
        return await self._database.read(lambda connection: positions.before(connection, workspace_id, created_at))

    async def now(self) -> int:
        """Return the database's time, from which `created_at` comes, in microseconds since the epoch."""
        return await self._database.read(self._database.now)

    async def lookup(self, workspace_id: WorkspaceId, dedupes: Sequence[Dedupe]) -> dict[Dedupe, Link]:
        """Return the links of the events that have these identities now. It takes no lock, so the result is
        advisory.
        """
        if not dedupes:
            return {}
        return await self._database.read(lambda connection: lookup(connection, workspace_id, dedupes))

    async def fetch(self, workspace_id: WorkspaceId, ids: Sequence[EventId]) -> list[StoredEvent]:
        """Return the workspace's events that have one of these ids, in the order of their ids."""
        return await self._database.read(lambda connection: _fetch(connection, workspace_id, ids))

    async def events(self, query: EventQuery) -> EventPage:
        """Return one page of a workspace's events in the order of their ids.

        It examines at most `SCAN_LIMIT` rows and returns about `PAGE_BYTES` of content at most, or as much as the query
        says, but at least one event if there is one. The next page begins after `resume`, which is None only at the
        end.
        """
        return await self._database.read(lambda connection: _page(connection, query))

    async def hashes_before(self, workspace: Workspace, ids: Sequence[EventId]) -> dict[EventId, EventHash]:
        """Return, for each of these events, the event_hash of the previous event. For the first event that is the
        genesis hash.
        """
        return await self._database.read(lambda connection: _hashes_before(connection, workspace, ids))


def _heads(connection: Connection, workspace_ids: Sequence[WorkspaceId]) -> dict[WorkspaceId, Head]:
    found: dict[WorkspaceId, Head] = {}
    columns = select(heads.c.workspace_id, heads.c.sequence, heads.c.hash, heads.c.created_at)
    for start in range(0, len(workspace_ids), FETCH_CHUNK):
        statement = columns.where(heads.c.workspace_id.in_(workspace_ids[start : start + FETCH_CHUNK]))
        found |= {workspace_id: Head(*head) for workspace_id, *head in connection.execute(statement)}
    return found


def lookup(connection: Connection, workspace_id: WorkspaceId, dedupes: Sequence[Dedupe]) -> dict[Dedupe, Link]:
    """Return the links of the events that hold these identities now."""
    found: dict[Dedupe, Link] = {}
    for start in range(0, len(dedupes), FETCH_CHUNK):
        statement = _LINKS.where(Holds(workspace_id, dedupes[start : start + FETCH_CHUNK]))
        found |= {dedupe: Link(*link) for dedupe, *link in connection.execute(statement)}
    return found


def _fetch(connection: Connection, workspace_id: WorkspaceId, ids: Sequence[EventId]) -> list[StoredEvent]:
    found: list[StoredEvent] = []
    ordered = sorted(set(ids))
    for start in range(0, len(ordered), FETCH_CHUNK):
        chunk = ordered[start : start + FETCH_CHUNK]
        statement = select(events).where(events.c.workspace_id == workspace_id, events.c.id.in_(chunk))
        found += map(StoredEvent._make, connection.execute(statement.order_by(events.c.id)))
    return found


def _page(connection: Connection, query: EventQuery) -> EventPage:
    """Return one page of events. It reads the ids and sizes of the matching events first, then the rows that fit."""
    if query.limit < 1:
        raise ValueError("the limit of a page must be at least one event")
    if query.dedupe is not None:
        holder = lookup(connection, query.workspace_id, [query.dedupe]).get(query.dedupe)
        return EventPage([], None) if holder is None else _matching(connection, query, holder.id)
    hits, end = _hits(connection, query)
    count = _fitting(hits[: query.limit], PAGE_BYTES if query.size is None else min(query.size, PAGE_BYTES))
    resume = hits[count - 1].id if count < len(hits) else end
    return EventPage(_rows(connection, query, hits[:count]), resume)


def _matching(connection: Connection, query: EventQuery, event_id: EventId) -> EventPage:
    """Return a page with the event of this id, the only one that can match the query, or an empty page."""
    found = connection.execute(
        select(events).where(events.c.id == event_id, *_bounds(query), *_filters(events.c, query))
    )
    return EventPage([StoredEvent._make(row) for row in found], None)


def _hits(connection: Connection, query: EventQuery) -> tuple[Sequence[Row[Any, Any]], EventId | None]:
    """Return (id, size) of the matching events among the next `SCAN_LIMIT`, at most one more than the query's limit.

    Also return the id at which the scan stopped, None if it reached the ledger's end.
    """
    limit = min(query.limit + 1, SCAN_LIMIT)
    size = CONTENT_SIZE.label("size")
    scan = select(events.c.id, size).where(*_bounds(query)).order_by(_direction(events.c.id, query))
    if not _filters(events.c, query):
        hits = connection.execute(scan.limit(limit)).all()
        return hits, hits[-1].id if len(hits) == SCAN_LIMIT else None
    window = (
        scan.add_columns(events.c.receiver, events.c.type, events.c.source, events.c.subject, events.c.dedupe)
        .limit(SCAN_LIMIT)
        .subquery()
    )
    matching = select(window.c.id, window.c.size).where(*_filters(window.c, query))
    hits = connection.execute(matching.order_by(_direction(window.c.id, query)).limit(limit)).all()
    if len(hits) > query.limit:
        return hits, hits[-1].id
    return hits, connection.execute(
        scan.with_only_columns(events.c.id).offset(SCAN_LIMIT - 1).limit(1)
    ).scalar_one_or_none()


def _fitting(hits: Sequence[Row[Any, Any]], size: int) -> int:
    """Return how many of these events fit into one page of this size. The first always fits."""
    content = 0
    for count, hit in enumerate(hits):
        content += hit.size
        if content > size and count:
            return count
    return len(hits)


def _rows(connection: Connection, query: EventQuery, hits: Sequence[Row[Any, Any]]) -> list[StoredEvent]:
    if not hits:
        return []
    # The same filter between the same ids returns the same events: events never change, and a new one is never
    # inserted between old ones.
    first, last = sorted((hits[0].id, hits[-1].id))
    statement = (
        select(events)
        .where(
            events.c.workspace_id == query.workspace_id, events.c.id.between(first, last), *_filters(events.c, query)
        )
        .order_by(_direction(events.c.id, query))
    )
    return [StoredEvent._make(row) for row in connection.execute(statement)]


def _direction(column: ColumnElement[bytes], query: EventQuery) -> ColumnElement[bytes]:
    return column.desc() if query.newest_first else column.asc()


def _bounds(query: EventQuery) -> list[ColumnElement[bool]]:
    """Return the conditions that the primary key covers: the workspace, and a range of ids."""
    bounds = [events.c.workspace_id == query.workspace_id]
    if query.after is not None:
        bounds.append(events.c.id < query.after if query.newest_first else events.c.id > query.after)
    if query.created_from is not None:
        bounds.append(events.c.id >= ledger.first_id(query.created_from))
    if query.created_to is not None:
        bounds.append(events.c.id < ledger.first_id(query.created_to))
    return bounds


def _filters(columns: ColumnCollection[str, Any], query: EventQuery) -> list[ColumnElement[bool]]:
    """Return the conditions that have to be checked row by row."""
    equal = {"receiver": query.receiver, "type": query.type, "source": query.source, "subject": query.subject}
    filters: list[ColumnElement[bool]] = [columns[name] == value for name, value in equal.items() if value is not None]
    if query.current_only:
        filters.append(columns["dedupe"].is_not(None))
    if query.type_prefix:
        # LIKE would be wrong: the caller's prefix may contain wildcards, and SQLite's LIKE ignores case.
        filters.append(func.substr(columns["type"], 1, len(query.type_prefix)) == query.type_prefix)
    return filters


def _hashes_before(connection: Connection, workspace: Workspace, ids: Sequence[EventId]) -> dict[EventId, EventHash]:
    found: dict[EventId, EventHash] = {}
    for event_id in ids:
        before = (
            select(events.c.event_hash)
            .where(events.c.workspace_id == workspace.id, events.c.id < event_id)
            .order_by(events.c.id.desc())
            .limit(1)
        )
        found[event_id] = connection.execute(before).scalar_one_or_none() or ledger.genesis(workspace.name).hash
    return found
