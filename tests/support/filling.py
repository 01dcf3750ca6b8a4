"""Fills a new store with events. The database makes them itself, which is the fastest way: about 10 µs an event.

They have the columns, sizes, order and indexes of a service's events. Identities, salts and hashes are random bytes, so
the events are no ledger that verifies; nothing that fills a store reads them.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, closing
from typing import Any

import asyncpg
from pysqlite3 import dbapi2 as sqlite

_AT_ONCE = 500_000
"""Events of one statement."""
_QUEUED = 8
"""The most parts of a COPY that wait to be stored."""
_Values = tuple[int, int, int, int]
"""The workspace, the first and the last event of one statement, and the time before event 1."""
_HIGH = "(at / 1000 << 16) | 28672 | ((at % 1000 << 12) / 1000)"
"""The first 64 bits of an id made at `at`, a UUIDv7 (core/ledger.py)."""
_DATA = (
    """'{"amount":49.99,"coupon":null,"currency":"EUR","first":false,"items":[{"quantity":2,"sku":"A-1001"},"""
    """{"quantity":1,"sku":"B-2002"}],"order_id":"order-f111ed000000-' || n || '"}'"""
)
_TEXTS = "'native', 'order.completed', 'shop/checkout', 'user_' || (n % 10000), 1705314600000000"
_COLUMNS = (
    "workspace_id, id, sequence, created_at, receiver, type, source, subject, occurred_at, data, scope, key, dedupe,"
    " salt, commitment, event_hash"
)
_POSTGRESQL = f"""
SELECT $1::bigint, encode(int8send({_HIGH}) || '\\x80' || substr(random, 2, 7), 'hex')::uuid, n, at, {_TEXTS},
       convert_to({_DATA}, 'UTF8'), 'shop/checkout', 'order-f111ed000000-' || n, substr(random, 1, 16),
       substr(random, 17), random, random
FROM (
    SELECT n, $4::bigint + n AS at, sha256(int8send(n)) AS random FROM generate_series($2::bigint, $3::bigint) AS n
    OFFSET 0
) AS made
"""
_SQLITE = f"""
INSERT INTO events ({_COLUMNS})
WITH RECURSIVE numbers (n) AS (SELECT ?2 UNION ALL SELECT n + 1 FROM numbers WHERE n < ?3),
made AS (SELECT n, ?4 + n AS at FROM numbers)
SELECT ?1, CAST(unhex(printf('%016x80', {_HIGH})) || randomblob(7) AS BLOB), n, at, {_TEXTS},
       CAST({_DATA} AS BLOB), 'shop/checkout', 'order-f111ed000000-' || n, randomblob(16), randomblob(16),
       randomblob(32), randomblob(32)
FROM made
"""
_HEAD = (
    "UPDATE heads SET (sequence, hash, created_at) = (SELECT sequence, event_hash, created_at FROM events"
    " WHERE workspace_id = $1 ORDER BY id DESC LIMIT 1) WHERE workspace_id = $1"
)

_DEFINITIONS = """
SELECT coalesce('ALTER TABLE events DROP CONSTRAINT ' || name, 'DROP INDEX ' || indexrelid::regclass) AS drop,
       coalesce('ALTER TABLE events ADD CONSTRAINT ' || name || ' ' || pg_get_constraintdef(oid), definition) AS make
FROM (
    SELECT indexrelid, pg_constraint.oid, quote_ident(conname) AS name, pg_get_indexdef(indexrelid) AS definition
    FROM pg_index
    LEFT JOIN pg_constraint ON conindid = indexrelid AND conrelid = indrelid
    WHERE indrelid = 'events'::regclass
) AS indexes
ORDER BY indexrelid
"""
"""The statements that drop and make each index of `events`, or the constraint that it belongs to, the oldest first."""
_EMPTY = """
SET LOCAL maintenance_work_mem = '1GB';
CREATE TEMPORARY TABLE before ON COMMIT DROP AS TABLE events;
TRUNCATE events;
INSERT INTO events TABLE before
"""
"""COPY can store frozen rows if its transaction has emptied the table."""


async def fill(url: str, workspace_id: int, rows: int) -> None:
    """Store events 1 to `rows` of an empty workspace, and leave the database as if they were stored long ago. Other
    workspaces keep their events. Nothing else may use the store. An error leaves a PostgreSQL as it was.
    """
    began = time.time_ns() // 1000 - rows
    values = [(workspace_id, first, min(first + _AT_ONCE - 1, rows), began) for first in range(1, rows + 1, _AT_ONCE)]
    if url.startswith("sqlite"):
        _fill_sqlite(url.removeprefix("sqlite:///"), workspace_id, values)
        return
    async with _connected(url) as connection, _connected(url) as maker:
        async with connection.transaction():
            await _fill_postgresql(connection, maker, workspace_id, values)
        # Autovacuum has done this in a table of this size long before; otherwise it would run during a measurement.
        await connection.execute("VACUUM (FREEZE, ANALYZE) events")
        await connection.execute("CHECKPOINT")


def _fill_sqlite(path: str, workspace_id: int, pieces: Iterable[_Values]) -> None:
    with closing(sqlite.connect(path, isolation_level=None)) as file:
        file.execute("PRAGMA synchronous = OFF")
        file.execute("PRAGMA cache_size = -2000000")  # the index on random values is in memory
        for piece in pieces:
            file.execute(_SQLITE, piece)
        file.execute(_HEAD.replace("$", "?"), (workspace_id,))


async def _fill_postgresql(connection: Any, maker: Any, workspace_id: int, pieces: Iterable[_Values]) -> None:
    """Fill a table without indexes, and then make the indexes. Values at random would change a page of an index each,
    and each page that is changed goes into the WAL as a whole after each checkpoint.
    """
    indexes = await connection.fetch(_DEFINITIONS)
    await connection.execute(_EMPTY)
    for index in reversed(indexes):
        await connection.execute(index["drop"])
    for piece in pieces:
        await _copy(maker, connection, piece)
    # Otherwise a hash index would get buckets for a wrong number of rows.
    await connection.execute("ANALYZE events")
    for index in indexes:
        await connection.execute(index["make"])
    await connection.execute(_HEAD, workspace_id)


async def _copy(maker: Any, connection: Any, piece: _Values) -> None:
    """Copy events from a connection that makes them to the one that stores them."""
    made = asyncio.Queue[bytes](_QUEUED)

    async def make() -> None:
        await maker.copy_from_query(_POSTGRESQL, *piece, output=made.put, format="binary")
        await made.put(b"")

    async def taken() -> AsyncIterator[bytes]:
        while part := await made.get():
            yield part

    columns = _COLUMNS.split(", ")
    async with asyncio.TaskGroup() as both:
        both.create_task(make())
        await connection.copy_to_table("events", columns=columns, source=taken(), format="binary", freeze=True)


@asynccontextmanager
async def _connected(url: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()
