"""Copies of an SQLite file, made while other processes write it, and checks of such a copy."""

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from pysqlite3 import dbapi2 as driver

from headgate_server.core.errors import SetupError
from headgate_server.store.sqlite.connection import opened
from headgate_server.store.sqlite.errors import cause

_STEP = 2_000
"""Pages that are copied between two looks at whether to stop: 8 MB."""

_LOOK = 1_000_000
"""Steps of SQLite's machine between two looks at whether to stop a check: some milliseconds."""

SIDECARS = ("-wal", "-shm", "-journal")
"""What SQLite keeps beside a database, by the end of its name."""


class Stopped(Exception):
    """Someone asked for the end of the work."""


def copy(source: Path, target: Path, stop: threading.Event) -> None:
    """Write the state of the database `source` at this moment into the new file `target`. Blocks.

    Other processes may write meanwhile: the transaction that is held here keeps the state. In that time the
    write-ahead log grows, because it cannot be written into the database. `target` is not synced to the disk. Raises
    `SetupError`, and `Stopped` once `stop` is set.
    """

    def copied(*_: Any) -> None:
        if stop.is_set():
            raise Stopped

    with _connected(source) as reading, _connected(target) as writing:
        # A copy that is not whole has no value, so it needs no journal.
        writing.execute("PRAGMA journal_mode = OFF")
        writing.execute("PRAGMA synchronous = OFF")
        reading.execute("BEGIN")
        reading.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        reading.backup(writing, pages=_STEP, progress=copied)
        reading.execute("ROLLBACK")


def faults(path: Path, stop: threading.Event) -> list[str]:
    """Return what SQLite finds wrong with a database: pages, rows and indexes that do not fit. Blocks.

    Raises `SetupError` if it is no database, and `Stopped` once `stop` is set.
    """
    with _connected(path) as connection:
        connection.set_progress_handler(stop.is_set, _LOOK)
        try:
            found = [str(row[0]) for row in connection.execute("PRAGMA integrity_check(10)")]
        except driver.OperationalError:
            if stop.is_set():
                raise Stopped from None
            raise
    return [] if found == ["ok"] else found


def close_up(path: Path) -> None:
    """Turn a database that no process has open into one file without a write-ahead log. Raises `SetupError`."""
    with _connected(path) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")


@contextmanager
def _connected(path: Path) -> Iterator[Any]:
    try:
        with closing(opened(path)) as connection:
            yield connection
    except driver.Error as error:
        raise SetupError(f"The database {path} cannot be copied or checked: {cause(error)}.") from error
