"""Finds a destination of a workspace, and how its deliveries are."""

from typing import Any

from sqlalchemy import Connection, Row, case, func, select

from headgate_server.core.destinations import Destination, FailureState, Status
from headgate_server.core.errors import NotFound
from headgate_server.core.types import WorkspaceId
from headgate_server.store import positions
from headgate_server.store.destination_rows import DESTINATIONS, destination_of
from headgate_server.store.schema import destinations, failures

WAITING = (FailureState.RETRYING, FailureState.FAILED)
"""Failures that count as set aside."""


def of_id(workspace_id: WorkspaceId, destination_id: str) -> tuple[Any, Any]:
    """Return the condition that selects a destination."""
    return destinations.c.workspace_id == workspace_id, destinations.c.id == destination_id


def failures_of(workspace_id: WorkspaceId, destination_id: str) -> tuple[Any, Any]:
    """Return the condition that selects a destination's failures."""
    return failures.c.workspace_id == workspace_id, failures.c.destination_id == destination_id


def missing(destination_id: str) -> NotFound:
    """Return the error for a destination that the workspace does not have."""
    return NotFound(f"There is no destination {destination_id[:80]!r} in this workspace.", field="id")


def row_of(connection: Connection, workspace_id: WorkspaceId, destination_id: str, *, lock: bool = False) -> Row[Any]:
    """Return the row of a destination, locked on request. Raises `NotFound`."""
    statement = DESTINATIONS.where(*of_id(workspace_id, destination_id))
    row = connection.execute(statement.with_for_update() if lock else statement).first()
    if row is None:
        raise missing(destination_id)
    return row


def locked(connection: Connection, workspace_id: WorkspaceId, destination_id: str) -> Destination:
    """Lock a destination, and return it. Raises `NotFound`."""
    return destination_of(row_of(connection, workspace_id, destination_id, lock=True))


def status_of(connection: Connection, row: Row[Any], now: int) -> Status:
    """Return the status of a destination, from its row in `DESTINATIONS`."""
    destination = destination_of(row)
    workspace_id, cursor = destination.workspace_id, destination.cursor
    head = positions.head(connection, workspace_id) or 0
    lag = max(0, head - cursor.sequence)
    here = failures_of(workspace_id, destination.id)
    waiting = case((failures.c.state.in_(WAITING), 1))
    next_attempt = case((failures.c.state == FailureState.RETRYING, failures.c.next_attempt_at))
    statement = select(func.count(waiting), func.min(next_attempt)).where(*here)
    set_aside, retry_after = connection.execute(statement).one()
    return Status(
        destination, lag, positions.waited(connection, workspace_id, cursor, now) if lag else 0, set_aside, retry_after
    )
