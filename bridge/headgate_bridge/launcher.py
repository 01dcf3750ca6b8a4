"""How a child process is bound to the life of this one."""

import os
import sys
from pathlib import Path


def launcher() -> list[str]:
    """Returns the beginning of a command line: the program that follows dies with this process, however this dies.

    Start it from the main thread: to Linux the parent of a process is the thread that started it.
    """
    return [sys.executable, "-I", "-S", str(Path(__file__).with_name("launch.py")), str(os.getpid())]
