"""The private folder of one Envoy, removed with it; of one whose owner was killed, at the next start.

The owner holds a lock (flock) on the folder itself. The kernel lets go of it when the owner ends, however it ends, so a
folder whose lock is free has no owner.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

PREFIX = "headgate-bridge-"

# Where the usual folder for temporary files has a path that is too long or is not UTF-8, which Envoy needs.
SHORT = "/tmp"  # noqa: S108

# sun_path holds 107 bytes and a zero; the name within the folder takes some of them.
LONGEST_FOLDER = 90


class PrivateFolder:
    """A folder that only this user can enter, with a path short enough for a Unix socket in it."""

    def __init__(self) -> None:
        """Makes the folder.

        :raises OSError: there is no place for it.
        """
        self.path, self._lock = _made()

    def remove(self) -> None:
        """Removes the folder with what is in it. May be called again."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def remove_abandoned() -> None:
    """Removes the folders of this user whose owner has ended without removing them. Never fails."""
    for parent in {tempfile.gettempdir(), SHORT}:
        with contextlib.suppress(OSError), os.scandir(parent) as entries:
            for entry in entries:
                if entry.name.startswith(PREFIX):
                    _remove_if_abandoned(entry.path)


def _remove_if_abandoned(path: str) -> None:
    with contextlib.suppress(OSError), _opened(path) as folder:
        if os.fstat(folder).st_uid == os.geteuid():
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Locked meanwhile: whoever makes a folder looks whether it is still there once the lock is taken.
            shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def _opened(path: str) -> Iterator[int]:
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield folder
    finally:
        os.close(folder)


def _made() -> tuple[Path, int]:
    """Returns a new folder and the descriptor that holds its lock."""
    parent = _usable(tempfile.gettempdir())
    while True:
        path = tempfile.mkdtemp(prefix=PREFIX, dir=parent)
        lock = _locked(path)
        if lock is not None:
            return Path(path), lock


def _usable(parent: str) -> str:
    path = os.path.join(parent, PREFIX + "x" * 8)
    try:
        short = len(path.encode()) <= LONGEST_FOLDER
    except UnicodeEncodeError:
        short = False
    return parent if short else SHORT


def _locked(path: str) -> int | None:
    """Locks a new folder; None if another process has taken it for an abandoned one before it was locked."""
    try:
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    except OSError:
        # A file system without locks: nobody can lock it there, so nobody takes it for abandoned either.
        return lock
    if _is(path, lock):
        return lock
    os.close(lock)
    return None


def _is(path: str, folder: int) -> bool:
    with contextlib.suppress(FileNotFoundError):
        there, opened = os.stat(path, follow_symlinks=False), os.fstat(folder)
        return stat.S_ISDIR(there.st_mode) and os.path.samestat(there, opened)
    return False
