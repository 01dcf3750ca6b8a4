"""Accesses a store's database without the store: to tamper with it, and to hold its locks."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
from pysqlite3 import dbapi2 as sqlite

BACK_TO_0009 = (
    *(f"ALTER TABLE api_keys DROP COLUMN {name}" for name in ("name", "limits", "last_used_at", "successor")),
    "DROP TABLE properties",
    "UPDATE alembic_version SET version_num = '0009'",
)
"""Statements that undo the migrations after 0009."""


def sqlite_path(url: str) -> str:
    """Return the path of an SQLite store's URL."""
    return url.removeprefix("sqlite:///")


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Callable[[str], Awaitable[None]]]:
    """Yield a function that executes one statement of plain SQL; all use one connection."""
    if url.startswith("sqlite"):
        connection = sqlite.connect(sqlite_path(url), isolation_level=None)

        async def run(statement: str) -> None:
            connection.execute(statement)

        try:
            yield run
        finally:
            connection.close()
        return
    postgres = await asyncpg.connect(url)
    try:
        yield postgres.execute
    finally:
        await postgres.close()


async def execute(url: str, statement: str) -> list[tuple[Any, ...]]:
    """Execute one statement of plain SQL and return its rows."""
    if url.startswith("sqlite"):
        return await asyncio.to_thread(_execute_sqlite, url, statement)
    connection = await asyncpg.connect(url)
    try:
        return [tuple(row) for row in await connection.fetch(statement)]
    finally:
        await connection.close()


def _execute_sqlite(url: str, statement: str) -> list[tuple[Any, ...]]:
    connection = sqlite.connect(sqlite_path(url), isolation_level=None)
    try:
        rows: list[tuple[Any, ...]] = connection.execute(statement).fetchall()
        return rows
    finally:
        connection.close()


def unguarded(url: str) -> Sequence[str]:
    """Return the statements that leave the index of identities, but let two events have one."""
    if url.startswith("sqlite"):
        guard, index = "DROP INDEX events_dedupe_key", "(workspace_id, dedupe)"
    else:
        guard = "ALTER TABLE events DROP CONSTRAINT events_dedupe_key"
        index = "USING hash ((int8send(workspace_id) || dedupe))"
    return guard, f"CREATE INDEX events_dedupe_key ON events {index} WHERE dedupe IS NOT NULL"


async def count_lock_waiters(url: str) -> int:
    """Return the number of a PostgreSQL database's sessions that wait for a lock."""
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    return int((await execute(url, waiting))[0][0])


def lock_waiters(url: str) -> int:
    """Return the same outside of an event loop."""
    return asyncio.run(count_lock_waiters(url))


def literal(url: str, value: bytes) -> str:
    """Return bytes as the dialect writes them in SQL."""
    return f"x'{value.hex()}'" if url.startswith("sqlite") else f"'\\x{value.hex()}'::bytea"


def id_literal(url: str, event_id: bytes) -> str:
    """Return an event's id as the dialect writes it in SQL."""
    return f"x'{event_id.hex()}'" if url.startswith("sqlite") else f"'{event_id.hex()}'::uuid"


@asynccontextmanager
async def locked(url: str, workspace_id: int) -> AsyncIterator[None]:
    """Hold the lock of a workspace's head (in SQLite: of the whole database) from a separate connection."""
    if url.startswith("sqlite"):
        connection = sqlite.connect(sqlite_path(url), isolation_level=None)
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        finally:
            connection.execute("ROLLBACK")
            connection.close()
        return
    postgres = await asyncpg.connect(url)
    try:
        async with postgres.transaction():
            await postgres.execute(f"SELECT * FROM heads WHERE workspace_id = {workspace_id} FOR NO KEY UPDATE")
            yield
    finally:
        await postgres.close()
