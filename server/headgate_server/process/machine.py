"""What this process may use of its machine: processors and memory, also within a container."""

import math
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_PROCESS = Path("/proc/self/cgroup")


def processors() -> int:
    """Return how many processors this process may use, at least 1: those that it may run on, and its cgroups' quota of
    processor time, rounded up.
    """
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        count = os.cpu_count() or 1
    return max(1, math.ceil(min([count, *cpu_quotas(_groups())])))


def memory() -> int:
    """Return how many bytes of memory this process may use: those of the machine, or its cgroups' limit."""
    return min([os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), *memory_limits(_groups())])


def cpu_quotas(groups: Iterable[Path]) -> Iterator[float]:
    """Yield the quotas of these folders of cgroups, in processors."""
    for group in groups:
        with suppress(OSError, ValueError, ZeroDivisionError):
            quota, period = (group / "cpu.max").read_text().split()
            yield int(quota) / int(period)  # without a quota it is the word "max"


def memory_limits(groups: Iterable[Path]) -> Iterator[int]:
    """Yield the limits of these folders of cgroups, in bytes."""
    for group in groups:
        with suppress(OSError, ValueError):
            yield int((group / "memory.max").read_text())


def _groups() -> Iterator[Path]:
    """Yield the folders of this process's cgroups (version 2), its own first. A limit of any of them applies."""
    try:
        own = next(line for line in _PROCESS.read_text().splitlines() if line.startswith("0::"))
    except (OSError, StopIteration):
        return
    group = _CGROUPS / own.removeprefix("0::").strip("/")
    yield group
    yield from (parent for parent in group.parents if parent.is_relative_to(_CGROUPS))
