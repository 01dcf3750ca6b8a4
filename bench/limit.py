"""The limit: the most that one connection to the store's database can store, without a service. A contender.

`python -m bench.limit URL WORKSPACE_ID`. It writes the same rows into the same table, as durably as the product: lock
the head, look for the identities, insert (PostgreSQL: COPY; SQLite: 256 rows a statement), move the head, commit. The
rows are built beforehand, with ids and hashes, for PostgreSQL as the bytes of COPY, and there are no answers. No other
process may write to the workspace from `prepare`, which builds on the ledger's head, to the end of the work.
"""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import chain
from typing import Any, ClassVar, NamedTuple

import asyncpg
from asyncpg.pgproto.pgproto import UUID
from pysqlite3 import dbapi2 as sqlite

from bench import workload
from bench.contender import Assignment, Timing, contend
from headgate_server.core.model import Head, Submission, Usage
from headgate_server.core.settle import Settlement
from headgate_server.core.types import WorkspaceId
from headgate_server.store.schema import events

_COLUMNS = [column.name for column in events.columns]
_HEAD = "SELECT sequence, hash, created_at, quota, month, month_events FROM heads WHERE workspace_id = $1"
_MOVE = (
    "UPDATE heads SET sequence = $2, hash = $3, created_at = $4, month = $5, month_events = $6 WHERE workspace_id = $1"
)
_LAST = "SELECT sequence FROM events WHERE workspace_id = $1 ORDER BY id DESC LIMIT $3"
_COUNT = f"SELECT count(*) FROM ({_LAST}) AS last WHERE sequence > $2"


class _Group(NamedTuple):
    """The data of one transaction: identities in order, rows of the table, and the head's row after them."""

    identities: Any
    rows: Any
    head: Sequence[Any]


class _Postgres:
    """The limit on PostgreSQL. It writes to the product's workspace, and so to the same part of the same indexes."""

    durable: ClassVar = {"SHOW fsync": "on", "SHOW synchronous_commit": "on", "SHOW full_page_writes": "on"}
    # The product sets this in every transaction (store/postgres/append.py says why). Here once is enough.
    PLANNER = (
        "SET enable_sort = off; SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_hashjoin = off;"
        " SET enable_mergejoin = off; SET plan_cache_mode = force_generic_plan; SET jit = off"
    )
    _PROBE = """
    SELECT e.* FROM unnest($1::bytea[]) AS wanted (holder) CROSS JOIN LATERAL (
        SELECT dedupe, id, sequence, created_at, event_hash, salt, commitment FROM events
        WHERE int8send(workspace_id) || dedupe = wanted.holder AND dedupe IS NOT NULL OFFSET 0
    ) AS e
    """

    def __init__(self, connection: Any, workspace_id: WorkspaceId):
        self.connection, self.workspace_id = connection, workspace_id

    async def row(self, statement: str, *values: Any) -> Sequence[Any]:
        return list(await self.connection.fetchrow(statement, *values))

    async def encode(self, group: _Group) -> _Group:
        """Put the workspace before each identity, as in the index, and let the database write the rows for COPY."""
        holder = self.workspace_id.to_bytes(8, "big")
        identities = [holder + identity for identity in group.identities]
        rows, encoded = [(row[0], UUID(row[1]), *row[2:]) for row in group.rows], BytesIO()
        await self.connection.copy_records_to_table("bench_rows", columns=_COLUMNS, records=rows)
        await self.connection.copy_from_table("bench_rows", columns=_COLUMNS, output=encoded, format="binary")
        await self.connection.execute("TRUNCATE bench_rows")
        return _Group(identities, encoded.getvalue(), group.head)

    async def append(self, group: _Group) -> None:
        connection = self.connection
        await connection.execute("BEGIN")
        await connection.fetch(f"{_HEAD} FOR NO KEY UPDATE", self.workspace_id)
        if await connection.fetch(self._PROBE, group.identities):
            raise RuntimeError("an event of the limit was stored before")
        await connection.copy_to_table("events", columns=_COLUMNS, source=memoryview(group.rows), format="binary")
        await connection.execute(_MOVE, self.workspace_id, *group.head)
        await connection.execute("COMMIT")


class _Sqlite:
    """The limit on SQLite. It has its own file: with a second writer the product would have to read its pages again."""

    durable: ClassVar = {"PRAGMA synchronous": 2, "PRAGMA journal_mode": "wal"}
    # The product has the same (store/sqlite/).
    _PRAGMAS = ("synchronous = FULL", "foreign_keys = ON", "wal_autocheckpoint = 4000", "cache_size = -65536")
    _AT_ONCE = 256
    _PROBE = (
        "WITH RECURSIVE slices (start) AS (SELECT 1 UNION ALL SELECT start + 16 FROM slices LIMIT length(?2) / 16)"
        " SELECT dedupe, id, sequence, created_at, event_hash, salt, commitment FROM events INDEXED BY"
        " events_dedupe_key WHERE workspace_id = ?1 AND dedupe IN (SELECT substr(?2, start, 16) FROM slices)"
    )

    def __init__(self, path: str, workspace_id: WorkspaceId):
        sqlite.register_adapter(bytes, bytes)
        self.connection, self.workspace_id = sqlite.connect(path, isolation_level=None), workspace_id
        for pragma in self._PRAGMAS:
            self.connection.execute(f"PRAGMA {pragma}")

    async def row(self, statement: str, *values: Any) -> Sequence[Any]:
        return list(self.connection.execute(statement.replace("$", "?"), values).fetchone())

    async def encode(self, group: _Group) -> _Group:
        """Concatenate the identities, and make statements from the rows, each with its values."""
        parts = (group.rows[start : start + self._AT_ONCE] for start in range(0, len(group.rows), self._AT_ONCE))
        insert, row = "INSERT OR FAIL INTO events VALUES", f"({', '.join('?' * len(_COLUMNS))})"
        statements = [(f"{insert} {', '.join([row] * len(rows))}", list(chain(*rows))) for rows in parts]
        return _Group(b"".join(group.identities), statements, group.head)

    async def append(self, group: _Group) -> None:
        execute = self.connection.cursor().execute  # no other work at the same time, so no thread
        execute("BEGIN IMMEDIATE")
        await self.row(_HEAD, self.workspace_id)
        if execute(self._PROBE, (self.workspace_id, group.identities)).fetchone():
            raise RuntimeError("an event of the limit was stored before")
        for statement, values in group.rows:
            execute(statement, values)
        execute(_MOVE.replace("$", "?"), (self.workspace_id, *group.head))
        execute("COMMIT")


@dataclass(frozen=True, slots=True)
class Appends:
    """An assignment of the limit: one transaction after another, beginning after this head of the ledger."""

    limit: _Postgres | _Sqlite
    groups: Sequence[_Group]
    after: Head

    async def run(self) -> None:
        for group in self.groups:
            await self.limit.append(group)

    async def check(self) -> Timing:
        assigned, after = self.groups[-1].head[0] - self.after.sequence, self.after.sequence
        (stored,) = await self.limit.row(_COUNT, self.limit.workspace_id, after, assigned + 1)
        if stored != assigned:
            raise RuntimeError(f"the limit stored {stored} events, and not what was assigned")
        return Timing(stored, stored)


async def prepare(limit: _Postgres | _Sqlite, assignment: Assignment) -> Appends:
    """Build the assignment's rows like the product: a valid ledger after the head.

    Raises `RuntimeError` if a commit would return before it is on disk, or if a crash could leave half-written pages.
    """
    for setting, required in limit.durable.items():
        if await limit.row(setting) != [required]:
            raise RuntimeError(f"{setting} is not {required}: the limit must be as durable as the product")
    row = await limit.row(_HEAD, limit.workspace_id)
    usage, after = Usage(*row[3:]), Head(*row[:3])
    head = after
    orders, groups = workload.orders(assignment.events), []
    for start in range(0, assignment.events, assignment.load.batch):
        settlement = Settlement(limit.workspace_id, head, {}, {}, time.time_ns() // 1000, usage)
        drafts = workload.drafts(orders[start : start + assignment.load.batch])
        settlement.decide(Submission(workspace_id=limit.workspace_id, slots=drafts))
        head, usage = settlement.head, settlement.usage
        identities = sorted(draft.identity[:16] for draft in drafts)
        groups.append(await limit.encode(_Group(identities, settlement.rows, (*head, *usage[1:]))))
    return Appends(limit, groups, after)


async def opened(url: str, workspace_id: WorkspaceId) -> _Postgres | _Sqlite:
    """Connect to a store's database."""
    if url.startswith("sqlite"):
        return _Sqlite(url.removeprefix("sqlite:///"), workspace_id)
    connection = await asyncpg.connect(url)
    await connection.execute(f"{_Postgres.PLANNER}; CREATE TEMPORARY TABLE bench_rows (LIKE events)")
    return _Postgres(connection, workspace_id)


if __name__ == "__main__":
    # The first assignment makes it, because only then is there an event loop. It ends with the process.
    found: list[_Postgres | _Sqlite] = []

    async def _prepare(assignment: Assignment) -> Appends:
        found[:] = found or [await opened(sys.argv[1], WorkspaceId(int(sys.argv[2])))]
        return await prepare(found[0], assignment)

    contend(_prepare)
