"""The spool: buffered events in an SQLite file, from `emit` until their outcome is known.

One process has a file at a time: it holds a lock on the file beside it, `FILE.lock`, which the system frees when the
process ends. Within the process one connection does everything, so SQLite's own locks are never shared.
"""

import contextlib
import fcntl
import os
import sqlite3
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

from headgate_client.core.errors import SpoolError, SpoolInUse
from headgate_client.kept import keep

_APPLICATION = 0x48475350
"""SQLite's `application_id` of our files: "HGSP"."""
_VERSION = 1
_PAGE_BYTES = 8 << 20
"""Bytes that are read at once."""
_SUFFIX = ".db"

_SCHEMA = """
CREATE TABLE events (row INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL, event BLOB NOT NULL) STRICT
"""


class Spool:
    """Events on disk, in the order in which they were emitted. The caller's lock protects it.

    What `add` returned MUST survive kill -9 of the process; with `fsync` also a power cut.
    """

    def __init__(self, path: str | os.PathLike[str], *, fsync: bool = True):
        """`path` is a file, or a folder (it exists, or the text ends with a slash) where each process has its own."""
        text = os.fspath(path)
        self._folder = Path(text) if text.endswith("/") or Path(text).is_dir() else None
        self.path = Path(text)
        self._fsync = fsync
        self._lock = -1
        self._connection: sqlite3.Connection | None = None
        self._loaded = 0

    def open(self) -> None:
        """Take the file. Raises `SpoolInUse` if another process has it, and `SpoolError` if it is no spool."""
        if self._lock >= 0:
            return
        with _told(self.path):
            if self._folder is None:
                self._lock = _locked(self.path)
            else:
                self._take_of_folder(self._folder)
            try:
                self._connect()
                if self._folder is not None:
                    self._adopt(self._folder)
            except BaseException:
                self.close()
                raise

    def _take_of_folder(self, folder: Path) -> None:
        """Take the first file of the folder that no process has, or a new one."""
        folder.mkdir(parents=True, exist_ok=True)
        for path in [*sorted(folder.glob(f"*{_SUFFIX}")), folder / f"{uuid.uuid4().hex}{_SUFFIX}"]:
            with contextlib.suppress(SpoolInUse):
                self._lock = _locked(path)
                self.path = path
                return
        raise SpoolInUse(f"all files of {folder} are in use")

    def _adopt(self, folder: Path) -> None:
        """Move the events of files that no process has any more into this one."""
        for path in sorted(folder.glob(f"*{_SUFFIX}")):
            if path == self.path:
                continue
            other = Spool(path, fsync=self._fsync)
            with contextlib.suppress(SpoolInUse):
                other.open()
                try:
                    while rows := other.load(1_000):
                        self.add_all([(key, event) for _, event, key in rows])
                        other.remove([row for row, _, _ in rows])
                finally:
                    other.close()

    def _connect(self) -> sqlite3.Connection:
        if self._lock < 0:
            raise SpoolError(f"the spool {self.path} is closed")
        if self._connection is None:
            # SQLite reads a name that begins with "file:" as a URI. An absolute path never does.
            path = os.path.abspath(self.path)
            connection = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
            try:
                _prepare(connection, self.path, fsync=self._fsync)
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def backlog(self, overhead: int) -> tuple[int, int]:
        """Return the number of the events on disk, and their bytes with so many for each."""
        with _told(self.path):
            count, size = self._connect().execute("SELECT count(*), total(length(event)) FROM events").fetchone()
        return count, int(size) + count * overhead

    def add(self, event: bytes, key: str) -> int:
        """Write an event durably, and return its row."""
        with _told(self.path):
            row = self._connect().execute("INSERT INTO events (key, event) VALUES (?, ?)", (key, event)).lastrowid
        return int(row or 0)

    def add_all(self, events: Sequence[tuple[str, bytes]]) -> list[int]:
        """Write several events durably, all or none, at the cost of one. Return their rows."""
        with _told(self.path), _transaction(self._connect()) as connection:
            insert = "INSERT INTO events (key, event) VALUES (?, ?)"
            return [int(connection.execute(insert, event).lastrowid or 0) for event in events]

    def skip(self, row: int) -> None:
        """Do not load this row, nor those before it: the caller has it already."""
        self._loaded = row

    def load(self, most: int) -> list[tuple[int, bytes, str]]:
        """Return the next rows that were not loaded yet: row, event and key. One at least, if there is one."""
        rows: list[tuple[int, bytes, str]] = []
        size = 0
        with _told(self.path):
            found = self._connect().execute(
                "SELECT row, event, key FROM events WHERE row > ? ORDER BY row LIMIT ?", (self._loaded, most)
            )
            for row, event, key in found:
                rows.append((row, event, key))
                size += len(event)
                if size >= _PAGE_BYTES:
                    break
        if rows:
            self._loaded = rows[-1][0]
        return rows

    def remove(self, rows: Sequence[int]) -> None:
        """Remove events whose outcome is known."""
        with _told(self.path), _transaction(self._connect()) as connection:
            connection.executemany("DELETE FROM events WHERE row = ?", [(row,) for row in rows])

    def close(self) -> None:
        """Leave the file to the next process."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def before_fork(self) -> None:
        """Close the connection, and keep the lock. The next use opens it again."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def after_fork_in_child(self) -> None:
        """Leave the file to the parent."""
        if self._connection is not None:
            # A fork without our hook: closing it here would remove files that the parent uses.
            keep(self._connection)
            self._connection = None
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1
        self._loaded = 0


def _locked(path: Path) -> int:
    """Return the descriptor that holds the lock of a spool's file."""
    descriptor = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise SpoolInUse(f"another process uses the spool {path}") from None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _prepare(connection: sqlite3.Connection, path: Path, *, fsync: bool) -> None:
    """Set the connection up, and make the table in a new file."""
    # An exclusive WAL needs no shared memory, and the write-ahead log makes a commit one sequential write.
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    (objects,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if objects and application != _APPLICATION:
        raise SpoolError(f"{path} is a database of another program")
    if objects and version != _VERSION:
        raise SpoolError(f"the spool {path} has the version {version}; this package reads version {_VERSION}")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA synchronous = {'FULL' if fsync else 'NORMAL'}")
    if not objects:
        connection.execute("BEGIN EXCLUSIVE")
        connection.execute(f"PRAGMA application_id = {_APPLICATION}")
        connection.execute(f"PRAGMA user_version = {_VERSION}")
        connection.execute(_SCHEMA)
        connection.execute("COMMIT")


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """Commit what a block does, or nothing of it."""
    connection.execute("BEGIN")
    try:
        yield connection
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    """Raise `SpoolError` for what SQLite and the file system raise."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise SpoolError(f"the spool {path}: {error}") from error
