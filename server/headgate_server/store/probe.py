"""Whether an event can be stored, found out by writing."""

import os

from sqlalchemy import Connection, insert, update
from sqlalchemy.dialects import postgresql

from headgate_server.store.database import Database
from headgate_server.store.schema import answers, events, heads

_THOROUGH_BYTES = 64 * 1024
"""Of a thorough probe: more than the room that small commits leave at the end of a log or a file."""


class Probe:
    """Writes as an append does. It MUST NOT leave anything in a ledger."""

    def __init__(self, database: Database):
        self._database = database
        # One row for each store that is open: processes that probe at the same time wait for no row of each other's.
        self._key = os.urandom(16)

    async def ping(self, *, thorough: bool = False) -> None:
        """Return if an event can be stored durably now, raise `errors.Unavailable` if not.

        It writes what an append writes, takes that back, and commits a small row of its own, which costs an fsync:
        call it every few seconds at most. `thorough` writes and commits some tens of kilobytes: for a store that just
        failed, since the last pages of a full disk may still take a small row. Also raises if the database would not
        keep, in a power cut, what it acknowledges (`STORE_NOT_DURABLE`).
        """
        filling = os.urandom(_THOROUGH_BYTES if thorough else 0)

        def write(connection: Connection) -> None:
            self._database.check_durable(connection)
            _try_out(connection, self._key, self._database.now(connection), filling)

        await self._database.write(write)


def _try_out(connection: Connection, key: bytes, now: int, filling: bytes) -> None:
    """Write what an append writes and take it back, then leave one row, of `key`, to be committed.

    The row is an answer of no workspace: what is no longer written is deleted like other answers, a day later.
    """
    trial = connection.begin_nested()
    texts = {"receiver": "probe", "type": "probe", "source": "", "subject": ""}
    digests = {"salt": key, "commitment": bytes(32), "event_hash": bytes(32)}
    row = {"workspace_id": _NO_WORKSPACE, "id": key, "sequence": 0, "created_at": now, "data": filling}
    connection.execute(insert(events).values({**row, **texts, **digests}))
    # No row, but the right to write them is checked all the same.
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
"""Ids of workspaces begin with 1."""
