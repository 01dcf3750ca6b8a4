"""What an operator wants to know of a database: its version, its size, its settings, its clock."""

from collections.abc import Mapping
from typing import NamedTuple

from sqlalchemy import Connection, func, select

from headgate_server.store.database import Database
from headgate_server.store.schema import heads


class Facts(NamedTuple):
    """What was found at one moment."""

    settings: Mapping[str, str]
    """By the dialect's own names. `version` is always there."""
    bytes: int
    now: int
    """The database's time."""
    newest: int
    """The latest time of an event; 0 without events."""
    workspaces: int
    events: int


class Survey:
    """Looks at a database. It MUST NOT change anything. The schema must be this program's."""

    def __init__(self, database: Database):
        self._database = database

    async def facts(self) -> Facts:
        """Return what is found now."""
        return await self._database.read(self._facts)

    async def now(self) -> int:
        """Return the database's time, for a comparison with another clock."""
        return await self._database.read(self._database.now)

    def _facts(self, connection: Connection) -> Facts:
        totals = select(func.count(), func.sum(heads.c.sequence), func.max(heads.c.created_at))
        workspaces, events, newest = connection.execute(totals).one()
        settings = self._database.describe(connection)
        size, now = self._database.size(connection), self._database.now(connection)
        return Facts(settings, size, now, newest or 0, workspaces, int(events or 0))
