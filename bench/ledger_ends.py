"""How many events a store holds, asked from beside the product."""

import asyncio
from pathlib import Path
from typing import Any, Self

import asyncpg
from pysqlite3 import dbapi2 as sqlite

_SUM = "SELECT coalesce(sum(sequence), 0) FROM heads"
_PAUSE = 0.05
"""Seconds in which a call that is still under way would be stored."""


class Ledgers:
    """A connection of its own to the store at a URL. Use as `async with`."""

    def __init__(self, url: str):
        self._url = url
        self._connection: Any = None

    async def __aenter__(self) -> Self:
        if self._url.startswith("sqlite"):
            path = Path(self._url.removeprefix("sqlite:///"))
            self._connection = sqlite.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None)
        else:
            self._connection = await asyncpg.connect(self._url)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._url.startswith("sqlite"):
            self._connection.close()
        else:
            await self._connection.close()

    async def settled(self) -> int:
        """Return how many events all workspaces hold, once that number stands still: a tool that stops at a time
        leaves calls behind.
        """
        last, count = -1, await self._count()
        while count != last:
            await asyncio.sleep(_PAUSE)
            last, count = count, await self._count()
        return count

    async def _count(self) -> int:
        if self._url.startswith("sqlite"):
            return int(self._connection.execute(_SUM).fetchone()[0])
        return int(await self._connection.fetchval(_SUM))
