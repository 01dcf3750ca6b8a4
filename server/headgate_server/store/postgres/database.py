"""The `Store` promise on PostgreSQL, for several server processes on one database."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

import asyncpg
from sqlalchemy import Connection, event, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from headgate_server.core.errors import OutcomeUnknown, SetupError, Unavailable
from headgate_server.core.model import Admission, Decision, Link, RateLimit, Submission
from headgate_server.store import DataRefused, migrate, sql
from headgate_server.store.base import SqlStore
from headgate_server.store.postgres.append import (
    LOCK_TIMEOUT,
    Decided,
    Landmark,
    decide_and_write,
    look_up,
    was_committed,
)
from headgate_server.store.postgres.durability import commit_level
from headgate_server.store.postgres.errors import DRIVER_ERRORS, Transient, describe, is_disconnect, translate
from headgate_server.store.schema import workspaces

T = TypeVar("T")

POOL = 4
"""Connections that are kept, for appends and for reads each: few large transactions are faster than many small ones.
"""

OVERFLOW = 4
"""Connections beyond these while heads of stuck workspaces are waited for."""

CONNECT_TIMEOUT = 10.0
"""Seconds for a connection to be made, and for one to become free."""

DEADLINE = 20.0
"""Seconds for all of an append before its COMMIT, for the COMMIT, and for a read: well above every timeout of the
server's, so that it passes only if the server or the way to it is gone."""

MIGRATION_DEADLINE = 3600.0
"""Seconds for the schema to be brought up to date, by this process or by another that it waits for: an index over ten
million events alone takes 45 seconds."""

RESOLVE_DEADLINE = 10.0
"""Seconds to find out whether a COMMIT happened. By then the server has ended a transaction that was left idle."""

CLOSE_DEADLINE = 5.0
"""Seconds for all connections to be closed; nothing is in flight on them any more."""

ATTEMPTS = 3
"""How often an append is tried if another transaction or a lost connection gets in its way before COMMIT is sent."""

OLDEST_SERVER = 17
"""Older ones are not tried: the append's plans are checked by tests, on newer ones alone."""


class PostgresStore(SqlStore):
    """The `Store` promise on a PostgreSQL database. `PostgresStore.open` makes one."""

    def __init__(self, url: str):
        super().__init__()
        self._commit_level = "on"
        """What our transactions set synchronous_commit to: what the database is set to, unless that is off."""
        self._url = url
        self._closed = False
        self._appending = _engine(self._connect, "READ COMMITTED")
        # A read is one statement, or several on rows that never change: no transaction, no round trips for one.
        self._reading = _engine(self._connect, "AUTOCOMMIT")

    @classmethod
    async def open(cls, url: str) -> "PostgresStore":
        """Connect to the database, check that it keeps what it acknowledges, and migrate it.

        Raises `errors.SetupError`.
        """
        store = cls(url)
        try:
            async with store._appending.connect() as connection:
                async with asyncio.timeout(DEADLINE):
                    store._commit_level = await connection.run_sync(_check)
                async with asyncio.timeout(MIGRATION_DEADLINE):
                    await connection.run_sync(migrate.upgrade)
                    await connection.commit()
        except DRIVER_ERRORS as error:
            await store.close()
            raise SetupError(f"The store's database cannot be used: {describe(error)}.") from error
        except ValueError as error:
            # Said of a URL that asyncpg cannot read; its own words may quote a part of the password.
            await store.close()
            raise SetupError(
                "The store URL cannot be read: check its port, its parameters, and that %, @, / and : "
                "in its password are percent-encoded."
            ) from error
        except BaseException:
            await store.close()
            raise
        return store

    async def append(self, submissions: Sequence[Submission], *, wait: bool = True) -> list[Decision | None]:
        """Decide and store submissions in one transaction."""
        if not submissions:
            return []
        for _ in range(ATTEMPTS - 1):
            try:
                return await self._append(submissions, wait)
            except Transient:
                continue
        return await self._append(submissions, wait)

    async def _append(self, submissions: Sequence[Submission], wait: bool) -> list[Decision | None]:
        async with _plain_connection(self._appending) as connection:
            try:
                async with asyncio.timeout(DEADLINE):
                    decided = await decide_and_write(connection, submissions, wait, self._commit_level)
                    if decided.landmark is None:
                        await connection.execute("ROLLBACK")
                        return decided.decisions
            except DRIVER_ERRORS as error:
                raise translate(error) from error
            return await self._commit(connection, decided, decided.landmark)

    async def _commit(self, connection: Any, decided: Decided, landmark: Landmark) -> list[Decision | None]:
        try:
            async with asyncio.timeout(DEADLINE):
                await connection.execute("COMMIT")
        except DRIVER_ERRORS as error:
            if not is_disconnect(error):
                raise translate(error) from error
            connection.terminate()
            if not await self._resolve(landmark):
                raise Unavailable("The store's database was lost before it committed.") from error
        return decided.decisions

    async def _resolve(self, landmark: Landmark) -> bool:
        """Return whether a transaction was committed whose connection was lost. Raises `OutcomeUnknown`."""
        try:
            async with asyncio.timeout(RESOLVE_DEADLINE):
                while True:
                    try:
                        return await self._look_up(landmark)
                    except DRIVER_ERRORS:
                        # The server may be restarting, or its stand-in not promoted yet.
                        await asyncio.sleep(0.1)
        except TimeoutError as error:
            raise OutcomeUnknown("The store's database was lost while it committed, and cannot be asked.") from error

    async def _look_up(self, landmark: Landmark) -> bool:
        # Not from the pool, whose connections most likely were lost as well; and also while the store is being
        # closed.
        connection = await _connect(self._url)
        try:
            return await was_committed(connection, landmark)
        finally:
            connection.terminate()

    async def lookup(self, workspace_id: int, dedupes: Sequence[bytes]) -> dict[bytes, Link]:
        """Return the links of the events that hold these identities now."""
        if not dedupes:
            return {}
        try:
            return await self._lookup(workspace_id, dedupes)
        except Transient:
            return await self._lookup(workspace_id, dedupes)

    async def _lookup(self, workspace_id: int, dedupes: Sequence[bytes]) -> dict[bytes, Link]:
        async with _plain_connection(self._reading) as connection:
            try:
                async with asyncio.timeout(DEADLINE):
                    return await look_up(connection, workspace_id, dedupes)
            except DRIVER_ERRORS as error:
                raise translate(error) from error

    async def admit(self, workspace_id: int, receiver: str, rate: RateLimit) -> Admission:
        """Count one request against a rate limit."""

        def count(connection: Connection) -> Admission:
            # A limit that forgets some requests in a power cut is still a limit; an fsync a request is not to be
            # had.
            connection.execute(text("SET LOCAL synchronous_commit = off"))
            return sql.admit(connection, workspace_id, receiver, rate, self._now(connection))

        return await self._write(count)

    async def ping(self, *, thorough: bool = False) -> None:
        """Return if an event can be stored durably now."""
        try:
            await super().ping(thorough=thorough)
        except Transient:
            # The connection was stale: nothing tells before it is used.
            await super().ping(thorough=thorough)

    async def close(self) -> None:
        """Finish what is under way and let go of every connection."""
        self._closed = True
        # Each connection says goodbye and hears the server hang up; one that is dead would be waited for without end.
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_DEADLINE):
                await self._appending.dispose()
                await self._reading.dispose()

    async def _read(self, work: Callable[[Connection], T]) -> T:
        try:
            return await self._read_once(work)
        except Transient:
            # The connection was stale: nothing tells before it is used.
            return await self._read_once(work)

    async def _read_once(self, work: Callable[[Connection], T]) -> T:
        try:
            async with asyncio.timeout(DEADLINE), self._reading.connect() as connection:
                return await connection.run_sync(work)
        except DRIVER_ERRORS as error:
            raise translate(error) from error

    async def _write(self, work: Callable[[Connection], T]) -> T:
        committing = False
        try:
            async with asyncio.timeout(DEADLINE), self._appending.connect() as connection:
                await connection.exec_driver_sql(
                    f"SELECT set_config('lock_timeout', '{LOCK_TIMEOUT}s', true),"
                    f" set_config('synchronous_commit', '{self._commit_level}', true)"
                )
                result = await connection.run_sync(work)
                committing = True
                await connection.commit()
                return result
        except DRIVER_ERRORS as error:
            if committing and is_disconnect(error):
                raise OutcomeUnknown("The store's database was lost while it committed.") from error
            raise translate(error) from error

    def _now(self, connection: Connection) -> int:
        return int(
            connection.execute(text("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint")).scalar_one()
        )

    def _check_durability(self, connection: Connection) -> None:
        self._commit_level = commit_level(connection)

    def _insert_workspace(self, connection: Connection, name: str) -> int | None:
        # Waits for another process that is making the same one.
        made = insert(workspaces).values(name=name, created_at=self._now(connection))
        return connection.execute(made.on_conflict_do_nothing().returning(workspaces.c.id)).scalar_one_or_none()

    async def _connect(self) -> Any:
        if self._closed:
            raise Unavailable("The store is closed.")
        return await _connect(self._url)


async def _connect(url: str) -> Any:
    # asyncpg reads the URL itself, so that it means what it means to libpq: sslmode, several hosts, sockets.
    return await asyncpg.connect(url, timeout=CONNECT_TIMEOUT, server_settings={"application_name": "headgate"})


def _engine(connect: Callable[[], Any], isolation_level: str) -> AsyncEngine:
    engine = create_async_engine(
        "postgresql+asyncpg://",
        async_creator=connect,
        isolation_level=isolation_level,
        hide_parameters=True,  # an error's text may end in a log, and must hold no content
        pool_size=POOL,
        max_overflow=OVERFLOW,
        pool_timeout=CONNECT_TIMEOUT,
    )

    @event.listens_for(engine.sync_engine, "checkout")
    def checked_out(connection: Any, record: Any, proxy: Any) -> None:
        # What asyncpg noticed costs no round trip to find out. If one connection was closed, most likely all were.
        if connection.driver_connection.is_closed():
            raise InvalidatePoolError

    return engine


@asynccontextmanager
async def _plain_connection(engine: AsyncEngine) -> AsyncIterator[Any]:
    """Yield asyncpg's own connection; it goes back to the pool only if it is in no transaction any more."""
    try:
        pooled = await engine.connect()
    except DRIVER_ERRORS as error:
        raise _unreachable(error) from error
    try:
        plain: Any = (await pooled.get_raw_connection()).driver_connection
        try:
            yield plain
        except DataRefused:
            await _roll_back(plain)
            raise
        except BaseException:
            # A lost or hanging connection, or a cancelled call. Closing it rolls back and frees the heads at once.
            plain.terminate()
            raise
        finally:
            if plain.is_closed():
                await pooled.invalidate()
    finally:
        await pooled.close()


def _unreachable(error: BaseException) -> Unavailable:
    # Never transient: an attempt to connect has just taken its time.
    refused = translate(error)
    if isinstance(refused, (Transient, DataRefused)):
        return Unavailable("The store's database cannot be reached.")
    return Unavailable(str(refused))


async def _roll_back(connection: Any) -> None:
    """Make the connection fit for the next transaction, or close it."""
    try:
        async with asyncio.timeout(DEADLINE):
            await connection.execute("ROLLBACK")
    except DRIVER_ERRORS:
        connection.terminate()


def _check(connection: Connection) -> str:
    """Return the level of synchronous_commit. Raises `SetupError` for a server that is too old, stores no Unicode, or
    acknowledges what is not on disk.
    """
    names = ("server_version_num", "server_encoding", "fsync", "synchronous_commit")
    settings = connection.execute(text(f"SELECT {', '.join(f'current_setting({name!r})' for name in names)}")).one()
    version, encoding, fsync, synchronous_commit = settings
    if int(version) < OLDEST_SERVER * 10_000:
        raise SetupError(
            f"The store's database is PostgreSQL {int(version) // 10_000}; headgate needs {OLDEST_SERVER} or newer."
        )
    if encoding != "UTF8":
        raise SetupError(f"The store's database has the encoding {encoding}; headgate needs UTF8.")
    if fsync != "on":
        raise SetupError("The store's database runs with fsync=off: it would lose acknowledged events. Set fsync=on.")
    if synchronous_commit == "off":
        raise SetupError(
            "The store's database runs with synchronous_commit=off: it would lose acknowledged events. "
            "Set synchronous_commit=on."
        )
    return str(synchronous_commit)
