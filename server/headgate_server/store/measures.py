"""What the metrics show of the store itself."""

from collections.abc import Mapping
from typing import NamedTuple

from sqlalchemy import Connection, func, select

from headgate_server.core.destinations import State
from headgate_server.store import properties
from headgate_server.store.database import Database
from headgate_server.store.schema import destinations


class Measured(NamedTuple):
    """The store at one moment."""

    size: int
    """Bytes on its disk."""
    free: int | None
    """Bytes that are free on its disk; None: this process does not see the disk."""
    destinations: Mapping[str, int]
    """How many destinations are in each state."""
    verified: tuple[float, int] | None
    """When all ledgers were last verified, in seconds since the epoch, and the breaks that were found then."""


class Measures:
    """Measures the store. Each call is a few short statements."""

    def __init__(self, database: Database):
        self._database = database

    async def read(self) -> Measured:
        """Return the store's measures. Raises `errors.Unavailable`."""
        states = select(destinations.c.state, func.count()).group_by(destinations.c.state)

        def work(connection: Connection) -> Measured:
            counts = {state.value: 0 for state in State}
            counts |= {str(state): int(count) for state, count in connection.execute(states)}
            size, free = self._database.size(connection), self._database.free()
            return Measured(size, free, counts, _verified(properties.get(connection, _VERIFIED)))

        return await self._database.read(work)

    async def note_verified(self, breaks: int) -> None:
        """Record that all ledgers were verified now, and the number of breaks. Raises `errors.Unavailable`."""

        def work(connection: Connection) -> None:
            now = self._database.now(connection) // 1_000_000
            properties.put(connection, _VERIFIED, f"{now} {breaks}")

        await self._database.write(work)


_VERIFIED = "ledgers_verified"
"""The name of the fact: the second, and the number of breaks."""


def _verified(text: str | None) -> tuple[float, int] | None:
    parts = (text or "").split()
    return (float(parts[0]), int(parts[1])) if len(parts) == 2 and all(map(str.isdecimal, parts)) else None
