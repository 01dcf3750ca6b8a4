"""Starts child processes that the kernel kills when this process ends, and ends them."""

import asyncio
import contextlib
import os
import sys
from asyncio.subprocess import Process
from pathlib import Path


def launcher() -> list[str]:
    """Return the beginning of a command line. The kernel kills the program that follows when this process ends.

    Start it from the main thread: to Linux the parent of a process is the thread that started it.
    """
    return [sys.executable, "-I", "-S", str(Path(__file__).with_name("launch.py")), str(os.getpid())]


async def end(process: Process, patience: float) -> None:
    """Send SIGTERM to a child process, kill it after `patience` seconds, and return once it has ended.

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
