"""Connections to an SQLite file, and transactions on them."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from pysqlite3 import dbapi2 as driver
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError

from headgate_server.core.errors import OutcomeUnknown, Unavailable
from headgate_server.store.sqlite.errors import LockedError, result_code

BUSY_TIMEOUT = 5.0
"""Seconds to wait for another process (`headgate keys`, a backup) that writes."""

_PRAGMAS = (
    # An acknowledged event must be on disk: in WAL mode only FULL syncs the log at every commit.
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
    # 16 MB of log between checkpoints give 15 % more events/s than the default of 4 MB. 40 MB give hardly more.
    "PRAGMA wal_autocheckpoint = 4000",
    # A slow reader delays checkpoints, and the log grows in that time. After the next checkpoint the log is cut to this
    # size, which is twice the log between two checkpoints. Without a limit it keeps its largest size for ever.
    "PRAGMA journal_size_limit = 33554432",
    # 64 MB of cache for the pages of the index on random values.
    "PRAGMA cache_size = -65536",
)

# Register bytes explicitly: otherwise the driver looks for an adapter for every value. That takes 0.8 µs a value, 5 µs
# an event, and the interpreter runs nothing else in that time.
driver.register_adapter(bytes, bytes)


def opened(path: Path) -> Any:
    """Return a connection of the driver alone, without a transaction of its own. Raises `driver.Error`."""
    # SQLite reads a name that begins with "file:" as a URI. An absolute path never does; the engines have one, too.
    return driver.connect(str(path.absolute()), isolation_level=None, timeout=BUSY_TIMEOUT)


def make_engine(path: Path, begin: str, *, pool_size: int) -> Engine:
    engine = create_engine(
        URL.create("sqlite", database=str(path)),
        module=driver,
        hide_parameters=True,  # an error's text may be logged, so it must not contain event data
        pool_size=pool_size,
        max_overflow=0,
        connect_args={"timeout": BUSY_TIMEOUT},
    )

    @event.listens_for(engine, "connect")
    def connected(connection: Any, record: Any) -> None:
        # The driver must not begin transactions by itself: it would begin them without the write lock.
        connection.isolation_level = None
        for pragma in _PRAGMAS:
            connection.execute(pragma)

    @event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine


@contextmanager
def transaction(engine: Engine, wait: bool) -> Iterator[Connection]:
    """Yield a connection that holds the write lock, and commit. Raises `LockedError`, `OutcomeUnknown`."""
    with engine.connect() as connection, raw_cursor(connection) as raw:
        try:
            if not wait:
                raw.execute("PRAGMA busy_timeout = 0")
            transaction = connection.begin()
        except DBAPIError as error:
            if result_code(error) == driver.SQLITE_BUSY:
                raise LockedError from error
            raise
        finally:
            if not wait:
                raw.execute(f"PRAGMA busy_timeout = {int(BUSY_TIMEOUT * 1000)}")
        with transaction:
            yield connection
            try:
                transaction.commit()
            except DBAPIError as error:
                # The log's last page may be on disk although the sync failed. After a crash the commit would be valid
                # then.
                if result_code(error) == driver.SQLITE_IOERR:
                    raise OutcomeUnknown("The disk failed while the store committed.") from error
                raise


@contextmanager
def raw_cursor(connection: Connection) -> Iterator[Any]:
    """Yield the driver's own cursor, for statements that must be fast, and close it.

    The garbage collector frees an open cursor that is in a reference cycle, and it may run in any thread. For that it
    waits until the connection has executed its statement. If it runs in the event loop's thread, all calls wait.
    """
    driver_connection = connection.connection.driver_connection
    if driver_connection is None:
        raise Unavailable("The store's connection is gone.")
    with closing(driver_connection.cursor()) as cursor:
        yield cursor


@contextmanager
def any_texts(connection: Connection) -> Iterator[None]:
    """Let the driver return texts that are not UTF-8. Each invalid byte becomes a lone surrogate."""
    driver_connection: Any = connection.connection.driver_connection
    usual = driver_connection.text_factory
    driver_connection.text_factory = lambda stored: stored.decode(errors="surrogateescape")
    try:
        yield
    finally:
        driver_connection.text_factory = usual
