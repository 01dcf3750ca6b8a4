"""CPU time and memory of processes and all their descendants, measured from outside. Only on Linux."""

from collections.abc import Iterable
from pathlib import Path

import psutil


def cpu_seconds(roots: Iterable[int]) -> float:
    """Return the CPU seconds so far, including those of children that have ended."""
    return sum(sum(process.cpu_times()[:4]) for process in _all(roots))


def reset_peaks(roots: Iterable[int]) -> None:
    """Reset the peaks of memory to the present resident size."""
    for process in _all(roots):
        Path(f"/proc/{process.pid}/clear_refs").write_text("5")


def peak_mib(roots: Iterable[int]) -> float:
    """Return the largest resident memory (VmHWM) of one of the processes, in MiB."""
    statuses = (Path(f"/proc/{process.pid}/status").read_text() for process in _all(roots))
    return max(int(status.partition("VmHWM:")[2].split()[0]) for status in statuses) / 1024


def _all(roots: Iterable[int]) -> list[psutil.Process]:
    processes = [psutil.Process(pid) for pid in roots]
    return [*processes, *(child for process in processes for child in process.children(recursive=True))]
