"""Finds and ends the processes that a run of the tests has left behind.

All processes of a run inherit a variable of the environment, also those whose parent has ended.
"""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

_MARK = "TESTS_OF_RUN"
"""No setting of Headgate's: the tests take those out of the environment."""

_SECONDS = 20.0
"""The time for the servers of `multiprocessing`: they end when they notice that their worker has ended."""


def prepare_run() -> None:
    """Mark this process's environment, before other processes start."""
    os.environ[_MARK] = f"{os.getpid()}-{time.monotonic_ns()}"


def unmarked() -> dict[str, str]:
    """Return the environment for a process that ends by itself after the run."""
    return {name: value for name, value in os.environ.items() if name != _MARK}


def finish_run() -> list[str]:
    """End the processes of the run that have not ended by themselves, and return their command lines."""
    deadline = time.monotonic() + _SECONDS
    while (found := _found()) and time.monotonic() < deadline:
        time.sleep(0.02)
    for pid in found:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return sorted(found.values())


def _found() -> dict[int, str]:
    """Return the command lines of the other processes of the run, by their ids."""
    mark, found = f"{_MARK}={os.environ[_MARK]}".encode(), {}
    for folder in Path("/proc").glob("[0-9]*"):
        # It may have ended meanwhile, or be somebody else's.
        with suppress(OSError):
            if int(folder.name) != os.getpid() and mark in (folder / "environ").read_bytes().split(b"\0"):
                words = (folder / "cmdline").read_bytes().split(b"\0")
                found[int(folder.name)] = b" ".join(words).decode(errors="replace").strip()
    return found
