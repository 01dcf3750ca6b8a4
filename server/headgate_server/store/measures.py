"""What the metrics show of the store itself."""

from collections.abc import Mapping
from typing import NamedTuple

from sqlalchemy import Connection, func, select

from headgate_server.core.destinations import State
from headgate_server.store.database import Database
from headgate_server.store.schema import destinations


class Measured(NamedTuple):
    """The store at one moment."""

    size: int
    """Bytes on its disk."""
    destinations: Mapping[str, int]
    """How many destinations are in each state."""


class Measures:
    """Measures the store. Each call is two short statements."""

    def __init__(self, database: Database):
        self._database = database

    async def read(self) -> Measured:
        """Return the store's measures. Raises `errors.Unavailable`."""
        states = select(destinations.c.state, func.count()).group_by(destinations.c.state)

        def work(connection: Connection) -> Measured:
            counts = {state.value: 0 for state in State}
            counts |= {str(state): int(count) for state, count in connection.execute(states)}
            return Measured(self._database.size(connection), counts)

        return await self._database.read(work)
