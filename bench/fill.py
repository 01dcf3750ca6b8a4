"""Puts many events into a store before anything is measured, by the database itself: ten million from Python would take
half an hour.

They are a workspace's that exists already, as wide as the workload's and under random identities. Their hashes are
random too, so that ledger does not verify; what is stored after them is linked to the last one like any other.
"""

import asyncio
from pathlib import Path

import asyncpg
from pysqlite3 import dbapi2 as sqlite

from bench.growth import load

_TIME = 1_700_000_000_000_000
"""Microseconds since the epoch of the first event, or so: long ago."""
_CHUNK = 250_000
"""Rows of one transaction."""

# The ids count up from their time as a UUIDv7's do; 60 random bits follow.
_SQLITE_ROWS = """
INSERT INTO events
WITH RECURSIVE numbers(n) AS (SELECT :first UNION ALL SELECT n + 1 FROM numbers WHERE n < :last)
SELECT :workspace, unhex(printf('%012x7%03x8', (:time + n) / 1000, (:time + n) % 1000)
           || substr(hex(randomblob(8)), 2)),
       n, :time + n, 'native', 'order.completed', 'shop/checkout', printf('user_%06d', n % 10000), 1705314600000000,
       CAST(printf('{"amount":49.99,"coupon":null,"currency":"EUR","first":false,"items":[{"quantity":2,"sku":"A-1001"},'
           || '{"quantity":1,"sku":"B-2002"}],"order_id":"order-0123456789ab-%d"}', n) AS BLOB),
       'shop/checkout', printf('order-0123456789ab-%d', n), randomblob(16), randomblob(16),
       randomblob(32), randomblob(32)
FROM numbers
"""
_SQLITE_LOADING = (
    # What a crash spoils is filled again. The whole index is to fit into the cache, since its keys come at random.
    "PRAGMA synchronous = OFF",
    "PRAGMA cache_size = -2000000",
    "PRAGMA wal_autocheckpoint = 100000",
)


async def postgresql(url: str, workspace_id: int, events: int) -> None:
    """Store so many events of an empty workspace, which is the first of its database."""
    if workspace_id != load.WORKSPACE:
        raise ValueError(f"it is workspace {load.WORKSPACE} that is filled, not {workspace_id}")
    connection = await asyncpg.connect(url)
    try:
        await load.add_events(connection, events)
        await connection.execute(
            "UPDATE heads SET sequence = $2, hash = sha256(''), created_at = $3 WHERE workspace_id = $1",
            workspace_id,
            events,
            _TIME + events,
        )
        # What autovacuum has long done to a table of this age, and would else do while something is measured.
        await connection.execute("VACUUM (FREEZE, ANALYZE) events")
        await connection.execute("CHECKPOINT")
    finally:
        await connection.close()


async def sqlite_file(path: Path, workspace_id: int, events: int) -> None:
    """Store so many events of an empty workspace in a file that nobody else has open."""
    await asyncio.to_thread(_fill_file, path, workspace_id, events)


def _fill_file(path: Path, workspace_id: int, events: int) -> None:
    connection = sqlite.connect(str(path), isolation_level=None)
    try:
        for pragma in _SQLITE_LOADING:
            connection.execute(pragma)
        for first in range(1, events + 1, _CHUNK):
            last = min(first + _CHUNK - 1, events)
            connection.execute(_SQLITE_ROWS, {"workspace": workspace_id, "time": _TIME, "first": first, "last": last})
        connection.execute(
            "UPDATE heads SET sequence = ?, hash = randomblob(32), created_at = ? WHERE workspace_id = ?",
            (events, _TIME + events, workspace_id),
        )
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        connection.close()
