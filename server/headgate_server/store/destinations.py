"""Destinations for the operator: create, show, change, pause and replay them. `deliveries.py` is for the delivery."""

import secrets as randomness
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update

from headgate_server.core import audit, ledger
from headgate_server.core.audit import Act, Facts
from headgate_server.core.destinations import (
    GIVEN_UP,
    NOW,
    PREFIX,
    Destination,
    EventFilter,
    Failure,
    FailureState,
    Ordering,
    Secrets,
    State,
    Status,
    Target,
)
from headgate_server.core.errors import AlreadyExists, InvalidRequest, NotFound
from headgate_server.core.model import Position, StoredEvent
from headgate_server.core.reasons import Reason
from headgate_server.core.types import WorkspaceId
from headgate_server.store import positions
from headgate_server.store.audit import Audited
from headgate_server.store.destination_rows import (
    DESTINATIONS,
    FAILURES,
    destination_of,
    failure_of,
    secrets_of,
    secrets_text,
    settings_of,
)
from headgate_server.store.destination_status import WAITING, failures_of, locked, missing, of_id, row_of, status_of
from headgate_server.store.schema import destinations, failures, heads

MOST_DESTINATIONS = 100
"""The most destinations of a workspace. Each needs a task of the delivering process, and connections."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewDestination:
    """The fields of a destination before it is stored."""

    name: str
    filter: EventFilter
    ordering: Ordering
    target: Target
    secrets: Secrets
    start: int
    """The sequence of the first event that it gets, `BEGINNING` or `NOW`."""


class Destinations(Audited):
    """Keeps destinations, unique by name in their workspace.

    A change MUST be on disk when its method returns. Only `create` and `Deliveries.record` set the cursor; all other
    methods MUST NOT move it. A change increases the revision, so that the delivering process sees it, and is an act in
    the audit's ledger. Every method with a destination's id raises `NotFound` if the workspace has no destination with
    that id.
    """

    async def create(self, workspace_id: WorkspaceId, new: NewDestination) -> Status:
        """Create a destination.

        Raises `AlreadyExists` if its name is in use, `InvalidRequest` if its start is past the end of the ledger.
        """
        return await self._database.write(lambda connection: self._create(connection, workspace_id, new))

    async def get(self, workspace_id: WorkspaceId, destination_id: str) -> Status:
        """Return a destination."""
        return await self._database.read(
            lambda connection: self._status(connection, workspace_id, destination_id), snapshot=True
        )

    async def list(self, workspace_id: WorkspaceId, limit: int, after: str = "") -> Sequence[Status]:
        """Return at most `limit` destinations after the id `after`, the oldest first."""
        page = DESTINATIONS.where(destinations.c.workspace_id == workspace_id, destinations.c.id > after)

        def work(connection: Connection) -> Sequence[Status]:
            now = self._database.now(connection)
            rows = connection.execute(page.order_by(destinations.c.id).limit(limit)).all()
            return [status_of(connection, row, now) for row in rows]

        return await self._database.read(work, snapshot=True)

    async def update(
        self, workspace_id: WorkspaceId, destination_id: str, change: Callable[[Destination], Destination]
    ) -> Status:
        """Change name, filter, ordering and target to those that `change` returns. Raises `AlreadyExists`, and the
        errors of `change`.
        """

        def work(connection: Connection) -> Status:
            old = locked(connection, workspace_id, destination_id)
            new = change(old)
            if new.name != old.name:
                _check_name(connection, workspace_id, new.name)
            settings = settings_of(new.filter, new.ordering, new.target)
            self._change(connection, old, name=new.name, settings=settings)
            facts = audit.changes(audit.destination_facts(old), audit.destination_facts(new))
            self._record(connection, old, "destination.updated", *facts)
            return self._status(connection, workspace_id, destination_id)

        return await self._database.write(work)

    async def delete(self, workspace_id: WorkspaceId, destination_id: str) -> None:
        """Remove a destination and its failures."""

        def work(connection: Connection) -> None:
            old = locked(connection, workspace_id, destination_id)
            connection.execute(delete(destinations).where(*of_id(workspace_id, destination_id)))
            connection.execute(delete(failures).where(*failures_of(workspace_id, destination_id)))
            self._record(connection, old, "destination.deleted", audit.destination_facts(old))

        await self._database.write(work)

    async def set_state(self, workspace_id: WorkspaceId, destination_id: str, state: State, why: str = "") -> Status:
        """Pause a destination or make it active again. For an active one the days until it is disabled start again."""

        def work(connection: Connection) -> Status:
            old = locked(connection, workspace_id, destination_id)
            values = {"failing_since": None} if state is State.ACTIVE else {}
            self._change(connection, old, state=state, why=why, **values)
            if state is State.ACTIVE and old.state is not State.ACTIVE:
                self._retry(connection, old, failures.c.state == FailureState.RETRYING)
            verb = "resumed" if state is State.ACTIVE else state.value
            self._record(connection, old, f"destination.{verb}", {"state": old.state.value}, {"state": state.value})
            return self._status(connection, workspace_id, destination_id)

        return await self._database.write(work)

    async def secrets(self, workspace_id: WorkspaceId, destination_id: str) -> Secrets:
        """Return the keys that sign, and the headers."""
        statement = select(destinations.c.secrets).where(*of_id(workspace_id, destination_id))
        text = await self._database.read(lambda connection: connection.execute(statement).scalar_one_or_none())
        if text is None:
            raise missing(destination_id)
        return secrets_of(text)

    async def set_secrets(
        self, workspace_id: WorkspaceId, destination_id: str, change: Callable[[Secrets, Destination, int], Secrets]
    ) -> Status:
        """Replace the secrets by those that `change` returns. It also gets the destination and the database's time."""

        def work(connection: Connection) -> Status:
            old = locked(connection, workspace_id, destination_id)
            stored = select(destinations.c.secrets).where(*of_id(workspace_id, destination_id))
            text = connection.execute(stored).scalar_one()
            before = secrets_of(text)
            changed = change(before, old, self._database.now(connection))
            self._change(connection, old, secrets=secrets_text(changed))
            verb = "secret_rotated" if before.current != changed.current else "headers_changed"
            facts = ({"headers": [name for name, _ in each.headers]} for each in (before, changed))
            self._record(connection, old, f"destination.{verb}", *facts)
            return self._status(connection, workspace_id, destination_id)

        return await self._database.write(work)

    async def replay(
        self, workspace_id: WorkspaceId, destination_id: str, *, after: int | None = None, since: int | None = None
    ) -> Status:
        """Deliver again the events after the sequence `after`, or those stored at the time `since` or later, up to the
        cursor. If a replay is in progress, it is extended.

        Raises `InvalidRequest` if `after` is past the cursor.
        """

        def work(connection: Connection) -> Status:
            old = locked(connection, workspace_id, destination_id)
            if after is not None and after > old.cursor.sequence:
                raise InvalidRequest(
                    f"The cursor is at {old.cursor.sequence}: the events after {after} are delivered anyway.",
                    reason=Reason.PAST_THE_END,
                    field="after_sequence",
                )
            place = (
                positions.at(connection, workspace_id, after)
                if after is not None
                else positions.before(connection, workspace_id, since or 0)
            )
            until = old.cursor.sequence
            if old.replay is not None:
                place = min(place, old.replay.position, key=lambda each: each.sequence)
            if place.sequence < until:
                self._change(connection, old, replay=place.sequence, replay_id=place.id, replay_until=until)
                asked = {"after_sequence": place.sequence, "until_sequence": until}
                self._record(connection, old, "destination.replayed", after=asked)
            return self._status(connection, workspace_id, destination_id)

        return await self._database.write(work)

    async def replay_set_aside(self, workspace_id: WorkspaceId, destination_id: str) -> Status:
        """Try all set-aside events again now. Their schedule starts from the beginning."""

        def work(connection: Connection) -> Status:
            old = locked(connection, workspace_id, destination_id)
            self._retry(connection, old, failures.c.state.in_(WAITING), attempts=0)
            self._change(connection, old)
            self._record(connection, old, "destination.replayed", after={"set_aside": True})
            return self._status(connection, workspace_id, destination_id)

        return await self._database.write(work)

    async def failures(
        self, workspace_id: WorkspaceId, destination_id: str, limit: int, after: int = 0
    ) -> Sequence[Failure]:
        """Return at most `limit` failures after the sequence `after`, in the order of their sequences."""
        here = (*failures_of(workspace_id, destination_id), failures.c.sequence > after)
        statement = FAILURES.where(*here).order_by(failures.c.sequence).limit(limit)

        def work(connection: Connection) -> Sequence[Failure]:
            row_of(connection, workspace_id, destination_id)
            return [failure_of(row) for row in connection.execute(statement)]

        return await self._database.read(work)

    async def retry(self, workspace_id: WorkspaceId, destination_id: str, sequence: int) -> Failure:
        """Try a failed event again now, even if its schedule is over. Raises `NotFound` if there is no such failure."""
        return await self._settle(workspace_id, destination_id, sequence, FailureState.RETRYING, next_attempt_at=None)

    async def skip(self, workspace_id: WorkspaceId, destination_id: str, sequence: int) -> Failure:
        """Skip a failed event. Raises `NotFound` if there is no such failure."""
        return await self._settle(workspace_id, destination_id, sequence, FailureState.SKIPPED, next_attempt_at=None)

    async def retry_event(self, workspace_id: WorkspaceId, event: StoredEvent) -> int:
        """Try an event again, now and from the beginning of the schedule, at every destination that did not get it.
        Return their number. It is 0, and nothing changes, unless the event is given up or skipped at one of them.
        """
        here = (failures.c.workspace_id == workspace_id, failures.c.sequence == event.sequence)
        every = select(destinations.c.id).where(destinations.c.workspace_id == workspace_id)

        def work(connection: Connection) -> int:
            # With the ids, the failures are looked up by their primary key.
            which = (*here, failures.c.destination_id.in_(connection.execute(every).scalars().all()))
            failing = destinations.c.id.in_(select(failures.c.destination_id).where(*which))
            mine = DESTINATIONS.where(destinations.c.workspace_id == workspace_id, failing)
            # The engine locks destinations in this order too, when it records several reports.
            rows = connection.execute(mine.order_by(destinations.c.id).with_for_update())
            every_one = [destination_of(row) for row in rows]
            states = dict(connection.execute(select(failures.c.destination_id, failures.c.state).where(*which)).all())
            failed = [one for one in every_one if one.id in states and one.gets(event)]
            if not any(states[one.id] in GIVEN_UP for one in failed):
                return 0
            for one in failed:
                self._retry(connection, one, failures.c.sequence == event.sequence, attempts=0)
                self._change(connection, one)
            for one in failed:
                before = {"sequence": event.sequence, "state": states[one.id]}
                after = {"sequence": event.sequence, "state": FailureState.RETRYING.value}
                self._record(connection, one, "delivery.retried", before, after)
            return len(failed)

        return await self._database.write(work)

    async def _settle(
        self, workspace_id: WorkspaceId, destination_id: str, sequence: int, state: FailureState, **values: Any
    ) -> Failure:
        here = (*failures_of(workspace_id, destination_id), failures.c.sequence == sequence)

        def work(connection: Connection) -> Failure:
            old = locked(connection, workspace_id, destination_id)
            if state is FailureState.RETRYING:
                values["next_attempt_at"] = self._database.now(connection)
            before = connection.execute(select(failures.c.state).where(*here)).scalar_one_or_none()
            if before is None:
                raise NotFound(f"The event of sequence {sequence} did not fail at this destination.")
            connection.execute(update(failures).where(*here).values(state=state, **values))
            self._change(connection, old)
            verb = "retried" if state is FailureState.RETRYING else "skipped"
            facts = ({"sequence": sequence, "state": each} for each in (before, state.value))
            self._record(connection, old, f"delivery.{verb}", *facts)
            return failure_of(connection.execute(FAILURES.where(*here)).one())

        return await self._database.write(work)

    def _create(self, connection: Connection, workspace_id: WorkspaceId, new: NewDestination) -> Status:
        _check_name(connection, workspace_id, new.name)
        _check_count(connection, workspace_id)
        now = self._database.now(connection)
        start = _start(connection, workspace_id, new.start)
        destination_id = PREFIX + ledger.event_id(now, randomness.token_bytes(8)).hex()
        values = {
            "workspace_id": workspace_id,
            "id": destination_id,
            "name": new.name,
            "settings": settings_of(new.filter, new.ordering, new.target),
            "secrets": secrets_text(new.secrets),
            "state": State.ACTIVE,
            "why": "",
            "start": start.sequence,
            "cursor": start.sequence,
            "cursor_id": start.id,
            "delivered": 0,
            "failed_attempts": 0,
            "last_error": "",
            "created_at": now,
            "updated_at": now,
            "revision": 1,
        }
        connection.execute(insert(destinations).values(values))
        status = self._status(connection, workspace_id, destination_id)
        facts = audit.destination_facts(status.destination) | {"cursor": start.sequence}
        self._record(connection, status.destination, "destination.created", after=facts)
        return status

    def _record(
        self,
        connection: Connection,
        one: Destination,
        type_: str,
        before: Facts | None = None,
        after: Facts | None = None,
    ) -> None:
        self._audit.record(connection, one.workspace_id, Act(type_, one.id, before, after))

    def _change(self, connection: Connection, old: Destination, **values: Any) -> None:
        changed = {"revision": old.revision + 1, "updated_at": self._database.now(connection), **values}
        connection.execute(update(destinations).where(*of_id(old.workspace_id, old.id)).values(changed))

    def _retry(self, connection: Connection, old: Destination, which: Any, **values: Any) -> None:
        due = {"state": FailureState.RETRYING, "next_attempt_at": self._database.now(connection), **values}
        connection.execute(update(failures).where(*failures_of(old.workspace_id, old.id), which).values(due))

    def _status(self, connection: Connection, workspace_id: WorkspaceId, destination_id: str) -> Status:
        row = row_of(connection, workspace_id, destination_id)
        return status_of(connection, row, self._database.now(connection))


def copy(old: Destination, **changes: Any) -> Destination:
    """Return a destination with changes, for `update`."""
    return replace(old, **changes)


def _check_name(connection: Connection, workspace_id: WorkspaceId, name: str) -> None:
    """Raise `AlreadyExists` if the name is in use. The lock of the head makes this safe for concurrent calls."""
    connection.execute(select(heads.c.workspace_id).where(heads.c.workspace_id == workspace_id).with_for_update())
    here = (destinations.c.workspace_id == workspace_id, destinations.c.name == name)
    if connection.execute(select(destinations.c.id).where(*here)).first() is not None:
        raise AlreadyExists(f"There is a destination {name!r} in this workspace.", field="name")


def _check_count(connection: Connection, workspace_id: WorkspaceId) -> None:
    """Raise `InvalidRequest` if the workspace has `MOST_DESTINATIONS` already."""
    count = select(func.count()).select_from(destinations).where(destinations.c.workspace_id == workspace_id)
    if connection.execute(count).scalar_one() >= MOST_DESTINATIONS:
        raise InvalidRequest(f"A workspace has at most {MOST_DESTINATIONS} destinations.", reason=Reason.TOO_MANY)


def _start(connection: Connection, workspace_id: WorkspaceId, start: int) -> Position:
    if start == NOW:
        return positions.end(connection, workspace_id)
    head = positions.head(connection, workspace_id)
    if head is None:
        raise NotFound("There is no such workspace.")
    if start > head + 1:
        raise InvalidRequest(
            f"The ledger ends at {head}: a destination can start at {head + 1} at the latest.",
            reason=Reason.PAST_THE_END,
            field="start",
        )
    return positions.at(connection, workspace_id, start - 1)
