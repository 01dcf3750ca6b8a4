"""How a child process is bound to the life of this one, and how it is ended."""

import asyncio
import contextlib
import os
import sys
from asyncio.subprocess import Process
from pathlib import Path


def launcher() -> list[str]:
    """Return the beginning of a command line: the program that follows dies with this process, however this dies.

    Start it from the main thread: to Linux the parent of a process is the thread that started it.
    """
    return [sys.executable, "-I", "-S", str(Path(__file__).with_name("launch.py")), str(os.getpid())]


async def end(process: Process, patience: float) -> None:
    """Ask a child process to end with SIGTERM, kill it after `patience` seconds, and return once it is gone.

    The process may have ended by itself.
    """
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), patience)
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
