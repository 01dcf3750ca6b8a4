"""Fills a migrated database with one workspace's ledger, by the server itself."""

from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import asyncpg

from headgate_server.store.opening import open_store

WORKSPACE = 1

FIRST_ID_TIME = 0x018F_0000_0000_0000
"""What the first 64 bits of the ids count up from: a time, as in a UUIDv7."""

_CHUNK = 500_000
"""Rows of one statement."""

# As wide as those of bench.workload, and in their order. md5 stands for random bytes: the key of row n can be made
# again. The hashes are not those of a ledger that verifies; nobody here reads them.
_ROWS = f"""
INSERT INTO events
SELECT {WORKSPACE}, encode(int8send({FIRST_ID_TIME} + n) || substr(decode(md5('id' || n), 'hex'), 1, 8), 'hex')::uuid,
       n, 1700000000000000 + n, 'native', 'order.completed', 'shop/checkout',
       'user_' || lpad((n % 10000)::text, 6, '0'), 1705314600000000,
       convert_to('{{"amount":49.99,"coupon":null,"currency":"EUR","first":false,"items":[{{"quantity":2,"sku":"A-1001"}},'
           || '{{"quantity":1,"sku":"B-2002"}}],"order_id":"order-0123456789ab-' || n || '"}}', 'UTF8'),
       'shop/checkout', 'order-0123456789ab-' || n, decode(md5(n::text), 'hex'), decode(md5('salt' || n), 'hex'),
       sha256(int8send(n)), sha256(int8send(-n))
FROM generate_series($1::bigint, $2::bigint) AS n
"""

# What the designs start from, and what they are compared with: the index that the product had.
_BASE = (
    "ALTER TABLE events DROP CONSTRAINT events_dedupe_key",
    "CREATE UNIQUE INDEX events_dedupe_key ON events (workspace_id, dedupe) WHERE dedupe IS NOT NULL",
)

_HEAD = "INSERT INTO heads (workspace_id, sequence, hash, created_at) VALUES ($1, $2, sha256(''), $3)"


async def make(url: Callable[[str], str], name: str, events: int, change: Sequence[str]) -> None:
    """Make the database `name` of so many events, changed by these statements, unless it is there; `url` names one."""
    loaded = f"loaded_{events}"
    if not await _exists(url, loaded):
        await _made(url, loaded, "template1", lambda of: _load(of, events))
    if not await _exists(url, name):
        await _made(url, name, loaded, lambda of: execute(of, "SET maintenance_work_mem = '1GB'", *change))


async def _exists(url: Callable[[str], str], name: str) -> bool:
    return bool(await value(url("postgres"), "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", name))


async def _made(
    url: Callable[[str], str], name: str, template: str, fill: Callable[[str], Coroutine[Any, Any, None]]
) -> None:
    """Make a database that is there only if it is whole."""
    await execute(
        url("postgres"),
        "DROP DATABASE IF EXISTS making",
        f"CREATE DATABASE making TEMPLATE {template} STRATEGY file_copy",
    )
    await fill(url("making"))
    await execute(url("postgres"), f"ALTER DATABASE making RENAME TO {name}")


async def _load(url: str, events: int) -> None:
    # In the order and into the indexes that a service had.
    await (await open_store(url)).close()
    await execute(url, *_BASE)
    connection = await asyncpg.connect(url)
    try:
        await add_events(connection, events)
        await connection.execute(_HEAD, WORKSPACE, events, 1_700_000_000_000_000 + events)
        # What autovacuum has long done to a table of this age, and would else do while something is measured.
        await connection.execute("VACUUM (FREEZE, ANALYZE) events")
    finally:
        await connection.close()


async def add_events(connection: Any, events: int) -> None:
    """Store so many events of the workspace `WORKSPACE`, from sequence 1 on; its head is the caller's concern.
    `bench.fill` does so too.
    """
    for first in range(1, events + 1, _CHUNK):
        await connection.execute(_ROWS, first, min(first + _CHUNK - 1, events))


async def execute(url: str, *statements: str) -> None:
    """Execute statements on a connection of their own, each in its own transaction."""
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


async def value(url: str, statement: str, *arguments: Any) -> Any:
    """Return the first value of a statement's first row."""
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(statement, *arguments)
    finally:
        await connection.close()


LOADING = {
    # As fast as can be: what a crash spoils is loaded again. Not fsync=off, with which no store is opened.
    "full_page_writes": "off",
    "checkpoint_timeout": "1h",
    "shared_buffers": "4GB",
    "max_wal_size": "32GB",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "autovacuum": "off",
}


def default_folder() -> Path:
    """Return where the cluster lies unless told otherwise; not in the checkout, which a user may copy around."""
    return Path.home() / ".cache" / "headgate" / "growth"
