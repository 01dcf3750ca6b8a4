"""Connections to PostgreSQL: opened to the hosts of a URL, kept in pools, and closed as soon as they do not answer."""

import asyncio
import random
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
from sqlalchemy import event
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from headgate_server.core.errors import Unavailable
from headgate_server.store.database import DataRefused
from headgate_server.store.postgres.append import SILENCE
from headgate_server.store.postgres.errors import DRIVER_ERRORS, Transient, translate
from headgate_server.store.postgres.target import Target

POOL = 4
"""Connections in each of the two pools, for appends and for reads: few large transactions are faster than many small
ones.
"""

OVERFLOW = 4
"""Additional connections of a pool, while others wait for the heads of stuck workspaces."""

POOL_TIMEOUT = 5.0
"""Seconds to wait for a free connection."""

QUIET = 0.5
"""After this many seconds without use a pooled connection is tested before it is used: a firewall drops idle
connections silently. Under load connections are used more often, and none is tested."""


_KEEPALIVES = {"tcp_keepalives_idle": "30", "tcp_keepalives_interval": "10", "tcp_keepalives_count": "3"}
"""Settings of the server's side of a connection. The sessions of a machine that lost its power or its network end after
a minute. By default they would count against max_connections for two hours.
"""


class Connection(asyncpg.Connection):  # type: ignore[misc] # the driver brings no types
    """A connection whose failure is detected, and whose close is not waited for."""

    def __init__(self, protocol: Any, transport: asyncio.Transport, *rest: Any):
        super().__init__(protocol, transport, *rest)
        self.socket = transport.get_extra_info("socket")

    async def close(self, **_: Any) -> None:
        """Send the termination message and close the socket. Nothing is in progress, and a dead server never
        answers.
        """
        self.terminate()


class Connector:
    """Opens connections to a target, on any host that answers. `pooler` says that a pooler is in front of the server:
    prepared statements have no names then, since the next statement may go to another server process.
    """

    def __init__(self, target: Target, *, pooler: bool = False, settings: Mapping[str, str] | None = None):
        self.target = target
        self.settings = settings or {}
        self._hosts = target.hosts
        self.pooler = pooler
        self.closed = False

    async def connect(self, **_: Any) -> Any:
        """Return a connection to the first host that answers and is of the required kind. The host of the last
        connection is tried first. Raises asyncpg's error of the last host, and `Unavailable` once closed.
        """
        if self.closed:
            raise Unavailable("The store is closed.")
        hosts = random.sample(self._hosts, len(self._hosts)) if self.target.balanced else self._hosts
        for host in hosts[:-1]:
            try:
                connection = await self._connect_to(host)
            except _NEXT_HOST:
                continue
            self._prefer(host)
            return connection
        connection = await self._connect_to(hosts[-1])
        self._prefer(hosts[-1])
        return connection

    def _prefer(self, host: tuple[str, int]) -> None:
        self._hosts = (host, *(other for other in self._hosts if other != host))

    async def _connect_to(self, host: tuple[str, int]) -> Any:
        arguments = dict(self.target.arguments)
        if self.pooler:
            arguments["statement_cache_size"] = 0
        else:
            # A pooler would refuse settings that it does not know.
            arguments["server_settings"] = _KEEPALIVES | arguments["server_settings"] | self.settings
        connection = await asyncpg.connect(
            host=host[0],
            port=host[1],
            timeout=self.target.connect_timeout,
            connection_class=Connection,
            **arguments,
        )
        _watch(connection.socket, self.target)
        return connection


_NEXT_HOST = (
    OSError,
    TimeoutError,
    asyncpg.CannotConnectNowError,
    asyncpg.ConnectionDoesNotExistError,
    asyncpg.TargetServerAttributeNotMatched,
)
"""The errors after which the next host is tried, as in libpq. A refused password is not one: it is the same everywhere.
"""


def _watch(connected: Any, target: Target) -> None:
    """Set the socket options that libpq sets: the system detects a dead connection and keeps an idle one open."""
    if connected.family not in (socket.AF_INET, socket.AF_INET6):
        return
    options = target.sockets
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, options["keepalives"])
    for name, option in _SOCKET_OPTIONS.items():
        if options[name] > 0:
            connected.setsockopt(socket.IPPROTO_TCP, option, options[name])


_SOCKET_OPTIONS = {
    "keepalives_idle": socket.TCP_KEEPIDLE,
    "keepalives_interval": socket.TCP_KEEPINTVL,
    "keepalives_count": socket.TCP_KEEPCNT,
    "tcp_user_timeout": socket.TCP_USER_TIMEOUT,
}


async def _learn_types(connection: Any, settings: Mapping[str, str]) -> None:
    """Let the driver look up the array types that the append uses. For this it switches `jit` off in the session.
    Without the rollback `jit` would stay off in a server process that the pooler gives to other clients. `settings`
    apply to the look-up alone.
    """
    looking = connection.transaction()
    await looking.start()
    for name, value in settings.items():
        await connection.execute(f"SET LOCAL {name} = '{value}'")
    await connection.fetch("SELECT $1::bytea[], $2::bigint[], $3::text[], $4::int[], $5::uuid[]", [], [], [], [], [])
    await looking.rollback()


async def stands_behind_pooler(connection: Any) -> bool:
    """Return whether a pooler such as PgBouncer is in front of the server: its process id differs from the server's."""
    async with connection.transaction():
        return bool(await connection.fetchval("SELECT pg_backend_pid()") != connection.get_server_pid())


def engine(connector: Connector, isolation_level: str, overflow: int = OVERFLOW) -> AsyncEngine:
    """Return a pool of connections, at most `POOL` and `overflow`."""
    made = create_async_engine(
        "postgresql+asyncpg://",
        connect_args={"async_creator_fn": connector.connect} | (_UNNAMED if connector.pooler else {}),
        isolation_level=isolation_level,
        hide_parameters=True,  # an error's text may be logged, so it must not contain event data
        pool_size=POOL,
        max_overflow=overflow,
        pool_timeout=POOL_TIMEOUT,
    )

    if connector.pooler:

        def learn(driver: Any) -> Awaitable[None]:
            return _learn_types(driver, connector.settings)

        # This runs after SQLAlchemy's own listener, which clears the driver's cache of types.
        event.listen(made.sync_engine, "connect", lambda connection, _: connection.run_async(learn))

    @event.listens_for(made.sync_engine, "checkout")
    def checked_out(connection: Any, record: Any, proxy: Any) -> None:
        # If one connection is closed or dead, most likely all are.
        driver = connection.driver_connection
        if driver.is_closed():
            raise InvalidatePoolError
        if time.monotonic() - record.info.get("used", time.monotonic()) > QUIET:
            try:
                connection.run_async(_test)
            except DRIVER_ERRORS as error:
                driver.terminate()
                raise InvalidatePoolError from error

    @event.listens_for(made.sync_engine, "checkin")
    def checked_in(connection: Any, record: Any) -> None:
        record.info["used"] = time.monotonic()

    return made


_UNNAMED: dict[str, Any] = {"prepared_statement_cache_size": 0, "prepared_statement_name_func": lambda: ""}


async def _test(connection: Any) -> None:
    async with asyncio.timeout(SILENCE):
        await connection.execute("SELECT 1")


class Kept:
    """A pool, and one of its connections that has just ended a transaction and is kept for the next.

    Under load one group commit follows another. To return a connection to the pool and to take it again costs a fifth
    of the worker's time for a small group. A connection that is not used for `QUIET` seconds returns to the pool.
    """

    def __init__(self, pool: AsyncEngine):
        self.pool = pool
        self._kept: AsyncConnection | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._returning: set[asyncio.Task[None]] = set()

    @property
    def count(self) -> int:
        """How many connections are kept: they are taken from the pool, and nothing uses them."""
        return int(self._kept is not None)

    async def take(self) -> AsyncConnection:
        """Return a connection. Raises what the pool raises."""
        pooled = self._release()
        if pooled is None:
            return await self.pool.connect()
        if driver_of(pooled).is_closed():
            # The pool detects it when it is asked for the next one.
            await pooled.close()
            return await self.pool.connect()
        return pooled

    async def give(self, pooled: AsyncConnection) -> None:
        """Keep a connection whose transaction has ended, or return it to the pool."""
        if self._kept is not None:
            await pooled.close()
            return
        self._kept = pooled
        self._timer = asyncio.get_running_loop().call_later(QUIET, self._return)

    async def close(self) -> None:
        """Return the connection that is kept to the pool."""
        self._return()
        await asyncio.gather(*self._returning)

    def _release(self) -> AsyncConnection | None:
        if self._timer is not None:
            self._timer.cancel()
        kept, self._kept, self._timer = self._kept, None, None
        return kept

    def _return(self) -> None:
        if (kept := self._release()) is not None:
            task = asyncio.create_task(kept.close())
            self._returning.add(task)
            task.add_done_callback(self._returning.discard)


def driver_of(pooled: AsyncConnection) -> Any:
    """Return asyncpg's own connection, of a connection that was taken from the pool. `get_raw_connection` does the same
    in a greenlet, which costs 12 µs each time.
    """
    assert pooled.sync_connection is not None  # noqa: S101 - the pool has opened it
    return pooled.sync_connection.connection.driver_connection


@asynccontextmanager
async def plain_connection(pool: Kept, deadline: float) -> AsyncIterator[Any]:
    """Yield asyncpg's own connection. It returns to the pool only after its transaction has ended.

    `deadline` is the event loop's time until which to wait for a connection.
    """
    try:
        async with asyncio.timeout_at(deadline):
            pooled = await pool.take()
    except DRIVER_ERRORS as error:
        raise _unreachable(error) from error
    ended = False
    try:
        plain: Any = driver_of(pooled)
        try:
            yield plain
            ended = True
        except DataRefused:
            await _roll_back(plain)
            raise
        except BaseException:
            # The connection is lost or hangs, or the call was cancelled. Closing it rolls back and frees the heads.
            plain.terminate()
            raise
        finally:
            if plain.is_closed():
                ended = False
                await pooled.invalidate()
    finally:
        if ended:
            await pool.give(pooled)
        else:
            await pooled.close()


def _unreachable(error: BaseException) -> Unavailable:
    # This is never `Transient`: the attempt to connect has already used its time.
    translated = translate(error)
    if isinstance(translated, (Transient, DataRefused)):
        return Unavailable("The store's database cannot be reached.")
    return Unavailable(str(translated))


async def _roll_back(connection: Any) -> None:
    """End the transaction so that the connection can be used again, or close the connection."""
    try:
        async with asyncio.timeout(SILENCE):
            await connection.execute("ROLLBACK")
    except DRIVER_ERRORS:
        connection.terminate()
