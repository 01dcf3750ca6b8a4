"""The answers to earlier requests, stored under their request keys. The append stores them together with the events."""

from sqlalchemy import Connection, delete, select, tuple_

from headgate_server.store.database import Database
from headgate_server.store.schema import answers

ANSWER_LIFETIME = 24 * 3600 * 1_000_000
"""How long an answer is kept under its request key, in microseconds: 24 hours, as the vendors' contracts say."""

PURGE_CHUNK = 500
"""Answers that one transaction deletes. Each may be large, and on SQLite every append waits for the transaction."""


class Answers:
    """Deletes expired answers. An expired answer MUST NOT be returned, even if it is not deleted yet: the append checks
    this.
    """

    def __init__(self, database: Database):
        self._database = database

    async def purge(self) -> int:
        """Delete the expired answers (`ANSWER_LIFETIME`) and return their number. Raises `errors.Unavailable`; some of
        them may be deleted then.
        """
        purged = 0
        while True:
            chunk = await self._database.write(self._purge_some)
            purged += chunk
            if chunk < PURGE_CHUNK:
                return purged

    def _purge_some(self, connection: Connection) -> int:
        key = tuple_(answers.c.workspace_id, answers.c.scope, answers.c.key)
        expired = (
            select(answers.c.workspace_id, answers.c.scope, answers.c.key)
            .where(answers.c.created_at <= self._database.now(connection) - ANSWER_LIFETIME)
            .limit(PURGE_CHUNK)
        )
        return connection.execute(delete(answers).where(key.in_(expired))).rowcount
