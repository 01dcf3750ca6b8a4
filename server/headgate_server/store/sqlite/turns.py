"""Turns to write: the processes that write to one SQLite file take turns.

SQLite has one writer at a time. A process that finds it locked tries again after pauses of up to 100 ms, so under load
the file is idle between two writers, and a process can wait for a long time while others write again and again. Here
they wait in the kernel, in order, and a turn passes on as soon as it ends.

A turn is a lock of the operating system (flock) on a file beside the database, held around a transaction. The kernel
frees it when its holder ends in any way. A second lock makes it fair: whoever waits for the turn holds the second lock
until the turn comes, so a process whose turn has ended cannot take the next one before it.

Turns are only an order. SQLite's own lock keeps the file correct, also if some program writes without a turn.
"""

import contextlib
import fcntl
import os
from pathlib import Path

from headgate_server.core.errors import SetupError

FILES = (".next", ".turn")
"""The ends of the names of the two files beside a database."""


class Turns:
    """The turns of one open store. Used by one thread at a time."""

    def __init__(self, path: Path):
        """Open the two files beside the database at `path`. Raises `SetupError`."""
        following, turn = FILES
        self._next = _opened(path, following)
        try:
            self._turn = _opened(path, turn)
        except BaseException:
            os.close(self._next)
            raise

    def try_take(self) -> bool:
        """Take the turn if it is free and nobody waits for it. Return whether it was taken."""
        if not _taken(self._next):
            return False
        try:
            return _taken(self._turn)
        finally:
            fcntl.flock(self._next, fcntl.LOCK_UN)

    def take(self) -> None:
        """Take the turn after those who wait already. This may take for ever."""
        fcntl.flock(self._next, fcntl.LOCK_EX)
        try:
            fcntl.flock(self._turn, fcntl.LOCK_EX)
        finally:
            fcntl.flock(self._next, fcntl.LOCK_UN)

    def end(self) -> None:
        """End the turn."""
        fcntl.flock(self._turn, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close the files. A turn ends, too."""
        os.close(self._next)
        os.close(self._turn)


def _opened(path: Path, suffix: str) -> int:
    file = path.with_name(path.name + suffix)
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise SetupError(f"The store's file {file} cannot be opened: {error.strerror}.") from error
    if os.geteuid() == 0:
        # As SQLite does with its log: after a command of root the server's user can still open the file.
        with contextlib.suppress(OSError):
            owner = path.stat()
            os.fchown(descriptor, owner.st_uid, owner.st_gid)
    return descriptor


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
