"""The limit: what one connection to the same PostgreSQL can store, with nothing around it.

`python -m bench.limit URL WORKSPACE_ID`, a contender. The same rows in the same table under the same promises as the
product's: lock the head, look for the identities, COPY, move the head, commit. The rows are built beforehand, ids
and hashes included, and nobody is answered.
"""

import sys
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import asyncpg
from asyncpg.pgproto.pgproto import UUID

from bench import workload
from bench.lockstep import Assignment, Work, contend
from headgate_server.model import Head, Submission
from headgate_server.settle import Settlement
from headgate_server.store.schema import events

# The planner, left to itself, may read the whole ledger to find identities (store/postgres_append.py says why). The
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
SELECT dedupe, id, sequence, created_at, event_hash, salt, commitment FROM events
WHERE workspace_id = $1 AND dedupe = ANY($2::bytea[]) ORDER BY dedupe
"""

_MOVE = "UPDATE heads SET sequence = $2, hash = $3, created_at = $4 WHERE workspace_id = $1"

_COLUMNS = [column.name for column in events.columns]


class _Group(NamedTuple):
    """One transaction's worth, ready to be written."""

    identities: Sequence[bytes]
    """Sorted, as the product probes them."""
    rows: Sequence[tuple[Any, ...]]
    head: Head


class _Appends:
    """An assignment of the limit: transaction after transaction."""

    def __init__(self, connection: Any, workspace_id: int, groups: Sequence[_Group]):
        self._connection = connection
        self._workspace_id = workspace_id
        self._groups = groups

    async def run(self) -> None:
        for group in self._groups:
            await self._append(group)

    async def check(self) -> None:
        stored = await self._connection.fetchval(
            "SELECT count(*) FROM events WHERE workspace_id = $1 AND id >= $2",
            self._workspace_id,
            self._groups[0].rows[0][1],
        )
        wanted = sum(len(group.rows) for group in self._groups)
        if stored != wanted:
            raise RuntimeError(f"the limit stored {stored} events of {wanted}")

    async def _append(self, group: _Group) -> None:
        connection = self._connection
        await connection.execute("BEGIN")
        await connection.fetch(_LOCK, self._workspace_id)
        known = await connection.fetch(_PROBE, self._workspace_id, group.identities)
        if known:
            raise RuntimeError("an event of the limit was stored before")
        await connection.copy_records_to_table("events", columns=_COLUMNS, records=group.rows)
        await connection.execute(_MOVE, self._workspace_id, *group.head)
        await connection.execute("COMMIT")


def _groups(workspace_id: int, head: Head, assignment: Assignment) -> list[_Group]:
    """Build the rows as the product does, in an unbroken ledger."""
    orders = workload.orders(assignment.events)
    groups = []
    for first in range(0, assignment.events, assignment.group):
        settlement = Settlement(workspace_id, head, {}, {}, time.time_ns() // 1000)
        drafts = [workload.draft(order) for order in orders[first : first + assignment.group]]
        settlement.decide(Submission(workspace_id=workspace_id, slots=drafts))
        head = settlement.head
        rows = [(row[0], UUID(row[1]), *row[2:]) for row in settlement.rows]
        groups.append(_Group(sorted(draft.identity[:16] for draft in drafts), rows, head))
    return groups


async def _durable_connection(url: str) -> Any:
    """Connect. Raises `RuntimeError` if the server would acknowledge what is not on disk."""
    connection = await asyncpg.connect(url)
    for setting in ("fsync", "synchronous_commit", "full_page_writes"):
        value = await connection.fetchval(f"SHOW {setting}")
        if value != "on":
            raise RuntimeError(f"{setting} is {value}: a limit without durability is no limit of ours")
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
        return _Appends(connection, workspace_id, _groups(workspace_id, head, assignment))

    contend(prepare)


if __name__ == "__main__":
    main()
