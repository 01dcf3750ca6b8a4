"""Installs the client with the oldest and the newest grpcio and protobuf, on each Python here, and runs programs.

    make test-client-versions

The programs are those of `exiting.py`. The server runs on this Python. Each environment is made anew, in
`.build/client-versions`.
"""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from headgate_client import Client
from headgate_server.core.model import Scope
from tests.support.service import ServerProcess, make_key
from tests.support.waiting import held

ROOT = Path(__file__).parents[2]
PLACE = ROOT / ".build" / "client-versions"
PYTHONS = ("3.11", "3.12", "3.13", "3.14")

OLDEST = ("grpcio==1.72.2", "protobuf==6.30.0", "googleapis-common-protos==1.70.0")
"""The lower bounds of pyproject.toml."""
MIXED = ("grpcio", "protobuf<7")
"""The newest grpcio beside the older protobuf."""
NEWEST = ("grpcio", "protobuf", "googleapis-common-protos")

WAYS = ("return", "SIGTERM", "fork", "exception")


class Case(NamedTuple):
    """A Python with packages."""

    python: str
    name: str
    packages: tuple[str, ...]


def pythons() -> list[tuple[str, str]]:
    """Return the Pythons of this machine: version and program."""
    found = []
    for version in PYTHONS:
        versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
        kept = sorted(versions.glob(f"{version}.*/bin/python{version}"))
        program = str(kept[-1]) if kept else shutil.which(f"python{version}")
        if program:
            found.append((version, program))
    return found


def install(case: Case, program: str) -> Path:
    """Make the environment of a case, and return its Python."""
    folder = PLACE / f"{case.python}-{case.name}"
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([program, "-m", "venv", folder], check=True)
    python = folder / "bin" / "python"
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, str(ROOT), *case.packages], check=True)
    return python


def versions(python: Path) -> str:
    """Return what is installed."""
    program = (
        "import importlib.metadata as m, sys;"
        "print(sys.version.split()[0], *(n + ' ' + m.version(n) for n in ('grpcio', 'protobuf')))"
    )
    return subprocess.run([python, "-c", program], capture_output=True, text=True, check=True).stdout.strip()


def run(python: Path, kind: str, way: str, address: str, store: str) -> str:
    """Run a program, and return what is wrong; nothing if all is well."""
    key = asyncio.run(make_key(store, f"w{uuid.uuid4().hex}", (Scope.ADMIN,)))
    # Since 3.12 Python warns of every fork of a process with threads.
    process = subprocess.Popen(
        [python, "-W", "error", "-W", "ignore::DeprecationWarning", "-m", "tests.client.exiting", kind, way],
        cwd=ROOT,
        env={**os.environ, "HEADGATE_URL": address, "HEADGATE_KEY": key},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    said = []
    if way == "SIGTERM":
        while not said or said[-1] != "ready\n":
            line = process.stdout.readline()
            if not line:
                break
            said.append(line)
        process.send_signal(signal.SIGTERM)
    try:
        out, errors = process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        process.kill()
        return "it hangs"
    lines = [line.split() for line in ("".join(said) + out).splitlines()]
    emitted = Counter((line[1], int(line[2])) for line in lines if line[0] == "emitted")
    with Client(address, api_key=key) as client:
        stored = Counter((event.source, event.data["n"]) for event in client.list(page_size=1000).events())
    expected = {"return": 0, "exception": 1, "SIGTERM": 143, "fork": 0}[way]
    if process.returncode != expected:
        return f"it ended with {process.returncode}: {errors[-2000:]}"
    return "" if emitted and emitted == stored else f"{len(emitted)} emitted, {len(stored)} stored: {errors[-2000:]}"


def main() -> int:
    """Run all cases. Return the exit code."""
    bad = 0
    with tempfile.TemporaryDirectory() as folder:
        store = f"sqlite:///{folder}/headgate.db"
        with held(ServerProcess(store)) as server:
            for version, program in pythons():
                for name, packages in (("oldest", OLDEST), ("mixed", MIXED), ("newest", NEWEST)):
                    python = install(Case(version, name, packages), program)
                    faults = []
                    for kind in ("Client", "AsyncClient"):
                        for way in WAYS:
                            if fault := run(python, kind, way, f"127.0.0.1:{server.port}", store):
                                faults.append(f"{kind}, {way}: {fault}")
                    print(f"{versions(python)}: {'; '.join(faults) or 'ok'}", flush=True)
                    bad += bool(faults)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
