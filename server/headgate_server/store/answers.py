"""The answers to earlier requests, kept under their request keys. They are stored by the append, with the events."""

from sqlalchemy import Connection, delete, select, tuple_

from headgate_server.store.database import Database
from headgate_server.store.schema import answers

ANSWER_LIFETIME = 24 * 3600 * 1_000_000
"""How long a request key answers, in microseconds: 24 hours, as the vendors' contracts say."""

PURGE_CHUNK = 500
"""Answers that one transaction deletes: each may be large, and on SQLite every append waits behind it."""


class Answers:
    """Forgets answers. An answer whose time is over MUST NOT be given, be it purged or not: the append sees to it."""

    def __init__(self, database: Database):
        self._database = database

    async def purge(self) -> int:
        """Delete the answers whose time is over (`ANSWER_LIFETIME`); return how many. Raises `errors.Unavailable`,
        with some of them deleted.
        """
        purged = 0
        while True:
            chunk = await self._database.write(self._purge_some)
            purged += chunk
            if chunk < PURGE_CHUNK:
                return purged

    def _purge_some(self, connection: Connection) -> int:
        key = tuple_(answers.c.workspace_id, answers.c.scope, answers.c.key)
        over = (
            select(answers.c.workspace_id, answers.c.scope, answers.c.key)
            .where(answers.c.created_at <= self._database.now(connection) - ANSWER_LIFETIME)
            .limit(PURGE_CHUNK)
        )
        return connection.execute(delete(answers).where(key.in_(over))).rowcount
