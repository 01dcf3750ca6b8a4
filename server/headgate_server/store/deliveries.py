"""Destinations for the delivering process: what to deliver, and the results."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, and_, bindparam, delete, func, select, update
from sqlalchemy.dialects import postgresql

from headgate_server.core.destinations import (
    GIVEN_UP,
    Assignment,
    Destination,
    Failure,
    FailureState,
    Fate,
    Move,
    Report,
    SetAside,
    State,
    Watched,
)
from headgate_server.core.model import Lease, Position, StoredEvent
from headgate_server.core.types import WorkspaceId
from headgate_server.store import positions
from headgate_server.store.database import Database
from headgate_server.store.destination_rows import DESTINATIONS, FAILURES, destination_of, failure_of, secrets_of
from headgate_server.store.destination_status import WAITING, failures_of
from headgate_server.store.leases import fence
from headgate_server.store.schema import destinations, failures, heads

_MICROSECONDS = 1_000_000

MOST_AHEAD = 1_000
"""The most failures beyond the cursor in an assignment. An ordered destination has one, and the skipped ones."""

MOST_COUNTED = 10_000
"""The most events of a destination that a metric counts as set aside. They are counted every few seconds, and those
whose schedule is over stay until an operator decides."""


# These two are made once, because they run at every look, and for every destination that nothing happens to.
_WATCHED = (
    select(
        destinations.c.workspace_id,
        destinations.c.id,
        destinations.c.revision,
        destinations.c.cursor,
        heads.c.sequence,
    )
    .join(heads, heads.c.workspace_id == destinations.c.workspace_id)
    .where(destinations.c.state == State.ACTIVE)
)

_MOVE = (
    update(destinations)
    .where(
        destinations.c.workspace_id == bindparam("in_workspace"),
        destinations.c.id == bindparam("of_destination"),
        destinations.c.cursor == bindparam("old"),
    )
    .values(cursor=bindparam("new"), cursor_id=bindparam("new_id"))
    .returning(destinations.c.failing_since)
)


class Deliveries:
    """Reads and writes for the holder of the lease.

    A report MUST be recorded completely or not at all: only under a lease of the reporter's epoch, and only if the
    cursor is where the reporter read it. A success writes nothing for its event: the cursor moves once for each page.
    """

    def __init__(self, database: Database):
        self._database = database

    async def watch(self) -> Sequence[Watched]:
        """Return every active destination, and the sequence of its ledger's head."""
        rows = await self._database.read(lambda connection: connection.execute(_WATCHED).all())
        return [Watched(*row) for row in rows]

    async def lags(self) -> dict[str, tuple[int, int, int]]:
        """Return for every destination the number of its ledger's events beyond the cursor, the seconds since the first
        of them was stored, and the number of events that are set aside, `MOST_COUNTED` at most.
        """
        every = select(
            destinations.c.workspace_id,
            destinations.c.id,
            destinations.c.cursor,
            destinations.c.cursor_id,
            heads.c.sequence,
        ).join(heads, heads.c.workspace_id == destinations.c.workspace_id)
        # A statement for each destination that has failures names its workspace and can end at the bound.
        failing = select(destinations.c.workspace_id, destinations.c.id).where(
            select(failures.c.sequence)
            .where(
                failures.c.workspace_id == destinations.c.workspace_id, failures.c.destination_id == destinations.c.id
            )
            .exists()
        )

        def work(connection: Connection) -> dict[str, tuple[int, int, int]]:
            now = self._database.now(connection)
            counts = {name: _set_aside(connection, at, name) for at, name in connection.execute(failing).all()}
            lags = {}
            for workspace_id, name, cursor, cursor_id, head in connection.execute(every):
                behind = max(0, head - cursor)
                place = Position(cursor, cursor_id)
                seconds = positions.waited(connection, workspace_id, place, now) if behind else 0
                lags[name] = (behind, seconds, counts.get(name, 0))
            return lags

        return await self._database.read(work, snapshot=True)

    async def assignment(self, workspace_id: WorkspaceId, destination_id: str) -> Assignment | None:
        """Return the values that a delivery to a destination needs, None if it does not exist or is not active."""
        mine = (destinations.c.workspace_id == workspace_id, destinations.c.id == destination_id)
        statement = DESTINATIONS.add_columns(destinations.c.secrets).where(*mine)

        def work(connection: Connection) -> Assignment | None:
            row = connection.execute(statement).first()
            if row is None or row.state != State.ACTIVE:
                return None
            destination = destination_of(row)
            ahead = FAILURES.where(*_of(destination), failures.c.sequence > destination.cursor.sequence)
            rows = connection.execute(ahead.order_by(failures.c.sequence).limit(MOST_AHEAD))
            failures_ahead = [failure_of(one) for one in rows]
            return Assignment(destination, secrets_of(row.secrets), self._database.now(connection), failures_ahead)

        return await self._database.read(work, snapshot=True)

    async def due(self, destination: Destination, through: int, limit: int) -> tuple[Sequence[Failure], float | None]:
        """Return at most `limit` set-aside events up to the sequence `through` whose next attempt is due. Also return
        the seconds until the next event after them is due: None if there is none, 0 if one is already due.
        """
        retrying = (*_of(destination), failures.c.state == FailureState.RETRYING, failures.c.sequence <= through)
        statement = FAILURES.where(*retrying).order_by(failures.c.next_attempt_at, failures.c.sequence)

        def work(connection: Connection) -> tuple[Sequence[Failure], float | None]:
            now = self._database.now(connection)
            retried = [failure_of(row) for row in connection.execute(statement.limit(limit + 1))]
            ready = [one for one in retried[:limit] if (one.next_attempt_at or 0) <= now]
            if len(ready) == len(retried):
                return ready, None
            following = retried[len(ready)].next_attempt_at or 0
            return ready, max(0.0, (following - now) / _MICROSECONDS)

        return await self._database.read(work)

    async def retrying(self, destination: Destination) -> int:
        """Return the number of events that wait for their next attempt."""
        here = (*_of(destination), failures.c.state == FailureState.RETRYING)
        statement = select(func.count()).select_from(failures).where(*here)
        return int(await self._database.read(lambda connection: connection.execute(statement).scalar_one()))

    async def record(self, reports: Sequence[Report], lease: Lease) -> Sequence[float | None]:
        """Record reports, in one transaction. Return for each the seconds since the destination's first failure without
        a later success, 0 if its last attempt was a success. None means that nothing was recorded: the destination was
        deleted, or its cursor is at another position.

        Raises `LeaseLost`; nothing is recorded then. A report of successes alone need not survive a power cut: the
        events are delivered again then.
        """
        ordered = sorted(range(len(reports)), key=lambda index: reports[index][:2])

        def work(connection: Connection) -> Sequence[float | None]:
            fence(connection, lease)
            now = self._database.now(connection)
            recorded: list[float | None] = [None] * len(reports)
            for index in ordered:
                recorded[index] = _record(connection, reports[index], now)
            return recorded

        durable = any(report.set_aside or report.disable for report in reports)
        return await self._database.write(work, durable=durable)

    async def fates(self, workspace_id: WorkspaceId, events: Sequence[StoredEvent]) -> Sequence[Fate]:
        """Return the state of the delivery of each of these events. They are all of one workspace."""
        if not events:
            return []
        sequences = [event.sequence for event in events]
        failed = select(failures.c.destination_id, failures.c.sequence, failures.c.state).where(
            failures.c.workspace_id == workspace_id, failures.c.sequence.in_(sequences)
        )

        def work(connection: Connection) -> Sequence[Fate]:
            of_workspace = DESTINATIONS.where(destinations.c.workspace_id == workspace_id)
            every = [destination_of(row) for row in connection.execute(of_workspace)]
            if not every:
                return [Fate.NONE] * len(events)
            states = {(name, sequence): state for name, sequence, state in connection.execute(failed)}
            return [_fate(event, every, states) for event in events]

        return await self._database.read(work, snapshot=True)


def _set_aside(connection: Connection, workspace_id: WorkspaceId, destination_id: str) -> int:
    """Return the number of a destination's events that are set aside, `MOST_COUNTED` at most."""
    here = (*failures_of(workspace_id, destination_id), failures.c.state.in_(WAITING))
    some = select(failures.c.sequence).where(*here).limit(MOST_COUNTED).subquery()
    return int(connection.execute(select(func.count()).select_from(some)).scalar_one())


def _of(destination: Destination) -> tuple[Any, Any]:
    return failures.c.workspace_id == destination.workspace_id, failures.c.destination_id == destination.id


def _record(connection: Connection, report: Report, now: int) -> float | None:
    move = report.move
    if move is not None and not move.of_replay and report == Report(report.workspace_id, report.destination_id, move):
        return _move(connection, report, move, now)
    mine = [destinations.c.workspace_id == report.workspace_id, destinations.c.id == report.destination_id]
    values: dict[Any, Any] = {
        destinations.c.delivered: destinations.c.delivered + report.delivered,
        destinations.c.failed_attempts: destinations.c.failed_attempts + report.failed_attempts,
    }
    if report.error is not None:
        values |= {destinations.c.last_error: report.error, destinations.c.last_error_at: now}
        values[destinations.c.failing_since] = func.coalesce(destinations.c.failing_since, now)
    if report.delivered:
        values[destinations.c.failing_since] = None
    if report.move is not None:
        column, key = (
            (destinations.c.replay, destinations.c.replay_id)
            if report.move.of_replay
            else (destinations.c.cursor, destinations.c.cursor_id)
        )
        mine.append(column == report.move.old.sequence)
        values |= {column: report.move.new.sequence, key: report.move.new.id}
    changed = update(destinations).where(*mine).values(values).returning(destinations.c.failing_since)
    row = connection.execute(changed).first()
    if row is None:
        return None
    _note_failures(connection, report, now)
    if report.move is not None and report.move.of_replay:
        _end_replay(connection, mine[:2])
    if report.disable is not None:
        active = (*mine[:2], destinations.c.state == State.ACTIVE)
        disabled = {"state": State.DISABLED, "why": report.disable, "updated_at": now}
        connection.execute(update(destinations).where(*active).values(disabled))
    return _failing(row.failing_since, now)


def _move(connection: Connection, report: Report, move: Move, now: int) -> float | None:
    """Move a cursor to which nothing else happened."""
    values = {
        "in_workspace": report.workspace_id,
        "of_destination": report.destination_id,
        "old": move.old.sequence,
        "new": move.new.sequence,
        "new_id": move.new.id,
    }
    row = connection.execute(_MOVE, values).first()
    return None if row is None else _failing(row.failing_since, now)


def _failing(since: int | None, now: int) -> float:
    """Return the seconds since the first failure without a later success."""
    return 0.0 if since is None else max(0.0, (now - since) / _MICROSECONDS)


def _end_replay(connection: Connection, mine: Sequence[Any]) -> None:
    """End a replay that has reached its end."""
    over = and_(*mine, destinations.c.replay >= destinations.c.replay_until)
    nothing = {"replay": None, "replay_id": None, "replay_until": None}
    connection.execute(update(destinations).where(over).values(nothing))


def _note_failures(connection: Connection, report: Report, now: int) -> None:
    mine = (failures.c.workspace_id == report.workspace_id, failures.c.destination_id == report.destination_id)
    if report.settled:
        connection.execute(delete(failures).where(*mine, failures.c.sequence.in_(report.settled)))
    for one in report.set_aside:
        values = _failure_values(one, now)
        new = postgresql.insert(failures).values(
            workspace_id=report.workspace_id,
            destination_id=report.destination_id,
            sequence=one.sequence,
            event_id=one.event_id,
            first_failed_at=now,
            **values,
        )
        # An event that the operator has skipped in the meantime stays skipped.
        again = new.on_conflict_do_update(
            index_elements=[failures.c.workspace_id, failures.c.destination_id, failures.c.sequence],
            set_=values,
            where=failures.c.state == FailureState.RETRYING,
        )
        connection.execute(again)


def _failure_values(one: SetAside, now: int) -> dict[str, Any]:
    ended = one.delay is None
    return {
        "state": FailureState.FAILED if ended else FailureState.RETRYING,
        "attempts": one.attempts,
        "last_attempt_at": now,
        "next_attempt_at": None if one.delay is None else now + int(one.delay * _MICROSECONDS),
        "status": one.status,
        "error": one.error,
    }


def _fate(event: StoredEvent, every: Sequence[Destination], states: dict[tuple[str, int], str]) -> Fate:
    matching = [one for one in every if one.gets(event)]
    if not matching:
        return Fate.NONE
    known_states = [states.get((one.id, event.sequence)) for one in matching]
    if any(state in GIVEN_UP for state in known_states):
        return Fate.FAILED
    waiting = (one.cursor.sequence < event.sequence for one in matching)
    return Fate.PENDING if any(known_states) or any(waiting) else Fate.DELIVERED
