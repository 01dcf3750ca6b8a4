"""What processes cost, seen from outside: CPU time and memory of each with all below it. Linux alone."""

from collections.abc import Iterable
from pathlib import Path

import psutil


def cpu_seconds(roots: Iterable[int]) -> float:
    """Return the CPU seconds so far, those of children that have ended and were waited for included."""
    return sum(sum(process.cpu_times()[:4]) for process in _all(roots))


def reset_peaks(roots: Iterable[int]) -> None:
    """Let the peaks of memory begin anew at what is resident now."""
    for process in _all(roots):
        Path(f"/proc/{process.pid}/clear_refs").write_text("5")


def peak_mib(roots: Iterable[int]) -> float:
    """Return the most that one of the processes has had resident (VmHWM), in MiB."""
    statuses = (Path(f"/proc/{process.pid}/status").read_text() for process in _all(roots))
    return max(int(status.partition("VmHWM:")[2].split()[0]) for status in statuses) / 1024


def _all(roots: Iterable[int]) -> list[psutil.Process]:
    processes = [psutil.Process(pid) for pid in roots]
    return [*processes, *(child for process in processes for child in process.children(recursive=True))]
