"""The limits of a workspace: its monthly quota, and the rates of its requests.

The append counts the month's events and applies the quota, under the lock of the head.
"""

import json
from collections.abc import Mapping
from types import EllipsisType, MappingProxyType
from typing import Any

from sqlalchemy import Connection, case, select, update
from sqlalchemy.dialects import postgresql

from headgate_server.core.audit import Act, Facts, changes
from headgate_server.core.errors import NotFound
from headgate_server.core.model import Admission, RateLimit, Usage
from headgate_server.core.rates import text_of
from headgate_server.core.settle import current_usage, next_created_at
from headgate_server.core.types import WorkspaceId
from headgate_server.store.audit import Audited
from headgate_server.store.schema import heads, rates, workspaces

_CLOCK_SKEW = 2_000_000
"""A request may have read the clock this many microseconds before the request whose arrival time it finds."""


_FAR = 10**17
"""Microseconds, three thousand years: the most that a burst may be ahead, so that every time fits into its column."""


class Limits(Audited):
    """Quotas and rates. A limit MUST apply, in every process, from the next append or the next request on. Every change
    is an act in the audit's ledger.
    """

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
        await self.change(workspace_id, quota)

    async def set_rate(self, workspace_id: WorkspaceId, receiver: str, rate: RateLimit | EllipsisType | None) -> None:
        """Set the workspace's own limit for one receiver. None means no limit; `...` means the receiver's default."""
        await self.change(workspace_id, rates={receiver: rate})

    async def change(
        self,
        workspace_id: WorkspaceId,
        quota: int | EllipsisType | None = ...,
        rates: Mapping[str, RateLimit | EllipsisType | None] = MappingProxyType({}),
    ) -> None:
        """Set the monthly quota and limits by receiver, all or none. Raises `NotFound` if there is no such workspace.

        A quota of None means no quota; `...` leaves it unchanged. A rate of None means no limit; `...` means the
        receiver's default. Values that are set already change nothing.
        """
        await self._database.write(lambda connection: self.change_in(connection, workspace_id, quota, rates))

    def change_in(
        self,
        connection: Connection,
        workspace_id: WorkspaceId,
        quota: int | EllipsisType | None,
        rates: Mapping[str, RateLimit | EllipsisType | None],
    ) -> None:
        """Do the same in the caller's transaction."""
        here = workspaces.c.id == workspace_id
        row = connection.execute(select(workspaces.c.name, workspaces.c.rates).where(here).with_for_update()).first()
        counted = heads.c.workspace_id == workspace_id
        head = connection.execute(select(heads.c.quota).where(counted)).first()
        if row is None or head is None:
            raise NotFound("There is no such workspace.")
        old_rates = json.loads(row.rates or "{}")
        kept = {receiver: rate for receiver, rate in old_rates.items() if receiver not in rates}
        new_rates = kept | {receiver: rate for receiver, rate in rates.items() if not isinstance(rate, EllipsisType)}
        new_quota = head.quota if isinstance(quota, EllipsisType) else quota
        old, new = _facts(head.quota, old_rates), _facts(new_quota, new_rates)
        if old == new:
            return
        connection.execute(update(workspaces).where(here).values(rates=json.dumps(new_rates)))
        if new_quota != head.quota:
            connection.execute(update(heads).where(counted).values(quota=new_quota))
        self._audit.record(connection, workspace_id, Act("workspace.limits_changed", row.name, *changes(old, new)))

    async def admit(
        self, workspace_id: WorkspaceId, receiver: str, rate: RateLimit, cost: int = 1, most: int = 1
    ) -> Admission:
        """Count one request against a rate limit (GCRA), in one statement. The count is exact over all processes.

        A request may cost more than one, at most `most`. If that is more than the burst, it is allowed as soon as the
        whole burst would be, and counted in full. All requests against one limit MUST have the same `most`.

        A refused request is not counted. A count need not survive a power cut: the limit still works if some requests
        are forgotten, and one fsync for each request would be too slow.
        """
        return await self._database.write(
            lambda connection: _admit(
                connection, (workspace_id, receiver), rate, (cost, most), self._database.now(connection)
            ),
            durable=False,
        )


def _usage(connection: Connection, workspace_id: WorkspaceId, now: int) -> Usage:
    statement = select(heads.c.created_at, heads.c.quota, heads.c.month, heads.c.month_events)
    row = connection.execute(statement.where(heads.c.workspace_id == workspace_id)).first()
    if row is None:
        raise NotFound("There is no such workspace.")
    created_at, *counted = row
    return current_usage(next_created_at(created_at, now), Usage(*counted))


def _facts(quota: int | None, own: Mapping[str, Any]) -> Facts:
    """Return what is told of limits. `own` are the rates as stored, or as values."""
    facts: Facts = {"quota": quota}
    for receiver, rate in own.items():
        facts[f"rate_{receiver}"] = "no limit" if rate is None else text_of(RateLimit(*rate))
    return facts


def _admit(
    connection: Connection, place: tuple[WorkspaceId, str], rate: RateLimit, costs: tuple[int, int], now: int
) -> Admission:
    """Count one request by GCRA (ITU-T I.371, Annex A). One statement moves the arrival time, or changes nothing.

    A request may arrive up to `slack` earlier than in an evenly spread stream; this allows the burst.
    """
    cost, most = costs
    step = -(-rate.period // rate.requests)
    slack = min(step * (rate.burst - 1), _FAR)
    early, late = max(0, slack - step * (cost - 1)), step * cost
    workspace_id, receiver = place
    new = postgresql.insert(rates).values(workspace_id=workspace_id, receiver=receiver, arrival=now + late)
    # An arrival time further ahead than this rate can put it comes from a slower rate: start again from now.
    foreign = rates.c.arrival > now + max(slack + step, step * most) + _CLOCK_SKEW
    due = case((foreign, now), (rates.c.arrival > now, rates.c.arrival), else_=now)
    moved = new.on_conflict_do_update(
        index_elements=[rates.c.workspace_id, rates.c.receiver], set_={"arrival": due + late}, where=due - now <= early
    ).returning(rates.c.arrival)
    arrival = connection.execute(moved).scalar_one_or_none()
    if arrival is not None:
        return Admission(True, max(0, (slack + step - (arrival - now)) // step), 0, arrival - now)
    here = (rates.c.workspace_id == workspace_id, rates.c.receiver == receiver)
    arrival = connection.execute(select(rates.c.arrival).where(*here)).scalar_one()
    return Admission(False, 0, max(1, arrival - early - now), max(1, arrival - now))
