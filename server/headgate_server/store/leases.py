"""Leases: which process may do what only one may do at a time. `background/leased.py` says how they are held."""

from collections.abc import Sequence

from sqlalchemy import ColumnElement, Connection, or_, select, update
from sqlalchemy.dialects import postgresql

from headgate_server.core.errors import LeaseLost
from headgate_server.core.model import Lease
from headgate_server.store.database import Database
from headgate_server.store.schema import leases

_MICROSECONDS = 1_000_000

_SLACK = 60 * _MICROSECONDS
"""By how much a term may end after one that begins now without the clock having been set back: whoever holds the lease
may have taken it while this statement, which had read the clock, waited for the row."""


class Leases:
    """Gives leases out. Terms are in seconds, and begin and end by the database's clock.

    A lease MUST be held by one process at a time, as long as that clock does not leap. Its epoch grows by one whenever
    it is taken, and MUST NOT be given twice, whatever the clock does: writes are fenced by it (`fence`). Taking is
    durable. A renewal or a release need not be: one that a power cut undoes costs a wait and nothing else.
    """

    def __init__(self, database: Database):
        self._database = database

    async def take(self, name: str, holder: str, term: float) -> Lease | None:
        """Return the lease if it was free or its term is over, None while somebody holds it.

        A term whose end lies much further ahead than `term` counts as over: the clock was set back since it began.
        """
        epoch = await self._database.write(lambda connection: self._take(connection, name, holder, term))
        return None if epoch is None else Lease(name, holder, epoch)

    async def renew(self, lease: Lease, term: float) -> bool:
        """Begin a new term of the same epoch; False if the lease has passed to another epoch, or was released."""
        return await self._database.write(lambda connection: self._renew(connection, lease, term), durable=False)

    async def release(self, lease: Lease) -> None:
        """Free the lease if it is still of this epoch."""
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
    """Hold the lease's epoch for the length of a transaction. Raises `LeaseLost` if it has passed to another.

    Every write that a holder makes MUST begin with this. The shared lock keeps the lease from being taken before the
    transaction ends, so nothing of an overtaken holder is written after its successor began.
    """
    row = select(leases.c.epoch).where(*_held(lease)).with_for_update(read=True)
    if connection.execute(row).first() is None:
        raise LeaseLost(f"The lease {lease.name} has passed to another holder.")


def _held(lease: Lease) -> Sequence[ColumnElement[bool]]:
    return (leases.c.name == lease.name, leases.c.holder == lease.holder, leases.c.epoch == lease.epoch)
