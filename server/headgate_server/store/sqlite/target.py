"""The file of an SQLite store: its permissions, and the lock of the process that serves it."""

import fcntl
import os
from pathlib import Path

from headgate_server.core.errors import SetupError


def prepare_file(path: Path) -> None:
    """Create the database's folder (0700) and file (0600) if they are missing. Only their owner has access."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Do not open an existing file here: closing it would drop the locks that SQLite holds on it in this process.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        if not path.parent.is_dir():
            raise SetupError(f"The store's folder {path.parent} is not a folder.") from None
        check_file(path)
    except OSError as error:
        raise SetupError(f"The store {path} cannot be created: {error.strerror}.") from error


def check_file(path: Path) -> None:
    """Raise `errors.SetupError` unless there is a file that can be read and written."""
    if not os.path.lexists(path):
        raise SetupError(f"There is no store {path}.")
    if not os.access(path, os.R_OK | os.W_OK) or path.is_dir():
        raise SetupError(f"The store {path} is not a file that can be read and written.")


def take_lock(path: Path) -> int:
    """Return a descriptor with the lock on serving the database. The lock is held until the descriptor is closed or
    the process ends.
    """
    lock_path = path.with_name(path.name + ".lock")
    try:
        lock = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise SetupError(f"The lock file {lock_path} cannot be created: {error.strerror}.") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        holder = os.read(lock, 20).decode("ascii", "replace").strip()
        os.close(lock)
        raise SetupError(
            f"Another process ({holder or 'unknown'}, see {lock_path}) serves the store {path}. "
            "Only one process at a time can serve an SQLite store; several need PostgreSQL."
        ) from None
    os.ftruncate(lock, 0)
    os.write(lock, f"{os.getpid()}\n".encode())
    return lock
