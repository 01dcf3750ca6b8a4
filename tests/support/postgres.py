"""One real PostgreSQL for a run of the tests, shared by all its workers, and a fresh database for each test.

The run's controller (pytest itself, or xdist's) makes a folder and names it in the environment; the first worker that
needs the server starts its keeper; the controller stops it at the end, and without a controller it stops itself.
"""

import asyncio
import fcntl
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import asyncpg

from headgate_server.store.opening import open_store

_FOLDER = "HEADGATE_TEST_POSTGRES"
_CONTROLLER = "HEADGATE_TEST_CONTROLLER"
_TEMPLATE = "template_headgate"


def prepare_run() -> None:
    """In the controller, before the workers start: choose the folder. Nothing is started yet."""
    os.environ[_FOLDER] = tempfile.mkdtemp(prefix="headgate-pg-")
    os.environ[_CONTROLLER] = str(os.getpid())


def finish_run() -> None:
    """In the controller, after the workers ended: stop the server if it was started, and leave nothing behind."""
    folder = Path(os.environ.pop(_FOLDER))
    with suppress(FileNotFoundError, ProcessLookupError):
        _stop(os.pidfd_open(int((folder / "keeper.pid").read_text())))
    shutil.rmtree(folder, ignore_errors=True)


def _stop(keeper: int) -> None:
    """End the keeper behind this descriptor, and return when it has ended and its server with it."""
    signal.pidfd_send_signal(keeper, signal.SIGTERM)
    # Readable once the process has ended.
    ended = select.select([keeper], [], [], 30)[0]
    os.close(keeper)
    if not ended:
        raise TimeoutError("PostgreSQL did not stop within 30 s")


@contextmanager
def own_server(*settings: str) -> Iterator[str]:
    """Yield the URL of a database of a server of one's own, which runs with these settings (`fsync=off`)."""
    folder = Path(tempfile.mkdtemp(prefix="headgate-pg-"))
    keeper = os.pidfd_open(_start_keeper(folder, *settings))
    try:
        yield f"postgresql://postgres@/postgres?host={folder}"
    finally:
        _stop(keeper)
        shutil.rmtree(folder, ignore_errors=True)


def _start_keeper(folder: Path, *settings: str) -> int:
    """Start a server's keeper; return its process id once the server takes connections."""
    program = str(Path(__file__).with_name("postgres_keeper.py"))
    keeper = subprocess.Popen(
        [sys.executable, program, str(folder), os.environ[_CONTROLLER], *settings],
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    (folder / "keeper.pid").write_text(str(keeper.pid))
    # Not a child to be waited for: it may outlive this worker.
    keeper.returncode = 0
    assert keeper.stdout is not None
    with keeper.stdout as said:
        if said.readline() != b"ready\n":
            raise RuntimeError("PostgreSQL did not start; it has said why on standard error")
    return keeper.pid


def url(database: str) -> str:
    """Return the store URL of a database of the run's server, over its socket: no port that others could have taken."""
    return f"postgresql://postgres@/{database}?host={os.environ[_FOLDER]}"


def ensure_started() -> None:
    """Start the server and make the migrated template, unless another worker did. Blocks for about two seconds."""
    folder = Path(os.environ[_FOLDER])
    with (folder / "start.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (folder / "ready").exists():
            return
        if (folder / "keeper.pid").exists():
            raise RuntimeError("another worker tried to start PostgreSQL and failed")
        _start_keeper(folder)
        asyncio.run(_make_template())
        (folder / "ready").touch()


async def _make_template() -> None:
    await _execute(f"CREATE DATABASE {_TEMPLATE}")
    await (await open_store(url(_TEMPLATE))).close()


@asynccontextmanager
async def fresh_database(template: str = _TEMPLATE) -> AsyncIterator[str]:
    """Yield the URL of a new database: migrated, or empty with the template `template1`. It is dropped afterwards."""
    name = f"test_{uuid.uuid4().hex}"
    await _execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    try:
        yield url(name)
    finally:
        await _execute(f"DROP DATABASE {name} WITH (FORCE)")


async def _execute(statement: str) -> None:
    connection = await asyncpg.connect(url("postgres"))
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
