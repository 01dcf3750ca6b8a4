"""CPU time and memory of processes and all their descendants, measured from outside. Only on Linux."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

import psutil

_T = TypeVar("_T")


def cpu_seconds(roots: Iterable[int]) -> float:
    """Return the CPU seconds so far, including those of children that have ended."""
    return sum(_of_all(roots, lambda process: sum(process.cpu_times()[:4])))


def reset_peaks(roots: Iterable[int]) -> None:
    """Reset the peaks of memory to the present resident size."""
    _of_all(roots, lambda process: Path(f"/proc/{process.pid}/clear_refs").write_text("5"))


def peak_mib(roots: Iterable[int]) -> float:
    """Return the largest resident memory (VmHWM) of one of the processes, in MiB."""
    statuses = _of_all(roots, lambda process: Path(f"/proc/{process.pid}/status").read_text())
    # One that has ended and was not waited for yet has none.
    return max(int(after.split()[0]) for status in statuses if (after := status.partition("VmHWM:")[2])) / 1024


def _of_all(roots: Iterable[int], read: Callable[[psutil.Process], _T]) -> list[_T]:
    """Return what is read of each process. A database ends the processes of its connections at any moment, and then its
    own figures include theirs: so all are read again if one ended meanwhile.
    """
    processes = [psutil.Process(pid) for pid in roots]
    while True:
        try:
            return [read(one) for root in processes for one in (root, *root.children(recursive=True))]
        except (psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
            if not all(process.is_running() for process in processes):
                raise
