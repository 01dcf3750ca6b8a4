"""The real parts of a run: a separate PostgreSQL, the product on a store, and the programs to compare it with."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing, contextmanager
from pathlib import Path
from secrets import token_urlsafe
from typing import Any, NamedTuple

import asyncpg
from pysqlite3 import dbapi2 as sqlite
from sqlalchemy import make_url

from bench.contender import child
from headgate_server.access import admin
from headgate_server.core.compiled import PURE
from headgate_server.core.model import Scope
from tests.support import postgres
from tests.support.processes import children
from tests.support.up import Up


class Servers(NamedTuple):
    """Server processes and their ports. The descendants of a process belong to it."""

    ports: Sequence[int]
    pids: Sequence[int]
    keys: Sequence[str] = ("none",)
    """API keys that may write, each for a different workspace."""


@contextmanager
def database() -> Iterator[tuple[str, int, str]]:
    """Run a PostgreSQL with its own defaults until the block ends. Yield URL, process id and version."""
    postgres.prepare_run()
    try:
        with postgres.own_server("shared_buffers=128MB", "max_connections=100") as url:
            file = asyncio.run(execute(url, "SELECT pg_read_file('postmaster.pid')"))
            yield url, int(file.split()[0]), asyncio.run(execute(url, "SHOW server_version"))
    finally:
        postgres.finish_run()


async def execute(url: str, statement: str) -> Any:
    """Execute a statement on a new connection, and return the first value of its first row."""
    if url.startswith("sqlite"):
        with closing(sqlite.connect(url.removeprefix("sqlite:///"), isolation_level=None)) as file:
            return file.execute(statement).fetchone()[0]
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


async def workspaces(url: str, count: int) -> tuple[int, list[str]]:
    """Make workspaces in a new store. Return the first one's id, and an API key that may write for each."""
    async with admin.opened(url) as store:
        scopes = frozenset({Scope.EVENTS_WRITE})
        keys = [await admin.create_key(store.directory, f"workspace-{number}", scopes) for number in range(count)]
        return min(workspace.id for workspace in await store.directory.workspaces()), keys


@asynccontextmanager
async def product(
    url: str, keys: Sequence[str], folder: Path, workers: int, *, pure: bool = False
) -> AsyncIterator[tuple[Servers, int, int]]:
    """Run `headgate up` until the block ends. Yield its servers, Envoy's port and Envoy's process id."""
    without = "1" if pure else os.environ.get(PURE, "")
    up = Up(f"--workers={workers}", folder=folder, HEADGATE_STORE=url, HEADGATE_PURE=without)
    await asyncio.to_thread(up.__enter__)
    try:
        envoy = next(pid for pid, name in children(up.pid).items() if "envoy" in name)
        yield Servers(up.ports, sorted(up.workers()), keys), int(up.rest.rpartition(":")[2]), envoy
    finally:
        await asyncio.to_thread(up.__exit__)


@asynccontextmanager
async def empty(processes: int) -> AsyncIterator[Servers]:
    """Run the empty RPC in this number of processes until the block ends."""
    async with AsyncExitStack() as stack:
        started = [await stack.enter_async_context(child("bench.empty")) for _ in range(processes)]
        yield Servers([int(await one.line()) for one in started], [one.pid for one in started])


@asynccontextmanager
async def peer(url: str, workers: int) -> AsyncIterator[Servers]:
    """Run the peer in this number of processes until the block ends, in a new database on the same server."""
    await execute(url, "CREATE DATABASE peer")
    address = make_url(url).set(drivername="postgresql+asyncpg", database="peer").render_as_string(False)
    key, ports, pids = token_urlsafe(32), list[int](), list[int]()
    async with AsyncExitStack() as stack:
        for _ in range(workers):
            server = await stack.enter_async_context(child("bench.peer", PEER_DATABASE=address, PEER_KEY=key))
            ports.append(int(await server.line()))
            pids.append(server.pid)
        yield Servers(ports, pids, [key])


async def stored(url: str) -> int:
    """Return the number of events in all workspaces of a store, when it does not change any more: a tool that stops at
    a fixed time leaves calls in progress.
    """
    last, count = -1, 0
    while count != last:
        await asyncio.sleep(0.05)
        last, count = count, int(await execute(url, "SELECT coalesce(sum(sequence), 0) FROM heads"))
    return count
