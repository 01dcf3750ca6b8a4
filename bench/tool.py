"""Load tools that others wrote: found or installed, run to their end, their CPU time taken."""

import asyncio
import os
import resource
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

_PATIENCE = 120.0
"""Seconds that a tool may take: several times what it is asked for. After that it is ended, and the run with it."""
_GHZ = "github.com/bojand/ghz/cmd/ghz@v0.120.0"


class ToolMissing(Exception):
    """A load tool is not there and could not be installed: one line, fit to be shown as it is."""


class Ran(NamedTuple):
    """What several runs of a tool at the same time have written to standard output, and the CPU seconds of all."""

    outputs: list[str]
    cpu_seconds: float


async def run(commands: Sequence[Sequence[str]], environment: Mapping[str, str]) -> Ran:
    """Run these at the same time, to their ends. Raises `RuntimeError` with its output if one fails or hangs."""
    before = _spent()
    outputs = await asyncio.gather(*(asyncio.to_thread(_run, command, environment) for command in commands))
    # All children of this process that ended meanwhile; the other parts of a run do not end in the middle of it.
    return Ran(outputs, _spent() - before)


def _run(command: Sequence[str], environment: Mapping[str, str]) -> str:
    try:
        done = subprocess.run(
            command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=_PATIENCE, check=False
        )
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"{Path(command[0]).name} did not end within {_PATIENCE:g} s") from None
    if done.returncode:
        raise RuntimeError(f"{Path(command[0]).name} ended with {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout


def _spent() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def wrk() -> str:
    """Return the path of wrk, which is installed from Debian if it is missing. Raises `ToolMissing`."""
    if found := shutil.which("wrk"):
        return found
    install = ["apt-get", "install", "--yes", "--quiet", "wrk"]
    if not _installed(install) or not (found := shutil.which("wrk")):
        raise ToolMissing(f"wrk is missing, and `{' '.join(install)}` did not bring it: run it as root")
    return found


def ghz() -> str:
    """Return the path of ghz: the one on PATH, or Go's own, where it is installed if it is missing. Raises
    `ToolMissing`.
    """
    if found := shutil.which("ghz"):
        return found
    go = shutil.which("go")
    if go is None:
        raise ToolMissing(f"ghz is missing, and so is Go, which could install it: `go install {_GHZ}`")
    path = subprocess.run([go, "env", "GOPATH"], capture_output=True, text=True, check=True).stdout.strip()
    program = Path(path, "bin", "ghz")
    if not program.exists() and not _installed([go, "install", _GHZ]):
        raise ToolMissing(f"ghz is missing, and `go install {_GHZ}` did not bring it")
    return str(program)


def _installed(command: Sequence[str]) -> bool:
    """Whether this ended well; what it says goes to standard error."""
    try:
        return subprocess.run(command, stdout=2, check=False).returncode == 0
    except FileNotFoundError:
        return False
