"""The answers to earlier requests, stored under their request keys. The append stores them together with the events."""

from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

from sqlalchemy import Connection, delete, select, tuple_

from headgate_server.store.database import Database
from headgate_server.store.schema import answers

ANSWER_LIFETIME = 24 * 3600 * 1_000_000
"""How long an answer is kept under its request key, in microseconds: 24 hours, as the vendors' contracts say."""

PURGE_CHUNK = 500
"""Answers that one transaction deletes. Each may be large, and on SQLite every append waits for the transaction."""

SCAN_CHUNK = 5_000
"""Answers that one statement examines. Their times have no index, because each index makes every append slower."""

_KEY = (answers.c.workspace_id, answers.c.scope, answers.c.key)


class _Look(NamedTuple):
    """The expired answers of a part of the table, in the order of their keys."""

    keys: Sequence[Any]
    last: Sequence[Any] | None
    """The last key of the part; None: the table ends there."""


class Answers:
    """Deletes expired answers. An expired answer MUST NOT be returned, even if it is not deleted yet: the append checks
    this.
    """

    def __init__(self, database: Database):
        self._database = database

    async def purge(self) -> int:
        """Delete the expired answers (`ANSWER_LIFETIME`) and return their number. Raises `errors.Unavailable`; some of
        them may be deleted then.

        It reads the whole table once, in parts, outside of the transactions that delete.
        """
        purged, look = 0, _Look((), ())
        while look.last is not None:
            look = await self._database.read(partial(self._expired, after=look.last))
            for start in range(0, len(look.keys), PURGE_CHUNK):
                keys = look.keys[start : start + PURGE_CHUNK]
                purged += await self._database.write(partial(self._purge_some, keys=keys))
        return purged

    def _expired(self, connection: Connection, after: Sequence[Any]) -> _Look:
        part = select(*_KEY, answers.c.created_at).order_by(*_KEY).limit(SCAN_CHUNK)
        if after:
            part = part.where(tuple_(*_KEY) > tuple_(*after, types=[column.type for column in _KEY]))
        end = part.with_only_columns(*_KEY).limit(1).offset(SCAN_CHUNK - 1)
        last = connection.execute(end).first()
        window = part.subquery()
        expired = window.c.created_at <= self._database.now(connection) - ANSWER_LIFETIME
        keys = connection.execute(select(*(window.c[column.name] for column in _KEY)).where(expired)).all()
        return _Look(keys, None if last is None else tuple(last))

    def _purge_some(self, connection: Connection, keys: Sequence[Any]) -> int:
        """Delete the answers with these keys, unless they were stored anew in the meantime."""
        by_scope = defaultdict(list)
        for workspace_id, scope, key in keys:
            by_scope[workspace_id, scope].append(key)
        expired = answers.c.created_at <= self._database.now(connection) - ANSWER_LIFETIME
        purged = 0
        # Sorted, so that two purges lock in the same order.
        for (workspace_id, scope), some in sorted(by_scope.items()):
            here = (answers.c.workspace_id == workspace_id, answers.c.scope == scope, answers.c.key.in_(some))
            purged += connection.execute(delete(answers).where(*here, expired)).rowcount
        return purged
