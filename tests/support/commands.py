"""Commands in processes of their own, which need not import the service first: that takes a second of CPU time.

A server process (`multiprocessing`'s fork server, one for each worker of the run) imports the command line once. A
command runs in a fork of it, with its own arguments, environment, standard output and standard error.
"""

import atexit
import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from headgate_server.cli import commands

_SECONDS = 60.0
"""The longest time for a command."""

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(
    ["headgate_server.__main__", *sorted(f"headgate_server.cli.{name}" for name in set(commands._COMMANDS.values()))]
)


def run(arguments: tuple[str, ...], environment: Mapping[str, str]) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end. Raises `subprocess.TimeoutExpired` after a minute; the command has ended then, too."""
    with tempfile.TemporaryDirectory(prefix="headgate-command-") as folder:
        said = Path(folder, "stdout"), Path(folder, "stderr")
        for path in said:
            path.touch()
        process = _FORKS.Process(target=_become, args=(arguments, dict(environment), os.getcwd(), *map(str, said)))
        process.start()
        try:
            process.join(_SECONDS)
            if process.exitcode is None:
                raise subprocess.TimeoutExpired(arguments, _SECONDS)
        finally:
            process.kill()
            process.join()
        code = process.exitcode
        process.close()
        assert code is not None
        return subprocess.CompletedProcess(arguments, code, *(path.read_text() for path in said))


def _become(arguments: tuple[str, ...], environment: Mapping[str, str], folder: str, stdout: str, stderr: str) -> None:
    """Run the command in this process, as the console script does."""
    from headgate_server.__main__ import main

    for path, descriptor in ((stdout, 1), (stderr, 2)):
        opened = os.open(path, os.O_WRONLY | os.O_APPEND)
        os.dup2(opened, descriptor)
        os.close(opened)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["headgate", *arguments]
    try:
        main()
    finally:
        # A fork of the server ends without them.
        atexit._run_exitfuncs()
