"""The limit: what one connection to the same PostgreSQL can store, with nothing around it.

`python -m bench.limit URL WORKSPACE_ID`, a contender. The same rows in the same table under the same promises as the
product's: lock the head, look for the identities, COPY, move the head, commit. The rows are built beforehand, ids
and hashes included, and nobody is answered.

The workspace is the product's own, so that both write to the same part of the same indexes, however large it is. That
is right as long as nobody else writes between `prepare`, which builds on the ledger's head, and the end of the work.
"""

import sys
from collections.abc import Sequence
from typing import Any

import asyncpg
from asyncpg.pgproto.pgproto import UUID

from bench import ledgers
from bench.ledgers import Group
from bench.lockstep import Assignment, Findings, Work, contend
from headgate_server.core.model import Head
from headgate_server.store.schema import events

# The planner, left to itself, may read the whole ledger to find identities (store/postgres/append.py says why). The
# product says so anew in every transaction; here once is enough.
_PLANNER = """
SET enable_sort = off;
SET enable_seqscan = off;
SET enable_bitmapscan = off;
SET plan_cache_mode = force_generic_plan;
SET jit = off
"""

_HEAD = "SELECT sequence, hash, created_at FROM heads WHERE workspace_id = $1"

_LOCK = f"{_HEAD} FOR NO KEY UPDATE"

_PROBE = """
SELECT e.* FROM unnest($1::bytea[]) AS wanted (holder)
CROSS JOIN LATERAL (
    SELECT dedupe, id, sequence, created_at, event_hash, salt, commitment FROM events
    WHERE int8send(workspace_id) || dedupe = wanted.holder AND dedupe IS NOT NULL
    OFFSET 0
) AS e
"""

_MOVE = "UPDATE heads SET sequence = $2, hash = $3, created_at = $4 WHERE workspace_id = $1"

_COLUMNS = [column.name for column in events.columns]

_DURABLE = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}


class _Appends:
    """An assignment of the limit: transaction after transaction."""

    def __init__(self, connection: Any, workspace_id: int, groups: Sequence[Group]):
        self._connection = connection
        self._workspace_id = workspace_id
        self._groups = groups

    async def run(self) -> None:
        for group in self._groups:
            await self._append(group)

    async def check(self) -> Findings:
        """Count what is there. Raises `RuntimeError` unless it is what was written, and durable all along."""
        await _check_durable(self._connection)
        stored = await self._connection.fetchval(
            "SELECT count(*) FROM events WHERE workspace_id = $1 AND id >= $2",
            self._workspace_id,
            self._groups[0].rows[0][1],
        )
        wanted = sum(len(group.rows) for group in self._groups)
        if stored != wanted:
            raise RuntimeError(f"the limit stored {stored} events of {wanted}")
        return Findings(events=wanted, stored=wanted)

    async def _append(self, group: Group) -> None:
        connection = self._connection
        await connection.execute("BEGIN")
        await connection.fetch(_LOCK, self._workspace_id)
        known = await connection.fetch(_PROBE, group.identities)
        if known:
            raise RuntimeError("an event of the limit was stored before")
        await connection.copy_records_to_table("events", columns=_COLUMNS, records=group.rows)
        await connection.execute(_MOVE, self._workspace_id, *group.head)
        await connection.execute("COMMIT")


def _in_form(workspace_id: int, group: Group) -> Group:
    """Put the ids into the form that COPY takes, and the identities behind their workspace, as the index has them."""
    holder = workspace_id.to_bytes(8, "big")
    return group._replace(
        identities=[holder + identity for identity in group.identities],
        rows=[(row[0], UUID(row[1]), *row[2:]) for row in group.rows],
    )


async def _check_durable(connection: Any) -> None:
    """Raise `RuntimeError` if the server would acknowledge what is not on disk, or might tear a page."""
    for setting, wanted in _DURABLE.items():
        value = await connection.fetchval(f"SHOW {setting}")
        if value != wanted:
            raise RuntimeError(f"{setting} is {value}: a limit without durability is no limit of ours")


async def _durable_connection(url: str) -> Any:
    connection = await asyncpg.connect(url)
    await _check_durable(connection)
    await connection.execute(_PLANNER)
    return connection


def main() -> None:
    """Be the contender."""
    url, workspace_id = sys.argv[1], int(sys.argv[2])
    # Made by the first assignment, which brings the event loop, and ended with the process.
    connection: Any = None

    async def prepare(assignment: Assignment) -> Work:
        nonlocal connection
        connection = connection or await _durable_connection(url)
        head = Head(*await connection.fetchrow(_HEAD, workspace_id))
        groups = ledgers.groups(workspace_id, head, assignment)
        return _Appends(connection, workspace_id, [_in_form(workspace_id, group) for group in groups])

    contend(prepare)


if __name__ == "__main__":
    main()
