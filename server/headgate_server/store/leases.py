"""Leases: the right to do a job that only one process may do at a time. `background/leased.py` says how leases are
held.
"""

from collections.abc import Sequence

from sqlalchemy import ColumnElement, Connection, or_, select, update
from sqlalchemy.dialects import postgresql

from headgate_server.core.errors import LeaseLost
from headgate_server.core.model import Lease
from headgate_server.store.database import Database
from headgate_server.store.schema import leases

_MICROSECONDS = 1_000_000

_SLACK = 60 * _MICROSECONDS
"""A stored term may end this much later than a term that begins now, although the clock was not set back: the holder
may have taken the lease after this statement read the clock, while the statement waited for the row."""


class Leases:
    """Gives out leases. Terms are in seconds, and begin and end by the database's clock.

    One process at a time MUST hold a lease, as long as that clock does not jump. The epoch grows by one whenever the
    lease is taken. An epoch MUST NOT be given twice, whatever the clock does, because it fences writes (`fence`).
    Taking is durable. A renewal or a release need not be durable: if a power cut undoes it, the only cost is a wait.
    """

    def __init__(self, database: Database):
        self._database = database

    async def take(self, name: str, holder: str, term: float) -> Lease | None:
        """Return the lease if it was free or its term is over, None while another process holds it.

        A term that ends much later than `term` from now counts as over: the clock was set back after it began.
        """
        epoch = await self._database.write(lambda connection: self._take(connection, name, holder, term))
        return None if epoch is None else Lease(name, holder, epoch)

    async def renew(self, lease: Lease, term: float) -> bool:
        """Begin a new term of the same epoch. Return False if the lease has another epoch now, or was released."""
        return await self._database.write(lambda connection: self._renew(connection, lease, term), durable=False)

    async def current(self, name: str) -> Lease | None:
        """Return the lease that was taken last and not released, also if its term is over."""
        statement = select(leases.c.holder, leases.c.epoch).where(leases.c.name == name, leases.c.holder != "")
        row = await self._database.read(lambda connection: connection.execute(statement).first())
        return None if row is None else Lease(name, row.holder, row.epoch)

    async def held(self) -> Sequence[Lease]:
        """Return the leases whose term is not over."""
        return await self._database.read(self._held)

    def _held(self, connection: Connection) -> Sequence[Lease]:
        in_force = (leases.c.holder != "", leases.c.ends_at > self._database.now(connection))
        statement = select(leases.c.name, leases.c.holder, leases.c.epoch).where(*in_force).order_by(leases.c.name)
        return [Lease(*row) for row in connection.execute(statement)]

    async def release(self, lease: Lease) -> None:
        """Free the lease if it still has this epoch. Only its holder may do this, or a process that knows for certain
        that the holder has ended.
        """
        statement = update(leases).where(*_held(lease)).values(holder="", ends_at=0)
        await self._database.write(lambda connection: connection.execute(statement).close(), durable=False)

    def _take(self, connection: Connection, name: str, holder: str, term: float) -> int | None:
        now = self._database.now(connection)
        ends_at = now + int(term * _MICROSECONDS)
        new = postgresql.insert(leases).values(name=name, holder=holder, epoch=1, ends_at=ends_at)
        taken = new.on_conflict_do_update(
            index_elements=[leases.c.name],
            set_={"holder": holder, "epoch": leases.c.epoch + 1, "ends_at": ends_at},
            where=or_(leases.c.ends_at <= now, leases.c.ends_at > ends_at + _SLACK),
        )
        return connection.execute(taken.returning(leases.c.epoch)).scalar_one_or_none()

    def _renew(self, connection: Connection, lease: Lease, term: float) -> bool:
        ends_at = self._database.now(connection) + int(term * _MICROSECONDS)
        return connection.execute(update(leases).where(*_held(lease)).values(ends_at=ends_at)).rowcount == 1


def fence(connection: Connection, lease: Lease) -> None:
    """Keep the lease's epoch fixed until the transaction ends. Raises `LeaseLost` if the lease has another epoch.

    Every write of a holder MUST begin with this. Because of the shared lock no other process can take the lease before
    the transaction ends. So a former holder writes nothing after its successor has begun.
    """
    row = select(leases.c.epoch).where(*_held(lease)).with_for_update(read=True)
    if connection.execute(row).first() is None:
        raise LeaseLost(f"The lease {lease.name} has passed to another holder.")


def _held(lease: Lease) -> Sequence[ColumnElement[bool]]:
    return (leases.c.name == lease.name, leases.c.holder == lease.holder, leases.c.epoch == lease.epoch)
