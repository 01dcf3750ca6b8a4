"""Finds out by writing whether an event can be stored."""

import os

from sqlalchemy import Connection, insert, update
from sqlalchemy.dialects import postgresql

from headgate_server.store.database import Database
from headgate_server.store.schema import answers, events, heads

_THOROUGH_BYTES = 64 * 1024
"""The size of a thorough probe: more than the free space that small commits leave at the end of a log or a file."""


class Probe:
    """Writes like an append. It MUST NOT leave anything in a ledger."""

    def __init__(self, database: Database):
        self._database = database
        # Each open store has its own row, so processes that probe at the same time do not wait for each other.
        self._key = os.urandom(16)

    async def ping(self, *, thorough: bool = False) -> None:
        """Return if an event can be stored durably now. Raises `errors.Unavailable` if not.

        It writes what an append writes, rolls that back, and commits a small row of its own. That takes an fsync, so
        call it every few seconds at most. `thorough` writes and commits some tens of kilobytes. Use it for a store that
        has just failed: a small row may still fit on the last pages of a full disk. Also raises if the database would
        lose acknowledged events in a power cut (`STORE_NOT_DURABLE`).
        """
        filling = os.urandom(_THOROUGH_BYTES if thorough else 0)

        def write(connection: Connection) -> None:
            self._database.check_durable(connection)
            _try_out(connection, self._key, self._database.now(connection), filling)

        await self._database.write(write)


def _try_out(connection: Connection, key: bytes, now: int, filling: bytes) -> None:
    """Write what an append writes and roll it back, then write one row, under `key`, which the caller commits.

    The row is an answer that belongs to no workspace. It is deleted a day after its last write, like other answers.
    """
    trial = connection.begin_nested()
    texts = {"receiver": "probe", "type": "probe", "source": "", "subject": ""}
    digests = {"salt": key, "commitment": bytes(32), "event_hash": bytes(32)}
    row = {"workspace_id": _NO_WORKSPACE, "id": key, "sequence": 0, "created_at": now, "data": filling}
    connection.execute(insert(events).values({**row, **texts, **digests}))
    # This changes no row, but the database still checks the permission to write.
    here = heads.c.workspace_id == _NO_WORKSPACE
    connection.execute(update(heads).where(here).values(sequence=heads.c.sequence))
    trial.rollback()
    new = postgresql.insert(answers).values(
        workspace_id=_NO_WORKSPACE, scope="probe", key=key, fingerprint=bytes(32), answer=filling, created_at=now
    )
    columns = [answers.c.workspace_id, answers.c.scope, answers.c.key]
    changed = {"answer": new.excluded.answer, "created_at": new.excluded.created_at}
    connection.execute(new.on_conflict_do_update(index_elements=columns, set_=changed))


_NO_WORKSPACE = 0
"""No workspace has this id: ids of workspaces begin with 1."""
