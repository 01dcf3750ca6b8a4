"""The real parts of a run: a PostgreSQL of its own, the product on a store, and what it is compared with."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from secrets import token_urlsafe
from typing import NamedTuple
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import httpx

from bench.peer import check
from headgate_server.access import admin
from headgate_server.core.model import Scope
from tests.support import postgres
from tests.support.processes import children
from tests.support.up import Up
from tests.support.waiting import until

_ROOT = Path(__file__).parents[1]
_PEER_DATABASE = "peer"


class Database(NamedTuple):
    """A PostgreSQL server with an empty database."""

    url: str
    pid: int
    version: str


class Product(NamedTuple):
    """The service as `headgate up` runs it, and workspaces to write to."""

    rest: str
    """Host and port of Envoy."""
    ports: Sequence[int]
    """The gRPC port of each worker."""
    workers: Sequence[int]
    """The process ids of the workers."""
    envoy: int
    """The process id of Envoy."""
    keys: Sequence[str]
    """For each workspace an API key that may write."""
    workspaces: Sequence[int]
    """The ids of the workspaces, the first one's first."""


class Servers(NamedTuple):
    """Processes that answer, and where."""

    ports: Sequence[int]
    pids: Sequence[int]
    """Each with all below it."""
    key: str = "none"


def workspace_name(number: int) -> str:
    """Return what the product's workspaces are called, from 0 on."""
    return f"workspace-{number}"


@contextmanager
def database(*settings: str) -> Iterator[Database]:
    """Run a PostgreSQL with its own defaults, and these settings (`max_wal_size=8GB`), for as long as the block
    lasts.
    """
    postgres.prepare_run()
    try:
        with postgres.own_server("shared_buffers=128MB", "max_connections=100", *settings) as url:
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
async def product(url: str, folder: Path, *, workers: int = 1, workspaces: int = 1) -> AsyncIterator[Product]:
    """Run `headgate up`, as it is unless told otherwise, for as long as the block lasts; its log goes to `folder`."""
    async with admin.opened(url) as store:
        names = list(map(workspace_name, range(workspaces)))
        keys = [await admin.create_key(store, name, frozenset({Scope.EVENTS_WRITE})) for name in names]
        ids = {workspace.name: workspace.id for workspace in await store.workspaces()}
    up = Up(f"--workers={workers}", folder=folder, HEADGATE_STORE=url)
    await asyncio.to_thread(up.__enter__)
    try:
        envoy = next(pid for pid, name in children(up.pid).items() if "envoy" in name)
        yield Product(up.rest, up.ports, sorted(up.workers()), envoy, keys, [ids[name] for name in names])
    finally:
        await asyncio.to_thread(up.__exit__)


@contextmanager
def empty(processes: int) -> Iterator[Servers]:
    """Run the empty RPC in so many processes for as long as the block lasts."""
    with ExitStack() as stack:
        started = [stack.enter_context(_serving("bench.empty")) for _ in range(processes)]
        yield Servers([port for port, _ in started], [pid for _, pid in started])


@asynccontextmanager
async def peer(url: str, workers: int) -> AsyncIterator[Servers]:
    """Run the peer in a database of its own beside the one of this URL, for as long as the block lasts.

    Raises `RuntimeError` if it does not do what it is compared for.
    """
    key = token_urlsafe(32)
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(f"CREATE DATABASE {_PEER_DATABASE}")
    finally:
        await connection.close()
    parts = urlsplit(url)
    address = urlunsplit(parts._replace(scheme="postgresql+asyncpg", path=f"/{_PEER_DATABASE}"))
    with _serving("bench.peer", str(workers), PEER_DATABASE=address, PEER_KEY=key) as (port, pid):
        await until(lambda: _is_up(port))
        await check.check(port, key)
        yield Servers([port], [pid], key)


async def _is_up(port: int) -> bool:
    async with httpx.AsyncClient() as client:
        try:
            return (await client.get(f"http://127.0.0.1:{port}/healthz")).status_code == httpx.codes.OK
        except httpx.TransportError:
            return False


@contextmanager
def _serving(module: str, *arguments: str, **environment: str) -> Iterator[tuple[int, int]]:
    """Run a server that prints its port first; yield the port and its process id. It is gone afterwards."""
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
        cwd=_ROOT,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"{module} did not start; it has said why on standard error")
        yield int(line), process.pid
    finally:
        # One way to end it is as good as the other: SIGTERM, or the end of its input.
        process.send_signal(signal.SIGTERM)
        process.stdin.close()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


async def heads(url: str) -> dict[str, int]:
    """Return the sequence of each workspace's head."""
    async with admin.opened(url) as store:
        return {workspace.name: (await store.head(workspace.id)).sequence for workspace in await store.workspaces()}


def driver_environment(keys: Sequence[str]) -> Mapping[str, str]:
    """Return the environment of a process that calls the product: a key is no argument, where others could read it."""
    return {**os.environ, "HEADGATE_KEYS": ",".join(keys)}
