"""CPU time of processes, from outside. Linux alone."""

import os
from pathlib import Path
from typing import NamedTuple

_TICKS = os.sysconf("SC_CLK_TCK")


class _Process(NamedTuple):
    parent: int
    ticks: int
    """Its own, and those of its children that have ended and were waited for."""


def tree_seconds(pid: int) -> float:
    """Return the CPU seconds of a process and all below it, so far. Raises `KeyError` if there is no such process."""
    processes = _processes()
    children: dict[int, list[int]] = {}
    for child, process in processes.items():
        children.setdefault(process.parent, []).append(child)
    waiting, ticks = [pid], 0
    while waiting:
        one = waiting.pop()
        ticks += processes[one].ticks
        waiting += children.get(one, ())
    return ticks / _TICKS


def _processes() -> dict[int, _Process]:
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                line = (folder / "stat").read_text()
            except (FileNotFoundError, ProcessLookupError):
                # It has ended meanwhile.
                continue
            # After the name, which may hold anything: proc_pid_stat(5), from its third field on.
            fields = line.rpartition(")")[2].split()
            found[int(folder.name)] = _Process(int(fields[1]), sum(map(int, fields[11:15])))
    return found
