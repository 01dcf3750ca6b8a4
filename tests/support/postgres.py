"""Real PostgreSQLs for a run of the tests, shared by all its workers, and a fresh database for each test.

There are two servers: the newest, from a wheel, and the oldest that is supported, from the system's packages. The run's
controller (pytest itself, or xdist's) makes a folder and names it in the environment. The first worker that needs a
server starts its keeper. The controller stops the keeper at the end; without a controller it stops itself.
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
from headgate_server.store.postgres.durability import OLDEST_SERVER
from tests.support import leftovers, memoryfolder

_FOLDER = "HEADGATE_TEST_POSTGRES"
_CONTROLLER = "HEADGATE_TEST_CONTROLLER"
_TEMPLATE = "template_headgate"

NEWEST = "newest"
OLDEST = "oldest"

_SYSTEM = Path("/usr/lib/postgresql")
"""The folder of Debian's PostgreSQL packages, with a folder for each version."""


def prepare_run() -> None:
    """Choose the folder. Runs in the controller, before the workers start. Starts nothing yet."""
    os.environ[_FOLDER] = tempfile.mkdtemp(prefix="headgate-pg-")
    os.environ[_CONTROLLER] = str(os.getpid())


def finish_run() -> None:
    """Stop the server if it was started, and remove its files. Runs in the controller, after the workers ended."""
    folder = Path(os.environ.pop(_FOLDER))
    for keeper in folder.glob("*/keeper.pid"):
        with suppress(FileNotFoundError, ProcessLookupError):
            _stop(os.pidfd_open(int(keeper.read_text())))
    shutil.rmtree(folder, ignore_errors=True)


def system_programs() -> Path | None:
    """Return the folder of the oldest supported PostgreSQL among the system's packages; None without one."""
    found = {int(path.name): path for path in _SYSTEM.glob("*") if path.name.isdecimal()}
    supported = sorted(version for version in found if version >= OLDEST_SERVER)
    return found[supported[0]] / "bin" if supported else None


def _stop(keeper: int) -> None:
    """End the keeper behind this descriptor, and return when the keeper and its server have ended."""
    signal.pidfd_send_signal(keeper, signal.SIGTERM)
    # The descriptor is readable once the process has ended.
    ended = select.select([keeper], [], [], 30)[0]
    os.close(keeper)
    if not ended:
        raise TimeoutError("PostgreSQL did not stop within 30 s")


@contextmanager
def own_server(*settings: str, programs: Path | None = None, data: Path | None = None) -> Iterator[str]:
    """Yield the URL of a database of a server of one's own, which runs with these settings (`fsync=off`), from the
    wheel's programs or from these. `data` is a data folder to take, in place of a new one."""
    folder = Path(tempfile.mkdtemp(prefix="headgate-pg-"))
    if data is not None:
        shutil.move(data, folder / "data")
    keeper = os.pidfd_open(_start_keeper(folder, programs, *settings))
    try:
        yield f"postgresql://postgres@/postgres?host={folder}"
    finally:
        _stop(keeper)
        shutil.rmtree(folder, ignore_errors=True)


def _start_keeper(folder: Path, programs: Path | None, *settings: str) -> int:
    """Start a server's keeper; return its process id once the server accepts connections."""
    program = str(Path(__file__).with_name("postgres_keeper.py"))
    keeper = subprocess.Popen(
        [sys.executable, program, str(folder), os.environ[_CONTROLLER], str(programs or ""), *settings],
        stdout=subprocess.PIPE,
        env=leftovers.unmarked(),
        start_new_session=True,
    )
    (folder / "keeper.pid").write_text(str(keeper.pid))
    # Do not wait for this child: it may outlive this worker.
    keeper.returncode = 0
    assert keeper.stdout is not None
    with keeper.stdout as said:
        if said.readline() != b"ready\n":
            raise RuntimeError("PostgreSQL did not start; it has said why on standard error")
    return keeper.pid


def url(database: str, server: str = NEWEST) -> str:
    """Return the store URL of a database of one of the run's servers, over its socket: no port that others could have
    taken."""
    return f"postgresql://postgres@/{database}?host={os.environ[_FOLDER]}/{server}"


def ensure_started(server: str = NEWEST) -> None:
    """Start a server and make its migrated template, unless another worker did. Blocks for about two seconds."""
    run = Path(os.environ[_FOLDER])
    # A server that runs as another user must reach its own folder.
    run.chmod(0o711)
    folder = run / server
    with (run / f"{server}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (folder / "ready").exists():
            return
        if folder.exists():
            raise RuntimeError("another worker tried to start PostgreSQL and failed")
        folder.mkdir(mode=0o700)
        _start_keeper(folder, None if server == NEWEST else system_programs())
        asyncio.run(_make_template(server))
        (folder / "ready").touch()


async def _make_template(server: str) -> None:
    await _execute(f"CREATE DATABASE {_TEMPLATE}", server)
    await (await open_store(url(_TEMPLATE, server))).close()


@asynccontextmanager
async def fresh_database(template: str = _TEMPLATE, server: str = NEWEST) -> AsyncIterator[str]:
    """Yield the URL of a new database: migrated, or empty with the template `template1`. It is dropped afterwards."""
    name = f"test_{uuid.uuid4().hex}"
    await make_database(name, template, server)
    try:
        yield url(name, server)
    finally:
        await _execute(f"DROP DATABASE {name} WITH (FORCE)", server)


async def make_database(name: str, template: str = _TEMPLATE, server: str = NEWEST) -> None:
    """Make a database from a template that nothing uses."""
    # Copying files is cheaper than writing each page to the log, but makes a checkpoint, which waits for a disk.
    strategy = "FILE_COPY" if memoryfolder.is_used() else "WAL_LOG"
    await _execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY {strategy}", server)


async def _execute(statement: str, server: str) -> None:
    connection = await asyncpg.connect(url("postgres", server))
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
