"""What a process learns of a PostgreSQL database before it makes a store of it."""

import asyncio

from headgate_server.core.errors import SetupError
from headgate_server.store.citus.catalog import is_distributed
from headgate_server.store.postgres.connection import Connector, stands_behind_pooler
from headgate_server.store.postgres.errors import describe
from headgate_server.store.postgres.target import Target

SETUP_DEADLINE = 20.0
"""Seconds to read the settings when the store is opened. No caller waits for an answer yet."""


async def look(target: Target) -> tuple[bool, bool]:
    """Return whether a pooler is in front of the database, and whether its tables are distributed. Raises asyncpg's
    errors.
    """
    async with asyncio.timeout(SETUP_DEADLINE):
        # Connect as if there were a pooler, because it is not known yet.
        connection = await Connector(target, pooler=True).connect()
        try:
            return await stands_behind_pooler(connection), await is_distributed(connection)
        finally:
            connection.terminate()


def unusable(error: BaseException) -> SetupError:
    """Return the error of a store that cannot be opened for an error of the driver."""
    return SetupError(f"The store's database cannot be used: {describe(error)}.")
