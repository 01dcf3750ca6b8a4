"""The private folder of one Envoy. It is removed with Envoy, or at the next start if its owner was killed.

The owner holds a lock (flock) on the folder itself. The kernel releases the lock when the owner ends, in any way. So a
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

# Used if the path of the usual temporary folder is too long, or is not UTF-8, which Envoy needs.
SHORT = "/tmp"  # noqa: S108

# sun_path holds 107 bytes and a zero; the socket's name in the folder takes some of them.
LONGEST_FOLDER = 90


class PrivateFolder:
    """A folder that only this user can enter, with a path short enough for a Unix socket in it."""

    def __init__(self) -> None:
        """Make the folder. Raises `OSError` if it cannot be made."""
        self.path, self._lock = _made()

    def remove(self) -> None:
        """Remove the folder and its content. May be called again."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def remove_abandoned() -> None:
    """Remove this user's folders whose owner ended without removing them. Never fails."""
    for parent in {tempfile.gettempdir(), SHORT}:
        with contextlib.suppress(OSError), os.scandir(parent) as entries:
            for entry in entries:
                if entry.name.startswith(PREFIX):
                    _remove_if_abandoned(entry.path)


def _remove_if_abandoned(path: str) -> None:
    with contextlib.suppress(OSError), _opened(path) as folder:
        if os.fstat(folder).st_uid == os.geteuid():
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Safe while locked: the maker of a folder checks that it still exists after it takes the lock.
            shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def _opened(path: str) -> Iterator[int]:
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield folder
    finally:
        os.close(folder)


def _made() -> tuple[Path, int]:
    """Return a new folder and the descriptor that holds its lock."""
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
    """Lock a new folder. Return None if another process took it for abandoned before it was locked."""
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
        # A file system without locks: no process can lock it, so none takes it for abandoned either.
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
