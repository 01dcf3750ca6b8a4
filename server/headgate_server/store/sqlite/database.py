"""The embedded store: one SQLite file, one process that serves it, one thread that writes.

The `pysqlite3` wheel brings SQLite 3.53: before 3.51.3 two connections could corrupt a database in WAL mode, and
systems ship older.
"""

import asyncio
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import chain, groupby
from pathlib import Path
from typing import Any, TypeVar

from pysqlite3 import dbapi2 as driver
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError

from headgate_server.core.errors import OutcomeUnknown, SetupError, Unavailable
from headgate_server.core.model import Decision, Head, Link, StoredAnswer, StoredEvent, Submission, Usage
from headgate_server.core.settle import Settlement
from headgate_server.store import migrate
from headgate_server.store.answers import ANSWER_LIFETIME
from headgate_server.store.database import Database, DataRefused, not_durable
from headgate_server.store.group import answer_key, identities, request_keys
from headgate_server.store.sqlite.target import prepare_file, take_lock

T = TypeVar("T")

READERS = 4
"""Threads that read. Reads are short, and beyond a few they only take turns at the interpreter."""

BUSY_TIMEOUT = 5.0
"""Seconds to wait for another process (`headgate keys`, a backup) that writes."""

_BUSY_PAUSE = 0.02
"""Seconds after which a write that found the lock taken tries again."""

_PRAGMAS = (
    # Acknowledged means on disk: in WAL mode only FULL syncs the log at every commit.
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
    # 16 MB of log between checkpoints: 15 % more events/s than with the default's 4 MB, and 40 MB bring hardly more.
    "PRAGMA wal_autocheckpoint = 4000",
    # A slow reader holds checkpoints up, and the log grows meanwhile. Once it has been written back it is cut to twice
    # what lies between two checkpoints; without a limit it keeps its largest size for ever.
    "PRAGMA journal_size_limit = 33554432",
    # 64 MB for the pages of the random index.
    "PRAGMA cache_size = -65536",
)

# Bytes are what they are. Unless it is told so the driver looks for an adapter at each value that is bytes, which takes
# it 0.8 µs: 5 µs an event, and nothing else runs in the interpreter meanwhile.
driver.register_adapter(bytes, bytes)

_READ_HEAD = "SELECT sequence, hash, created_at, quota, month, month_events FROM heads WHERE workspace_id = ?"

# After each statement the writer waits for its turn at the interpreter, for up to milliseconds where the event loop is
# busy, so a statement takes many rows. Only three numbers of them: the driver keeps a statement with the values it last
# had. FAIL, since the transaction is rolled back in any case: without it SQLite keeps, for each statement of several
# rows, a copy of every page that it changes.
_COLUMNS = ", ".join(StoredEvent._fields)
_ROW = f"({', '.join('?' * len(StoredEvent._fields))})"
_INSERTS = {
    rows: f"INSERT OR FAIL INTO events ({_COLUMNS}) VALUES {', '.join([_ROW] * rows)}"  # noqa: S608 - question marks alone
    for rows in (64, 8, 1)
}

# The identities come as one value, 16 bytes each, and are cut apart where nobody has to wait for it: whatever their
# number, it is one statement and one step. The index is named so that no plan can ever scan a ledger under the lock.
_PROBE = (
    "WITH RECURSIVE slices (start) AS (SELECT 1 UNION ALL SELECT start + 16 FROM slices LIMIT length(?2) / 16)"
    " SELECT dedupe, id, sequence, created_at, event_hash, salt, commitment FROM events INDEXED BY events_dedupe_key"
    " WHERE workspace_id = ?1 AND dedupe IN (SELECT substr(?2, start, 16) FROM slices)"
)

_FIND_ANSWER = (
    "SELECT fingerprint, answer FROM answers WHERE workspace_id = ? AND scope = ? AND key = ? AND created_at > ?"
)

_MOVE_HEAD = (
    "UPDATE heads SET sequence = ?, hash = ?, created_at = ?, month = ?, month_events = ? WHERE workspace_id = ?"
)

_STORE_ANSWER = (
    "INSERT OR REPLACE INTO answers (workspace_id, scope, key, fingerprint, answer, created_at)"
    " VALUES (?, ?, ?, ?, ?, ?)"
)


class SqliteDatabase(Database):
    """The `Database` promise on one SQLite file. `SqliteDatabase.open` makes one."""

    def __init__(self, path: Path, clock: Callable[[], int], lock: int | None):
        self._writer = _engine(path, "BEGIN IMMEDIATE", pool_size=1)
        self._reader = _engine(path, "BEGIN", pool_size=READERS)
        self._write_thread = ThreadPoolExecutor(1, "headgate-sqlite-write")
        self._read_threads = ThreadPoolExecutor(READERS, "headgate-sqlite-read")
        self._clock = clock
        self._lock = lock
        self._closed = False

    @classmethod
    async def open(
        cls, path: Path, *, serving: bool = False, clock: Callable[[], int] | None = None
    ) -> "SqliteDatabase":
        """Open the database at `path`, made if there is none, and migrate it.

        With `serving` a second serving process on the file is refused. `clock` gives microseconds since the epoch.
        Raises `errors.SetupError`.
        """
        await asyncio.to_thread(prepare_file, path)
        lock = take_lock(path) if serving else None
        store = cls(path, clock or _system_clock, lock)
        try:
            await store._in(store._write_thread, partial(_set_up, store._writer))
        except (driver.Error, DBAPIError) as error:
            await store.close()
            raise SetupError(f"The store {path} cannot be opened: {_cause(error)}.") from error
        except BaseException:
            await store.close()
            raise
        return store

    async def append(self, submissions: Sequence[Submission], *, wait: bool = True) -> list[Decision | None]:
        """Decide and store submissions in one transaction."""
        return await self._in(self._write_thread, lambda: self._append(submissions, wait))

    def _append(self, submissions: Sequence[Submission], wait: bool) -> list[Decision | None]:
        decisions: list[Decision | None] = [None] * len(submissions)
        # Sorting is stable: within a workspace the callers keep their order.
        order = sorted(range(len(submissions)), key=lambda index: submissions[index].workspace_id)
        try:
            with _translated(), _transaction(self._writer, wait) as connection:
                now = self._clock()
                for workspace_id, group in groupby(order, key=lambda index: submissions[index].workspace_id):
                    indexes = list(group)
                    settlement = self._settle(connection, workspace_id, [submissions[i] for i in indexes], now)
                    for index in indexes:
                        decisions[index] = settlement.decide(submissions[index])
                    _store(connection, workspace_id, settlement, now)
        except _LockedError as error:
            if wait:
                raise Unavailable("Another process holds the store's lock.") from error
        return decisions

    def _settle(self, connection: Connection, workspace_id: int, group: list[Submission], now: int) -> Settlement:
        cursor = _cursor(connection)
        row = cursor.execute(_READ_HEAD, (workspace_id,)).fetchone()
        if row is None:
            raise DataRefused(f"there is no workspace {workspace_id}")
        head, usage = Head(*row[:3]), Usage(*row[3:])
        return Settlement(workspace_id, head, *_probe(cursor, workspace_id, group, now), now, usage)

    async def close(self) -> None:
        """Finish what is under way and let go of the file."""
        self._closed = True
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._write_thread.shutdown()
        self._read_threads.shutdown()
        # The writer last: the last connection to close empties the log into the database.
        self._reader.dispose()
        self._writer.dispose()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Return what `work` read."""

        def run() -> T:
            with _translated(), self._reader.connect() as connection:
                return work(connection)

        return await self._in(self._read_threads, run)

    async def write(self, work: Callable[[Connection], T], *, durable: bool = True) -> T:
        """Return what `work` did, once it is committed and on disk, be it asked for or not."""

        def run() -> T:
            with _translated(), _transaction(self._writer, wait=False) as connection:
                return work(connection)

        # Not a wait in the thread that writes: it would keep appends from it while somebody else holds the lock.
        deadline = time.monotonic() + BUSY_TIMEOUT
        while True:
            try:
                return await self._in(self._write_thread, run)
            except _LockedError as error:
                if time.monotonic() > deadline:
                    raise Unavailable("Another process holds the store's lock.") from error
            await asyncio.sleep(_BUSY_PAUSE)

    def now(self, connection: Connection) -> int:
        """Return the clock that the store was opened with."""
        return self._clock()

    def check_durable(self, connection: Connection) -> None:
        """Raise `errors.Unavailable` unless commits are synced."""
        cursor = _cursor(connection)
        for pragma, wanted in (("synchronous", 2), ("journal_mode", "wal")):
            found = cursor.execute(f"PRAGMA {pragma}").fetchone()[0]
            if found != wanted:
                raise not_durable(f"The store's database runs with {pragma}={found}")

    async def _in(self, threads: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        if self._closed:
            raise Unavailable("The store is closed.")
        return await asyncio.get_running_loop().run_in_executor(threads, work)


class _LockedError(Exception):
    """Another connection holds the write lock."""


def _system_clock() -> int:
    return time.time_ns() // 1000


def _engine(path: Path, begin: str, *, pool_size: int) -> Engine:
    engine = create_engine(
        URL.create("sqlite", database=str(path)),
        module=driver,
        hide_parameters=True,  # an error's text may end in a log, and must hold no content
        pool_size=pool_size,
        max_overflow=0,
        connect_args={"timeout": BUSY_TIMEOUT},
    )

    @event.listens_for(engine, "connect")
    def connected(connection: Any, record: Any) -> None:
        # The driver must not begin transactions on its own: it would begin them without the write lock.
        connection.isolation_level = None
        for pragma in _PRAGMAS:
            connection.execute(pragma)

    @event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine


@contextmanager
def _transaction(engine: Engine, wait: bool) -> Iterator[Connection]:
    """Yield a connection that holds the write lock, and commit. Raises `_LockedError`, `OutcomeUnknown`."""
    with engine.connect() as connection:
        raw = _cursor(connection)
        try:
            if not wait:
                raw.execute("PRAGMA busy_timeout = 0")
            transaction = connection.begin()
        except DBAPIError as error:
            if _code(error) == driver.SQLITE_BUSY:
                raise _LockedError from error
            raise
        finally:
            if not wait:
                raw.execute(f"PRAGMA busy_timeout = {int(BUSY_TIMEOUT * 1000)}")
        with transaction:
            yield connection
            try:
                transaction.commit()
            except DBAPIError as error:
                # The log's last page may have reached the disk although the sync failed: after a crash it would
                # count.
                if _code(error) == driver.SQLITE_IOERR:
                    raise OutcomeUnknown("The disk failed while the store committed.") from error
                raise


@contextmanager
def _translated() -> Iterator[None]:
    """Turn the driver's errors, plain or wrapped by SQLAlchemy, into those of the `Store` promise."""
    try:
        yield
    except (driver.DataError, OverflowError, UnicodeEncodeError) as error:
        raise DataRefused(str(error)) from error
    except (DBAPIError, driver.Error) as error:
        if isinstance(error, DBAPIError) and isinstance(error.orig, driver.DataError):
            raise DataRefused(str(error.orig)) from error
        raise Unavailable("The store's database failed.") from error


def _cursor(connection: Connection) -> Any:
    driver_connection = connection.connection.driver_connection
    if driver_connection is None:
        raise Unavailable("The store's connection is gone.")
    return driver_connection.cursor()


def _code(error: BaseException) -> int:
    """Return SQLite's primary result code, 0 if it is no error of SQLite's."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    return int(getattr(cause, "sqlite_errorcode", 0)) & 0xFF


def _cause(error: BaseException) -> str:
    return str(error.orig if isinstance(error, DBAPIError) else error)


def _holders(cursor: Any, workspace_id: int, dedupes: Sequence[bytes]) -> dict[bytes, Link]:
    """Return the links of the events that hold these identities, of 16 bytes each."""
    rows = cursor.execute(_PROBE, (workspace_id, b"".join(dedupes)))
    return {dedupe: Link(*link) for dedupe, *link in rows}


def _probe(
    cursor: Any, workspace_id: int, group: list[Submission], now: int
) -> tuple[dict[bytes, Link], dict[tuple[str, str], StoredAnswer]]:
    """Read, under the lock, which identities and request keys of the group are taken."""
    known = _holders(cursor, workspace_id, identities(group))
    answers: dict[tuple[str, str], StoredAnswer] = {}
    for scope, key in request_keys(group):
        parameters = (workspace_id, scope, answer_key(key), now - ANSWER_LIFETIME)
        found = cursor.execute(_FIND_ANSWER, parameters).fetchone()
        if found is not None:
            answers[scope, key] = StoredAnswer(*found)
    return known, answers


def _store(connection: Connection, workspace_id: int, settlement: Settlement, now: int) -> None:
    cursor = _cursor(connection)
    if settlement.superseded:
        cursor.executemany(
            "UPDATE events SET dedupe = NULL WHERE workspace_id = ? AND dedupe = ?",
            [(workspace_id, dedupe) for dedupe in settlement.superseded],
        )
    if settlement.rows:
        for statement, values in insertions(settlement.rows):
            cursor.execute(statement, values)
        cursor.execute(_MOVE_HEAD, (*settlement.head, *settlement.usage[1:], workspace_id))
    for request, answer in settlement.new_answers:
        key = answer_key(request.key)
        cursor.execute(_STORE_ANSWER, (workspace_id, request.scope, key, request.fingerprint, answer, now))


def insertions(rows: Sequence[tuple[Any, ...]]) -> Iterator[tuple[str, list[Any]]]:
    """Yield the statements that write these rows, each with its values."""
    first = 0
    for size, statement in _INSERTS.items():
        while len(rows) - first >= size:
            yield statement, [*chain.from_iterable(rows[first : first + size])]
            first += size


def _set_up(engine: Engine) -> None:
    """Switch to write-ahead logging and migrate. Raises what the driver raises, and `errors.SetupError`."""
    _use_wal(engine)
    try:
        with _transaction(engine, wait=True) as connection:
            migrate.upgrade(connection)
    except _LockedError as error:
        raise SetupError("The store is locked by another process that does not let go of it.") from error


def _use_wal(engine: Engine) -> None:
    """Set the journal mode, for good. SQLite does not wait for a lock here: processes that start at once try again."""
    deadline = time.monotonic() + BUSY_TIMEOUT
    with engine.connect() as connection:
        cursor = _cursor(connection)
        while True:
            try:
                mode = cursor.execute("PRAGMA journal_mode = WAL").fetchone()[0]
            except driver.OperationalError as error:
                if _code(error) != driver.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
                continue
            if mode != "wal":
                raise SetupError(
                    "The store's file system does not carry SQLite's write-ahead log: put the database on a local disk."
                )
            return
