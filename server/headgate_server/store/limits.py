"""The limits of a workspace: its monthly quota, and the rates of its requests.

The append counts the month's events and applies the quota, under the lock of the head.
"""

import json
from types import EllipsisType

from sqlalchemy import Connection, case, select, update
from sqlalchemy.dialects import postgresql

from headgate_server.core.errors import NotFound
from headgate_server.core.model import Admission, RateLimit, Usage
from headgate_server.core.settle import current_usage, next_created_at
from headgate_server.core.types import WorkspaceId
from headgate_server.store.database import Database
from headgate_server.store.schema import heads, rates, workspaces

_CLOCK_SKEW = 2_000_000
"""A request may have read the clock this many microseconds before the request whose arrival time it finds."""


class Limits:
    """Quotas and rates. A limit MUST apply, in every process, from the next append or the next request on."""

    def __init__(self, database: Database):
        self._database = database

    async def usage(self, workspace_id: WorkspaceId) -> Usage:
        """Return the workspace's monthly quota and the number of events stored in the current month. That is the month
        in which an event that is appended now would be counted.

        Raises `errors.NotFound`.
        """
        return await self._database.read(
            lambda connection: _usage(connection, workspace_id, self._database.now(connection))
        )

    async def set_quota(self, workspace_id: WorkspaceId, quota: int | None) -> None:
        """Set how many events the workspace may store in a month; None for no quota."""
        statement = update(heads).where(heads.c.workspace_id == workspace_id).values(quota=quota)
        await self._database.write(lambda connection: connection.execute(statement).close())

    async def set_rate(self, workspace_id: WorkspaceId, receiver: str, rate: RateLimit | EllipsisType | None) -> None:
        """Set the workspace's own limit for one receiver. None means no limit; `...` means the receiver's default."""
        await self._database.write(lambda connection: _set_rate(connection, workspace_id, receiver, rate))

    async def admit(self, workspace_id: WorkspaceId, receiver: str, rate: RateLimit) -> Admission:
        """Count one request against a rate limit (GCRA), in one statement. The count is exact over all processes.

        A refused request is not counted. A count need not survive a power cut: the limit still works if some requests
        are forgotten, and one fsync for each request would be too slow.
        """
        return await self._database.write(
            lambda connection: _admit(connection, workspace_id, receiver, rate, self._database.now(connection)),
            durable=False,
        )


def _usage(connection: Connection, workspace_id: WorkspaceId, now: int) -> Usage:
    statement = select(heads.c.created_at, heads.c.quota, heads.c.month, heads.c.month_events)
    row = connection.execute(statement.where(heads.c.workspace_id == workspace_id)).first()
    if row is None:
        raise NotFound("There is no such workspace.")
    created_at, *counted = row
    return current_usage(next_created_at(created_at, now), Usage(*counted))


def _set_rate(
    connection: Connection, workspace_id: WorkspaceId, receiver: str, rate: RateLimit | EllipsisType | None
) -> None:
    here = workspaces.c.id == workspace_id
    row = select(workspaces.c.rates).where(here).with_for_update()
    own = json.loads(connection.execute(row).scalar_one() or "{}")
    own.pop(receiver, None)
    if not isinstance(rate, EllipsisType):
        own[receiver] = rate
    connection.execute(update(workspaces).where(here).values(rates=json.dumps(own)))


def _admit(connection: Connection, workspace_id: WorkspaceId, receiver: str, rate: RateLimit, now: int) -> Admission:
    """Count one request by GCRA (ITU-T I.371, Annex A). One statement moves the arrival time, or changes nothing.

    A request may arrive up to `slack` earlier than in an evenly spread stream; this allows the burst.
    """
    step = -(-rate.period // rate.requests)
    slack = step * (rate.burst - 1)
    new = postgresql.insert(rates).values(workspace_id=workspace_id, receiver=receiver, arrival=now + step)
    # An arrival time further ahead than this rate can put it comes from a slower rate: start again from now.
    foreign = rates.c.arrival > now + slack + step + _CLOCK_SKEW
    due = case((foreign, now), (rates.c.arrival > now, rates.c.arrival), else_=now)
    moved = new.on_conflict_do_update(
        index_elements=[rates.c.workspace_id, rates.c.receiver],
        set_={"arrival": due + step},
        where=due - now <= slack,
    ).returning(rates.c.arrival)
    arrival = connection.execute(moved).scalar_one_or_none()
    if arrival is not None:
        return Admission(True, (slack + step - (arrival - now)) // step, 0, arrival - now)
    here = (rates.c.workspace_id == workspace_id, rates.c.receiver == receiver)
    arrival = connection.execute(select(rates.c.arrival).where(*here)).scalar_one()
    return Admission(False, 0, max(1, arrival - slack - now), max(1, arrival - now))
