"""The `Database` promise on PostgreSQL, for several server processes on one database."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, ClassVar, TypeVar
from uuid import UUID

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.pool import QueuePool

from headgate_server.core.errors import OutcomeUnknown, Unavailable
from headgate_server.core.model import Decision, StoredEvent, Submission
from headgate_server.store import migrate
from headgate_server.store.citus.catalog import holds_events
from headgate_server.store.database import Database, DataRefused, Pool
from headgate_server.store.phases import Phase, Phases
from headgate_server.store.postgres.alone import alone
from headgate_server.store.postgres.append import (
    BOUNDS,
    CommitMarker,
    Decided,
    decide_and_write,
    was_committed,
)
from headgate_server.store.postgres.connection import (
    OVERFLOW,
    POOL,
    Connector,
    Kept,
    engine,
    plain_connection,
)
from headgate_server.store.postgres.durability import check_settings, commit_level
from headgate_server.store.postgres.errors import (
    DRIVER_ERRORS,
    Transient,
    is_disconnect,
    is_read_only,
    translate,
)
from headgate_server.store.postgres.first_look import SETUP_DEADLINE, look, unusable
from headgate_server.store.postgres.target import Target, parse

T = TypeVar("T")

DEADLINE = 8.0
"""Seconds for a read, and for all attempts of a write before its COMMIT. This is longer than the wait for a locked
head. It is short enough that a caller learns of a hanging database before the caller's own timeout.
"""

COMMIT_DEADLINE = 4.0
"""Seconds for the COMMIT, which waits for a disk or for a synchronous replica."""

RESOLVE_DEADLINE = 6.0
"""Seconds to find out whether a COMMIT happened. In this time the server ends a transaction whose client is idle. With
the two deadlines above, an append is answered within eighteen seconds whatever the database does."""

CLOSE_DEADLINE = 5.0
"""Seconds to close all connections. Nothing is in progress on them any more."""

ATTEMPTS = 3
"""How often an append is tried if another transaction or a lost connection stops it before COMMIT is sent."""

EARLY_PAUSE = 10.0
"""Seconds without early look-ups after an append that was stopped, perhaps because of them."""

_DESCRIPTION = """
SELECT current_setting('server_version') AS version,
       (SELECT jsonb_object_agg(name, CASE unit WHEN '8kB' THEN (setting::bigint * 8192)::text ELSE setting END)
        FROM pg_settings
        WHERE name IN ('fsync', 'synchronous_commit', 'full_page_writes', 'data_checksums', 'archive_mode',
                       'max_connections', 'shared_buffers', 'superuser_reserved_connections')) AS settings
"""
"""Buffers are in bytes."""

_CONTINUE_IDS = """
SELECT setval(pg_get_serial_sequence('workspaces', 'id'), greatest(:last, (SELECT max(id) FROM workspaces)))
WHERE :last > 0
"""

_SETTINGS = "SELECT " + ", ".join(
    f"set_config('{name}', '{value}', true)" for name, value in {**BOUNDS, "synchronous_commit": "{level}"}.items()
)
"""The settings of a write's transaction, in one round trip."""

_GUARD = """
SELECT EXISTS (SELECT FROM pg_constraint WHERE conrelid = 'events'::regclass AND conname = 'events_dedupe_key')
"""


class PostgresDatabase(Database):
    """The `Database` promise on PostgreSQL. `PostgresDatabase.open` makes one."""

    others_join = False
    _overflow = OVERFLOW
    _settings: ClassVar[Mapping[str, str]] = {}
    """The settings of all its sessions."""

    def __init__(self, target: Target, *, pooler: bool):
        self._commit_level = "on"
        """The synchronous_commit of our transactions: the database's setting, unless that is off."""
        self._guarded = False
        """Whether the database itself refuses a second event with an identity."""
        self._early_from = 0.0
        """The event loop's time from which on identities may be looked up before the lock."""
        self._connector = Connector(target, pooler=pooler, settings=self._settings)
        self._appending = engine(self._connector, "READ COMMITTED", self._overflow)
        self._kept = Kept(self._appending)
        # A read is one statement, or several on rows that never change. It needs no transaction and saves its round
        # trips. Reads use an index: a plan that was made and cached for a small table would read all of a large one.
        reading = {**self._settings, "enable_seqscan": "off", "jit": "off"}
        self._readers = Connector(target, pooler=pooler, settings=reading)
        self._reading = engine(self._readers, "AUTOCOMMIT")

    @classmethod
    async def open(
        cls, url: str, *, as_is: bool = False, distributed: Callable[[], "type[PostgresDatabase]"] | None = None
    ) -> "PostgresDatabase":
        """Connect to the database, check that it does not lose acknowledged events, and migrate it unless `as_is`.

        If Citus has distributed its tables, the class that `distributed` returns is used. Raises `errors.SetupError`.
        """
        target = parse(url)
        try:
            pooler, over_nodes = await look(target)
            kind = distributed() if over_nodes and distributed is not None else cls
            store = kind(target, pooler=pooler)
        except DRIVER_ERRORS as error:
            raise unusable(error) from error
        try:
            async with store._appending.connect() as connection:
                async with asyncio.timeout(SETUP_DEADLINE):
                    store._commit_level = await connection.run_sync(store._check_settings)
            # Another process may have distributed the tables, while this one waited for it.
            if not as_is and await store.alone(store._upgraded) and kind is cls and distributed is not None:
                await store.close()
                return await cls.open(url, distributed=distributed)
        except DRIVER_ERRORS as error:
            await store.close()
            raise unusable(error) from error
        except BaseException:
            await store.close()
            raise
        return store

    async def alone(self, work: Callable[[Connection], T]) -> T:
        """Return the result of `work` after the commit. Processes that change one database's schema wait for each other
        here. Raises errors of the driver.
        """
        return await alone(self._appending, work)

    def _upgraded(self, connection: Connection) -> bool:
        """Run the missing migrations, and return whether the tables are distributed."""
        self._upgrade(connection)
        self._guarded = self.guards_identities(connection)
        return holds_events(connection)

    def _upgrade(self, connection: Connection) -> None:
        """Run the missing migrations."""
        migrate.upgrade(connection)

    def _check_settings(self, connection: Connection) -> str:
        """Return the level of synchronous_commit. Raises `SetupError` if the database cannot be used."""
        return check_settings(connection)

    async def append(
        self,
        submissions: Sequence[Submission],
        *,
        wait: bool = True,
        begin: Callable[[], None] = lambda: None,
        phases: Phases | None = None,
    ) -> list[Decision | None]:
        """Decide and store submissions in one transaction."""
        if not submissions:
            begin()
            return []
        deadline, phases = _in(DEADLINE), phases or Phases()
        for _ in range(ATTEMPTS - 1):
            try:
                return await self._append(submissions, wait, begin, deadline, phases)
            except Transient:
                # Perhaps an identity was stored between its early look-up and the lock. Then other clients send the
                # same events to another process, and the next groups would fail in the same way.
                self._early_from = _in(EARLY_PAUSE)
        return await self._append(submissions, wait, begin, deadline, phases)

    async def _append(
        self,
        submissions: Sequence[Submission],
        wait: bool,
        begin: Callable[[], None],
        deadline: float,
        phases: Phases,
    ) -> list[Decision | None]:
        async with plain_connection(self._kept, deadline) as connection:
            try:
                async with asyncio.timeout_at(deadline):
                    decided = await self._decide(connection, submissions, wait, begin, phases)
                    if decided.marker is None:
                        await connection.execute("ROLLBACK")
                        return decided.decisions
            except DRIVER_ERRORS as error:
                raise translate(error) from error
            decisions = await self._commit(connection, decided, decided.marker)
            phases.ended(Phase.COMMIT)
            return decisions

    async def _decide(
        self, connection: Any, submissions: Sequence[Submission], wait: bool, begin: Callable[[], None], phases: Phases
    ) -> Decided:
        early = self._guarded and _in(0) >= self._early_from
        return await decide_and_write(connection, submissions, wait, begin, self._commit_level, phases, early)

    def _is_unsettled(self, error: BaseException) -> bool:
        """Whether this error of a COMMIT leaves it open whether the transaction was committed."""
        return is_disconnect(error)

    async def _commit(self, connection: Any, decided: Decided, marker: CommitMarker) -> list[Decision | None]:
        try:
            async with asyncio.timeout(COMMIT_DEADLINE):
                await connection.execute("COMMIT")
        except DRIVER_ERRORS as error:
            if not self._is_unsettled(error):
                raise translate(error) from error
            connection.terminate()
            if not await self._resolve(marker):
                raise Unavailable("The connection to the store's database was lost before the commit.") from error
        return decided.decisions

    async def _resolve(self, marker: CommitMarker) -> bool:
        """Return whether a transaction was committed after its connection was lost. Raises `OutcomeUnknown`."""
        try:
            async with asyncio.timeout(RESOLVE_DEADLINE):
                while True:
                    try:
                        return await self._look_up(marker)
                    except DRIVER_ERRORS:
                        # The server may be restarting, or a standby server may not be promoted yet.
                        await asyncio.sleep(0.1)
        except TimeoutError as error:
            raise OutcomeUnknown(
                "The connection to the store's database was lost during the commit, and the database cannot be reached."
            ) from error

    async def _look_up(self, marker: CommitMarker) -> bool:
        # A new connection: those of the pool most likely were lost as well. This also works while the store closes.
        connection = await Connector(
            self._connector.target, pooler=self._connector.pooler, settings=self._settings
        ).connect()
        try:
            return await self._was_committed(connection, marker)
        finally:
            connection.terminate()

    async def _was_committed(self, connection: Any, marker: CommitMarker) -> bool:
        return await was_committed(connection, marker)

    async def close(self) -> None:
        """Finish the operations in progress and close every connection."""
        self._connector.closed = self._readers.closed = True
        # Closing a dead connection would wait without end, so there is a deadline.
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_DEADLINE):
                await self._kept.close()
                await self._appending.dispose()
                await self._reading.dispose()

    async def read(self, work: Callable[[Connection], T], *, as_stored: bool = False, snapshot: bool = False) -> T:
        """Return the result of `work`, which reads. It runs again if its connection was lost. `as_stored` changes
        nothing, because the server stores only UTF-8. `snapshot` costs the round trips of a transaction.
        """
        deadline = _in(DEADLINE)
        try:
            return await self._read_once(work, deadline, snapshot)
        except Transient:
            # The connection was lost during the read.
            return await self._read_once(work, deadline, snapshot)

    async def _read_once(self, work: Callable[[Connection], T], deadline: float, snapshot: bool) -> T:
        try:
            async with asyncio.timeout_at(deadline), self._reading.connect() as connection:
                if snapshot:
                    await connection.execution_options(isolation_level="REPEATABLE READ")
                return await connection.run_sync(work)
        except DRIVER_ERRORS as error:
            raise translate(error) from error

    async def write(self, work: Callable[[Connection], T], *, durable: bool = True) -> T:
        """Return the result of `work` after the commit. It runs again if its connection was lost before the commit."""
        deadline = _in(DEADLINE)
        try:
            return await self._write_once(work, durable, deadline)
        except Transient:
            return await self._write_once(work, durable, deadline)

    async def _write_once(self, work: Callable[[Connection], T], durable: bool, deadline: float) -> T:
        level = self._commit_level if durable else "off"
        committing = False
        try:
            async with asyncio.timeout_at(deadline) as limit, self._appending.connect() as connection:
                await self._begin_write(connection, level)
                try:
                    result = await connection.run_sync(work)
                except DBAPIError as error:
                    if is_read_only(error):
                        # Do not use this connection again: another host may be the primary now.
                        await connection.invalidate()
                    raise
                committing = True
                limit.reschedule(_in(COMMIT_DEADLINE))
                await connection.commit()
                return result
        except DRIVER_ERRORS as error:
            if committing and self._is_unsettled(error):
                if not durable:
                    raise Unavailable("The connection to the store's database was lost during the commit.") from error
                raise OutcomeUnknown("The connection to the store's database was lost during the commit.") from error
            raise translate(error) from error

    async def _begin_write(self, connection: AsyncConnection, level: str) -> None:
        """Set what applies to this transaction alone; `level` is its synchronous_commit."""
        await connection.exec_driver_sql(_SETTINGS.format(level=level))

    def now(self, connection: Connection) -> int:
        """Return the server's time."""
        return int(
            connection.execute(text("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint")).scalar_one()
        )

    def guards_identities(self, connection: Connection) -> bool:
        """Return whether there is the exclusion constraint."""
        return bool(connection.execute(text(_GUARD)).scalar_one())

    def size(self, connection: Connection) -> int:
        """Return the size of the database, with its indexes."""
        return int(connection.execute(text("SELECT pg_database_size(current_database())")).scalar_one())

    def free(self) -> int | None:
        """Return None: SQL does not tell it."""
        return None

    def pools(self) -> Mapping[str, Pool]:
        """Return the use of the two pools."""
        return {
            "append": _pool(self._appending, POOL + self._overflow, self._kept.count),
            "read": _pool(self._reading, POOL + OVERFLOW),
        }

    def describe(self, connection: Connection) -> Mapping[str, str]:
        """Return the server's version, and the settings that matter to a store."""
        found = connection.execute(text(_DESCRIPTION)).one()
        return {"version": f"PostgreSQL {found.version}", **found.settings}

    def load(self, connection: Connection, rows: Sequence[StoredEvent]) -> None:
        """Insert rows by COPY."""
        records = [(row[0], UUID(bytes=row[1]), *row[2:]) for row in rows]
        adapted: Any = connection.connection.dbapi_connection
        try:
            adapted.run_async(
                lambda driver: driver.copy_records_to_table("events", columns=StoredEvent._fields, records=records)
            )
        except (TypeError, ValueError) as error:
            # The driver could not encode a value. Its message may contain the value.
            raise DataRefused(f"a cell has another type than its column ({type(error).__name__})") from error

    def continue_ids(self, connection: Connection, last: int) -> None:
        """Move the sequence of the workspaces' ids, if it is not beyond `last`."""
        connection.execute(text(_CONTINUE_IDS), {"last": last})

    def check_durable(self, connection: Connection) -> None:
        """Raise `errors.Unavailable` unless commits are synced. From now on use the database's level of commits."""
        self._commit_level = commit_level(connection)


def _pool(engine: AsyncEngine, most: int, kept: int = 0) -> Pool:
    pool = engine.pool
    assert isinstance(pool, QueuePool)  # noqa: S101 - `engine` makes no other
    return Pool(max(0, pool.checkedout() - kept), pool.checkedout() + pool.checkedin(), most)


def _in(seconds: float) -> float:
    """Return the event loop's time that many seconds from now."""
    return asyncio.get_running_loop().time() + seconds
