"""Lets one process at a time change a database's schema."""

import asyncio
import logging
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncEngine

T = TypeVar("T")

# The standard library's log: a command shows its lines on standard error, and a server in its log.
log = logging.getLogger(__name__)

MIGRATION_DEADLINE = 3600.0
"""Seconds to update the schema, in this process or in another process that it waits for. An index over ten million
events alone takes 45 seconds."""

NOTICE = 3.0
"""Seconds of that wait after which a line says for what. Servers that start at once wait for a moment only."""

MIGRATING = 0x68656164_67617465
"""The lock on which processes that migrate one database wait for each other. Its value is arbitrary but must never
change.
"""

_WAITS = "Waiting for another process, which changes the schema of the store's database."


async def alone(engine: AsyncEngine, work: Callable[[Connection], T]) -> T:
    """Return the result of `work` after the commit. No other process is in here meanwhile. Raises errors of the
    driver.
    """

    def locked(connection: Connection) -> T:
        # Statements must see what another process committed during the wait, whatever the database's default.
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATING})
        notice.cancel()
        return work(connection)

    notice = asyncio.get_running_loop().call_later(NOTICE, log.warning, _WAITS)
    try:
        async with asyncio.timeout(MIGRATION_DEADLINE), engine.connect() as connection:
            result = await connection.run_sync(locked)
            await connection.commit()
            return result
    finally:
        notice.cancel()
