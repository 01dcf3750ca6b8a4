"""Reads the events of a ledger that match a filter. Many readers follow a ledger, each with its own filter."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, bindparam, func, or_, select

from headgate_server.core.destinations import EventFilter
from headgate_server.core.model import Position, StoredEvent
from headgate_server.core.types import WorkspaceId
from headgate_server.store import positions
from headgate_server.store.database import Database
from headgate_server.store.ledgers import PAGE_BYTES
from headgate_server.store.schema import CONTENT_SIZE, events


class Kind(NamedTuple):
    """The values of an event that filters compare."""

    receiver: str
    type: str
    source: str


class Window(NamedTuple):
    """A part of a ledger: the events after one place, up to another."""

    start: Position
    end: Position
    """The place of its last event; the same as `start` if there is none."""
    kinds: frozenset[Kind]
    """The kinds of its events."""

    def has(self, event_filter: EventFilter) -> bool:
        """Whether any of its events matches a filter."""
        return any(event_filter.matches(*kind) for kind in self.kinds)


# It is made once, because it runs at every look of the delivering process.
_KINDS = (
    select(events.c.receiver, events.c.type, events.c.source)
    .where(
        events.c.workspace_id == bindparam("workspace_id"),
        events.c.id > bindparam("after"),
        events.c.id <= bindparam("through"),
    )
    .distinct()
)
_BEFORE_ALL = bytes(16)
"""Less than every event's id."""


class Matching:
    """Reads ledgers forward. Like `Ledgers`, it MUST return all events that an append has acknowledged."""

    def __init__(self, database: Database):
        self._database = database

    async def window(self, workspace_id: WorkspaceId, after: Position, limit: int) -> Window:
        """Return the window of the next `limit` events. It has no content, so all filters can use it."""
        return await self._database.read(lambda connection: _window(connection, workspace_id, after, limit))

    async def page(
        self,
        workspace_id: WorkspaceId,
        after: Position,
        through: Position | None,
        event_filter: EventFilter,
        limit: int,
    ) -> Sequence[StoredEvent]:
        """Return the first events that match, after one place and up to another. `through=None` means up to the
        ledger's end. The page has at most `limit` events, and at most about `PAGE_BYTES` of content.
        """
        return await self._database.read(
            lambda connection: _page(connection, _between(workspace_id, after, through, event_filter), limit)
        )


def _window(connection: Connection, workspace_id: WorkspaceId, after: Position, limit: int) -> Window:
    end = positions.end(connection, workspace_id)
    if end.id is None or end.sequence <= after.sequence:
        return Window(after, after, frozenset())
    # Sequences have no gap, so most windows end at the ledger's end, and their events are read once.
    if end.sequence - after.sequence > limit:
        beyond = _between(workspace_id, after, None, EventFilter())
        place = select(events.c.sequence, events.c.id).where(*beyond).order_by(events.c.id)
        row = connection.execute(place.offset(limit - 1).limit(1)).first()
        end = end if row is None else Position(*row)
    here = {"workspace_id": workspace_id, "after": after.id or _BEFORE_ALL, "through": end.id}
    rows = connection.execute(_KINDS, here)
    return Window(after, end, frozenset(Kind(*each) for each in rows))


def _page(connection: Connection, here: Sequence[ColumnElement[bool]], limit: int) -> Sequence[StoredEvent]:
    size = CONTENT_SIZE
    sizes = connection.execute(select(events.c.id, size).where(*here).order_by(events.c.id).limit(limit)).all()
    content, count = 0, 0
    for _, octets in sizes:
        content += octets
        if content > PAGE_BYTES and count:
            break
        count += 1
    if not count:
        return []
    # The same filter up to the same id returns the same events, because events never change and are only appended.
    rows = connection.execute(select(events).where(*here, events.c.id <= sizes[count - 1].id).order_by(events.c.id))
    return [StoredEvent._make(row) for row in rows]


def _between(
    workspace_id: WorkspaceId, after: Position, through: Position | None, event_filter: EventFilter
) -> Sequence[ColumnElement[bool]]:
    here: list[ColumnElement[bool]] = [events.c.workspace_id == workspace_id]
    if after.id is not None:
        here.append(events.c.id > after.id)
    if through is not None and through.id is not None:
        here.append(events.c.id <= through.id)
    if event_filter.types:
        here.append(or_(*(_is_of(value) for value in event_filter.types)))
    if event_filter.sources:
        here.append(events.c.source.in_(event_filter.sources))
    if event_filter.receivers:
        here.append(events.c.receiver.in_(event_filter.receivers))
    return here


def _is_of(type_or_prefix: str) -> Any:
    if not type_or_prefix.endswith(".*"):
        return events.c.type == type_or_prefix
    # LIKE is not used, because it ignores case on SQLite.
    return func.substr(events.c.type, 1, len(type_or_prefix) - 1) == type_or_prefix[:-1]
