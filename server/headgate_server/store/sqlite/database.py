"""The embedded store: one SQLite file. Each process that serves it has one thread that writes, and they take turns.

The `pysqlite3` wheel contains SQLite 3.53. Before 3.51.3 two connections could corrupt a database in WAL mode, and
operating systems have older versions.
"""

import asyncio
import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

from pysqlite3 import dbapi2 as driver
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import QueuePool

from headgate_server.core.errors import SetupError, Unavailable
from headgate_server.core.model import Decision, StoredEvent, Submission
from headgate_server.store import migrate
from headgate_server.store.database import Database, Pool
from headgate_server.store.phases import Phase, Phases
from headgate_server.store.sqlite import durability
from headgate_server.store.sqlite.append import decide_and_write, insertions
from headgate_server.store.sqlite.connection import BUSY_TIMEOUT, any_texts, make_engine, raw_cursor, transaction
from headgate_server.store.sqlite.errors import LockedError, cause, result_code, translated
from headgate_server.store.sqlite.target import check_database, check_file, mark_served, prepare_file
from headgate_server.store.sqlite.turns import Turns
from headgate_server.store.sqlite.writes import Writes

T = TypeVar("T")

READERS = 4
"""Threads that read. Reads are short, and more threads would only wait for the interpreter's lock."""

_BUSY_PAUSE = 0.02
"""Seconds until a write tries again after it found the database locked."""


class SqliteDatabase(Database):
    """The `Database` promise on one SQLite file. `SqliteDatabase.open` makes one."""

    def __init__(self, path: Path, clock: Callable[[], int], lock: int | None):
        # SQLite, too, keeps its log beside the file itself, and not beside a link to it.
        self._path = path = path.resolve()
        self._writes = Writes(Turns(path))
        self._writer = make_engine(path, "BEGIN IMMEDIATE", pool_size=1)
        self._reader = make_engine(path, "BEGIN", pool_size=READERS)
        self._read_threads = ThreadPoolExecutor(READERS, "headgate-sqlite-read")
        self._clock = clock
        self._lock = lock
        self._closed = False

    @classmethod
    async def open(
        cls, path: Path, *, serving: bool = False, as_is: bool = False, clock: Callable[[], int] | None = None
    ) -> "SqliteDatabase":
        """Open the database at `path` and migrate it. A missing file is created. With `as_is` nothing is created or
        migrated.

        With `serving`, the file is marked as one that is served. `clock` returns microseconds since the epoch. Raises
        `errors.SetupError`.
        """
        await asyncio.to_thread(check_file if as_is else prepare_file, path)
        await asyncio.to_thread(check_database, path)
        lock = mark_served(path) if serving else None
        store = cls(path, clock or _system_clock, lock)
        try:
            await store._writes.run(partial(_use_wal if as_is else _set_up, store._writer))
        except (driver.Error, DBAPIError) as error:
            await store.close()
            raise SetupError(f"The store {path} cannot be opened: {cause(error)}.") from error
        except BaseException:
            await store.close()
            raise
        return store

    async def append(
        self,
        submissions: Sequence[Submission],
        *,
        wait: bool = True,
        begin: Callable[[], None] = lambda: None,
        phases: Phases | None = None,
    ) -> list[Decision | None]:
        """Decide and store submissions in one transaction."""
        return await self._write(partial(self._append, submissions, wait, begin, phases or Phases()))

    def _append(
        self, submissions: Sequence[Submission], wait: bool, begin: Callable[[], None], phases: Phases
    ) -> list[Decision | None]:
        begin()
        try:
            with translated():
                with transaction(self._writer, wait) as connection:
                    phases.ended(Phase.LOCK)
                    decisions = decide_and_write(connection, submissions, self._clock(), phases)
                phases.ended(Phase.COMMIT)
                return [*decisions]
        except LockedError as error:
            if wait:
                raise Unavailable("Another process holds the store's lock.") from error
            return [None] * len(submissions)

    async def close(self) -> None:
        """Finish the operations in progress and close the file."""
        self._closed = True
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._writes.close()
        self._read_threads.shutdown()
        # The writer is closed last: the last connection to close writes the log into the database.
        self._reader.dispose()
        self._writer.dispose()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    async def read(self, work: Callable[[Connection], T], *, as_stored: bool = False, snapshot: bool = False) -> T:
        """Return the result of `work`, which reads in one transaction. So it always sees one state."""

        def run() -> T:
            with translated(), self._reader.connect() as connection:
                if not as_stored:
                    return work(connection)
                with any_texts(connection):
                    return work(connection)

        self._check_open()
        return await asyncio.get_running_loop().run_in_executor(self._read_threads, run)

    async def write(self, work: Callable[[Connection], T], *, durable: bool = True) -> T:
        """Return the result of `work` after the commit. It is on disk then, whatever `durable` says."""

        def run() -> T:
            with translated(), transaction(self._writer, wait=False) as connection:
                return work(connection)

        # Do not wait in the writing thread for a program that takes no turns: appends could not use it meanwhile.
        deadline = time.monotonic() + BUSY_TIMEOUT
        while True:
            try:
                return await self._write(run)
            except LockedError as error:
                if time.monotonic() > deadline:
                    raise Unavailable("Another process holds the store's lock.") from error
            await asyncio.sleep(_BUSY_PAUSE)

    def now(self, connection: Connection) -> int:
        """Return the time of the clock that the store was opened with."""
        return self._clock()

    def check_durable(self, connection: Connection) -> None:
        """Raise `errors.Unavailable` unless commits are synced."""
        durability.check(connection)

    def guards_identities(self, connection: Connection) -> bool:
        """Return whether the index of identities is unique."""
        found = connection.execute(
            text("SELECT max(\"unique\") FROM pragma_index_list('events') WHERE name = 'events_dedupe_key'")
        )
        return bool(found.scalar_one())

    def size(self, connection: Connection) -> int:
        """Return the size of the file and of its log."""
        with _measured():
            return sum(path.stat().st_size for path in (self._path, Path(f"{self._path}-wal")) if path.exists())

    def free(self) -> int | None:
        """Return the free bytes of the file's disk."""
        with _measured():
            return shutil.disk_usage(self._path.parent).free

    def pools(self) -> Mapping[str, Pool]:
        """Return the use of the one connection that writes, and of those that read."""
        return {"write": _pool(self._writer), "read": _pool(self._reader)}

    def describe(self, connection: Connection) -> Mapping[str, str]:
        """Return SQLite's version."""
        return {"version": f"SQLite {driver.sqlite_version}"}

    def load(self, connection: Connection, rows: Sequence[StoredEvent]) -> None:
        """Insert rows, many with one statement."""
        with raw_cursor(connection) as cursor:
            for statement, values in insertions(rows):
                cursor.execute(statement, values)

    def continue_ids(self, connection: Connection, last: int) -> None:
        """Do nothing: SQLite's next id is always the highest and one."""

    async def _write(self, work: Callable[[], T]) -> T:
        self._check_open()
        return await self._writes.run(work)

    def _check_open(self) -> None:
        if self._closed:
            raise Unavailable("The store is closed.")


def _pool(engine: Engine) -> Pool:
    pool = engine.pool
    assert isinstance(pool, QueuePool)  # noqa: S101 - `make_engine` makes no other
    return Pool(pool.checkedout(), pool.checkedout() + pool.checkedin(), pool.size())


@contextlib.contextmanager
def _measured() -> Iterator[None]:
    """Turn an error of the operating system into `Unavailable`: the store's folder may be gone, or its disk."""
    try:
        yield
    except OSError as error:
        raise Unavailable("The store's files cannot be measured.") from error


def _system_clock() -> int:
    return time.time_ns() // 1000


def _set_up(engine: Engine) -> None:
    """Switch to write-ahead logging and migrate. Raises the driver's errors, and `errors.SetupError`."""
    _use_wal(engine)
    try:
        with transaction(engine, wait=True) as connection:
            migrate.upgrade(connection)
    except LockedError as error:
        raise SetupError("Another process holds the store's lock and does not release it.") from error


def _use_wal(engine: Engine) -> None:
    """Set the journal mode permanently. SQLite does not wait for a lock here, so processes that start at the same time
    try again.
    """
    deadline = time.monotonic() + BUSY_TIMEOUT
    with engine.connect() as connection, raw_cursor(connection) as cursor:
        while True:
            try:
                mode = cursor.execute("PRAGMA journal_mode = WAL").fetchone()[0]
            except driver.OperationalError as error:
                if result_code(error) != driver.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
                continue
            if mode != "wal":
                raise SetupError("The store's file system does not support SQLite's write-ahead log: use a local disk.")
            return
