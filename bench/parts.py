"""The real parts of a run: a PostgreSQL of its own, and the product on it."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import NamedTuple

import asyncpg

from headgate_server import admin
from headgate_server.model import Scope
from tests.support import postgres
from tests.support.service import ServerProcess


class Database(NamedTuple):
    """A PostgreSQL server with an empty database."""

    url: str
    pid: int
    version: str


class Product(NamedTuple):
    """A served workspace, and one beside it in the same tables that the limit writes to."""

    port: int
    pid: int
    key: str
    limit_workspace: int


class _Server(ServerProcess):
    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid


@contextmanager
def database() -> Iterator[Database]:
    """Run a PostgreSQL with its own defaults for as long as the block lasts."""
    postgres.prepare_run()
    try:
        with postgres.own_server("shared_buffers=128MB") as url:
            yield asyncio.run(_described(url))
    finally:
        postgres.finish_run()


async def _described(url: str) -> Database:
    connection = await asyncpg.connect(url)
    try:
        postmaster = await connection.fetchval("SELECT pg_read_file('postmaster.pid')")
        version = await connection.fetchval("SHOW server_version")
    finally:
        await connection.close()
    return Database(url, int(postmaster.split()[0]), version)


@asynccontextmanager
async def product(url: str, log: Path) -> AsyncIterator[Product]:
    """Run `headgate serve`, as it is unless told otherwise, for as long as the block lasts."""
    async with admin.opened(url) as store:
        key = await admin.create_key(store, "product", frozenset({Scope.EVENTS_WRITE}))
        limit_workspace = await store.create_workspace("limit")
    async with _Server(url, "--log-level", "info", log=log) as server:
        yield Product(server.port, server.pid, key, limit_workspace.id)


async def heads(url: str) -> dict[str, int]:
    """Return the sequence of each workspace's head."""
    async with admin.opened(url) as store:
        return {workspace.name: (await store.head(workspace.id)).sequence for workspace in await store.workspaces()}


def driver_environment(key: str) -> dict[str, str]:
    """Return the environment of a process that calls the product: a key is no argument, where others could read it."""
    return {**os.environ, "HEADGATE_KEY": key}
