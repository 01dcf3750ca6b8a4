"""The folder of a run's temporary files: in memory, where the machine has room for it.

A test commits some hundred times, and each commit waits for the disk. The tests kill processes and never the machine,
and what a process wrote survives its end on every file system. So a file system in memory shows the same faults, and
the run does not wait. `TMPDIR=/tmp make test` runs on a disk.
"""

import fcntl
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

_SHARED = Path("/dev/shm")
"""The file system in memory that Linux provides."""

_PREFIX = "hgt-"
"""Short, because the paths of sockets in the folder have at most 107 bytes."""

_ROOM = 4 << 30
"""Bytes that must be free, in that file system and in memory. A run uses a quarter of them at most."""

_locks: list[int] = []
"""The descriptor that holds the lock of this run's folder. The kernel releases it when the process ends, in any way."""


def prepare_run() -> None:
    """Choose the folder and name it in the environment, for all processes of the run. Leave a `TMPDIR` that is set."""
    if "TMPDIR" in os.environ or not _has_room():
        return
    _remove_abandoned()
    folder = tempfile.mkdtemp(prefix=_PREFIX, dir=_SHARED)
    _locks.append(os.open(folder, os.O_RDONLY | os.O_DIRECTORY))
    fcntl.flock(_locks[0], fcntl.LOCK_EX)
    # PostgreSQL runs as another user, and must reach its own folder.
    os.chmod(folder, 0o711)
    os.environ["TMPDIR"] = tempfile.tempdir = folder


def finish_run() -> None:
    """Remove the folder, if this process has made one."""
    while _locks:
        shutil.rmtree(os.environ["TMPDIR"], ignore_errors=True)
        os.close(_locks.pop())


def is_used() -> bool:
    """Whether this run's temporary files are in memory."""
    return Path(tempfile.gettempdir()).is_relative_to(_SHARED)


def _has_room() -> bool:
    """Whether there is room, and programs can be started from there: in a container that may be forbidden."""
    try:
        found = os.statvfs(_SHARED)
        meminfo = Path("/proc/meminfo").read_text()
    except OSError:
        return False
    if found.f_flag & os.ST_NOEXEC or not os.access(_SHARED, os.W_OK):
        return False
    (available,) = (int(line.split()[1]) << 10 for line in meminfo.splitlines() if line.startswith("MemAvailable:"))
    return min(found.f_bavail * found.f_frsize, available) >= _ROOM


def _remove_abandoned() -> None:
    """Remove the folders of runs that were killed: no process holds their locks."""
    for path in _SHARED.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(folder)
