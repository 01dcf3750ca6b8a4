"""Fills a new store with events. The database makes them itself, which is the fastest way: about 10 µs an event.

They have the columns, sizes, order and indexes of a service's events. Identities, salts and hashes are random bytes, so
the events are no ledger that verifies; nothing that fills a store reads them.
"""

import time
from contextlib import closing

import asyncpg
from pysqlite3 import dbapi2 as sqlite

_AT_ONCE = 500_000
"""Events of one transaction."""
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
INSERT INTO events ({_COLUMNS})
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


async def fill(url: str, workspace_id: int, rows: int) -> None:
    """Store events 1 to `rows` of an empty workspace, and leave the database as if they were stored long ago."""
    began = time.time_ns() // 1000 - rows
    pieces = [(first, min(first + _AT_ONCE - 1, rows)) for first in range(1, rows + 1, _AT_ONCE)]
    if url.startswith("sqlite"):
        with closing(sqlite.connect(url.removeprefix("sqlite:///"), isolation_level=None)) as file:
            file.execute("PRAGMA synchronous = OFF")
            file.execute("PRAGMA cache_size = -2000000")  # the index on random values is in memory
            for first, last in pieces:
                file.execute(_SQLITE, (workspace_id, first, last, began))
            file.execute(_HEAD.replace("$", "?"), (workspace_id,))
        return
    connection = await asyncpg.connect(url)
    try:
        for first, last in pieces:
            await connection.execute(_POSTGRESQL, workspace_id, first, last, began)
        await connection.execute(_HEAD, workspace_id)
        # Autovacuum has done this in a table of this size long before; otherwise it would run during a measurement.
        await connection.execute("VACUUM (FREEZE, ANALYZE) events")
        await connection.execute("CHECKPOINT")
    finally:
        await connection.close()
