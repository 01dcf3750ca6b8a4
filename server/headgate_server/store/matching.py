"""The events of a ledger that match a filter, for readers that follow it, many of them with filters of their own."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, func, or_, select

from headgate_server.core.destinations import EventFilter
from headgate_server.core.model import Position, StoredEvent
from headgate_server.core.types import WorkspaceId
from headgate_server.store import positions
from headgate_server.store.database import Database
from headgate_server.store.ledgers import PAGE_BYTES
from headgate_server.store.schema import events


class Kind(NamedTuple):
    """What filters look at."""

    receiver: str
    type: str
    source: str


class Window(NamedTuple):
    """A stretch of a ledger: the events after one place, up to another."""

    start: Position
    end: Position
    """The place of its last event; `start` if there is none."""
    kinds: frozenset[Kind]
    """Those that occur in it."""


class Matching:
    """Reads ledgers forward. Like `Ledgers`, it MUST see what an append has acknowledged."""

    def __init__(self, database: Database):
        self._database = database

    async def window(self, workspace_id: WorkspaceId, after: Position, limit: int) -> Window:
        """Return the next `limit` events as a window. It reads no content: one look serves all filters."""
        return await self._database.read(lambda connection: _window(connection, workspace_id, after, limit))

    async def page(
        self, workspace_id: WorkspaceId, after: Position, through: Position | None, wanted: EventFilter, limit: int
    ) -> Sequence[StoredEvent]:
        """Return the first events that match, at most `limit`, with at most about `PAGE_BYTES` of content: those after
        one place, up to another. None: up to the ledger's end.
        """
        return await self._database.read(
            lambda connection: _page(connection, _between(workspace_id, after, through, wanted), limit)
        )


def _window(connection: Connection, workspace_id: WorkspaceId, after: Position, limit: int) -> Window:
    beyond = _between(workspace_id, after, None, EventFilter())
    place = select(events.c.sequence, events.c.id).where(*beyond).order_by(events.c.id)
    row = connection.execute(place.offset(limit - 1).limit(1)).first()
    end = positions.end(connection, workspace_id) if row is None else Position(*row)
    if end.id is None or end.sequence <= after.sequence:
        return Window(after, after, frozenset())
    kinds = select(events.c.receiver, events.c.type, events.c.source).distinct()
    found = connection.execute(kinds.where(*_between(workspace_id, after, end, EventFilter())))
    return Window(after, end, frozenset(Kind(*row) for row in found))


def _page(connection: Connection, here: Sequence[ColumnElement[bool]], limit: int) -> Sequence[StoredEvent]:
    size = func.coalesce(func.octet_length(events.c.data), 0)
    hits = connection.execute(select(events.c.id, size).where(*here).order_by(events.c.id).limit(limit)).all()
    content, count = 0, 0
    for _, octets in hits:
        content += octets
        if content > PAGE_BYTES and count:
            break
        count += 1
    if not count:
        return []
    # The same filter up to the same id yields the same events: they never change, and none is put between old ones.
    rows = connection.execute(select(events).where(*here, events.c.id <= hits[count - 1].id).order_by(events.c.id))
    return [StoredEvent._make(row) for row in rows]


def _between(
    workspace_id: WorkspaceId, after: Position, through: Position | None, wanted: EventFilter
) -> Sequence[ColumnElement[bool]]:
    here: list[ColumnElement[bool]] = [events.c.workspace_id == workspace_id]
    if after.id is not None:
        here.append(events.c.id > after.id)
    if through is not None and through.id is not None:
        here.append(events.c.id <= through.id)
    if wanted.types:
        here.append(or_(*(_is_of(value) for value in wanted.types)))
    if wanted.sources:
        here.append(events.c.source.in_(wanted.sources))
    if wanted.receivers:
        here.append(events.c.receiver.in_(wanted.receivers))
    return here


def _is_of(wanted: str) -> Any:
    if not wanted.endswith(".*"):
        return events.c.type == wanted
    # No LIKE: SQLite's ignores case.
    return func.substr(events.c.type, 1, len(wanted) - 1) == wanted[:-1]
