"""Finds positions in a ledger: of a sequence, of a time, of its end.

Sequences have no index, because each index makes every append slower. They have the same order as the ids, and ids
contain times. So a binary search over the time finds the position of a sequence.
"""

from sqlalchemy import Connection, bindparam, select

from headgate_server.core import ledger
from headgate_server.core.model import Position
from headgate_server.core.types import WorkspaceId
from headgate_server.store.schema import events, heads

_PLACES = select(events.c.sequence, events.c.id, events.c.created_at)

# It is made once, because readers that follow a ledger run it at every look.
_END = _PLACES.where(events.c.workspace_id == bindparam("workspace_id")).order_by(events.c.id.desc()).limit(1)


def head(connection: Connection, workspace_id: WorkspaceId) -> int | None:
    """Return the sequence of a ledger's last event, None if there is no such ledger."""
    statement = select(heads.c.sequence).where(heads.c.workspace_id == workspace_id)
    return connection.execute(statement).scalar_one_or_none()


def end(connection: Connection, workspace_id: WorkspaceId) -> Position:
    """Return the position of the last event."""
    row = connection.execute(_END, {"workspace_id": workspace_id}).first()
    return Position() if row is None else Position(row.sequence, row.id)


def before(connection: Connection, workspace_id: WorkspaceId, created_at: int) -> Position:
    """Return the position of the last event before this time."""
    here = (events.c.workspace_id == workspace_id, events.c.id < ledger.first_id(created_at))
    row = connection.execute(_PLACES.where(*here).order_by(events.c.id.desc()).limit(1)).first()
    return Position() if row is None else Position(row.sequence, row.id)


def at(connection: Connection, workspace_id: WorkspaceId, sequence: int) -> Position:
    """Return the position of the event with this sequence, or of the last one before it."""
    if sequence < 1:
        return Position()
    low, high = 0, ledger_end(connection, workspace_id)
    found = Position()
    while low < high:
        middle = (low + high) // 2
        here = (events.c.workspace_id == workspace_id, events.c.id >= ledger.first_id(middle))
        row = connection.execute(_PLACES.where(*here).order_by(events.c.id).limit(1)).first()
        if row is None or row.sequence > sequence:
            high = middle
            continue
        found = Position(row.sequence, row.id)
        if row.sequence == sequence:
            break
        low = row.created_at + 1
    return found


def ledger_end(connection: Connection, workspace_id: WorkspaceId) -> int:
    """Return a time after the last event."""
    statement = select(heads.c.created_at).where(heads.c.workspace_id == workspace_id)
    return (connection.execute(statement).scalar_one_or_none() or 0) + 1


def waited(connection: Connection, workspace_id: WorkspaceId, place: Position, now: int) -> int:
    """Return the seconds since the first event after a position was stored."""
    beyond = select(events.c.created_at).where(events.c.workspace_id == workspace_id)
    if place.id is not None:
        beyond = beyond.where(events.c.id > place.id)
    created_at = connection.execute(beyond.order_by(events.c.id).limit(1)).scalar_one_or_none()
    return 0 if created_at is None else max(0, (now - created_at) // 1_000_000)
