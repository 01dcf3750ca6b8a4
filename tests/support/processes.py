"""Looks at processes. Linux only, like Headgate."""

import os
from pathlib import Path


def children(pid: int) -> dict[int, str]:
    """Return the children of a process: their ids and names."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        name, fields = _read(stat)
        if fields and int(fields[1]) == pid:
            found[int(stat.parent.name)] = name
    return found


def command_line(pid: int) -> list[str]:
    """Return the arguments of a process, as everybody on the machine can read them."""
    return Path(f"/proc/{pid}/cmdline").read_text().split("\0")


def is_gone(pid: int) -> bool:
    """Whether a process has ended. One that its parent has not waited for yet counts as ended."""
    _, fields = _read(Path(f"/proc/{pid}/stat"))
    return not fields or fields[0] == "Z"


def memory(pid: int) -> int:
    """Return the bytes of a process that are in memory (its resident set)."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def most_memory(pid: int) -> int:
    """Return the most bytes of a process that have been in memory at once."""
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


def _read(stat: Path) -> tuple[str, list[str]]:
    """Return the name and the fields after it, state and parent first; no fields if the process has ended."""
    try:
        head, _, rest = stat.read_text().rpartition(") ")
    except (FileNotFoundError, ProcessLookupError):
        return "", []
    return head.partition("(")[2], rest.split()
