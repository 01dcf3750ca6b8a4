"""The file of an SQLite store: its permissions, and the lock that says whether it is served."""

import fcntl
import os
from contextlib import closing
from pathlib import Path

from pysqlite3 import dbapi2 as driver

from headgate_server.core.errors import SetupError
from headgate_server.store.sqlite.connection import opened
from headgate_server.store.sqlite.errors import cause


def prepare_file(path: Path) -> None:
    """Create the database's folder (0700) and file (0600) if they are missing. Only their owner has access."""
    try:
        make_folder(path.parent)
        # Do not open an existing file here: closing it would drop the locks that SQLite holds on it in this process.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        check_file(path)
    except OSError as error:
        raise SetupError(f"The store {path} cannot be created: {error.strerror}.") from error


def make_folder(path: Path) -> None:
    """Create a folder (0700) and those above it, if they are missing. A power cut does not take them. Raises
    `OSError`.
    """
    missing = [one for one in (path, *path.parents) if not one.exists()]
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    for made in reversed(missing):
        sync(made.parent)


def sync(path: Path) -> None:
    """Write a file or a folder to the disk. Raises `OSError`."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_database(path: Path) -> None:
    """Raise `errors.SetupError` unless SQLite can read a file. Nothing is created beside another kind of file."""
    try:
        with closing(opened(path)) as connection:
            connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    except driver.Error as error:
        raise SetupError(f"The store {path} cannot be opened: {cause(error)}.") from error


def check_file(path: Path) -> None:
    """Raise `errors.SetupError` unless there is a file that can be read and written."""
    if path.parent.exists() and not path.parent.is_dir():
        raise SetupError(f"The store's folder {path.parent} is not a folder.")
    if not os.path.lexists(path):
        raise SetupError(f"There is no store {path}.")
    if not os.access(path, os.R_OK | os.W_OK) or path.is_dir():
        raise SetupError(f"The store {path} is not a file that can be read and written.")


def mark_served(path: Path) -> int:
    """Return a descriptor with the mark of a process that serves the database. Several processes can have it. It ends
    when the descriptor is closed or the process ends. Raises `SetupError` if another process has the file alone.
    """
    lock = _opened(path)
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise SetupError(
            f"Another process replaces the store {path} and allows no server meanwhile (see {_lock_of(path)})."
        ) from None
    return lock


def take_alone(path: Path) -> int:
    """Return a descriptor with which no process can begin to serve the database, until it is closed or the process
    ends. Raises `SetupError` if a process serves it.
    """
    lock = _opened(path)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise SetupError(f"A process serves the store {path} (see {_lock_of(path)}): stop it first.") from None
    return lock


def _lock_of(path: Path) -> Path:
    # Beside the file itself: whoever opens it by another link must find the same lock.
    path = path.resolve()
    return path.with_name(path.name + ".lock")


def _opened(path: Path) -> int:
    try:
        return os.open(_lock_of(path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise SetupError(f"The lock file {_lock_of(path)} cannot be created: {error.strerror}.") from error
