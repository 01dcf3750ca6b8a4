"""A PostgreSQL database that is unreachable for some time, as during a restart of its server."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.support import database, postgres


@asynccontextmanager
async def outage(url: str) -> AsyncIterator[None]:
    """End every connection to the database, and refuse new ones for the length of the block."""
    name = url.partition("@/")[2].partition("?")[0]
    admin = postgres.url("postgres")
    await database.execute(admin, f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
    await database.execute(admin, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
    try:
        yield
    finally:
        await database.execute(admin, f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
