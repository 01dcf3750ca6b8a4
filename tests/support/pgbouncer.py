"""A real PgBouncer in front of one of the run's servers, in transaction mode: only the statements of one transaction
are sure to reach the same server process.
"""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from tests.support.waiting import until_true

_CONFIG = """
[databases]
* = host={upstream} user=postgres
[pgbouncer]
unix_socket_dir = {folder}
listen_addr =
listen_port = 5432
auth_type = any
pool_mode = {mode}
default_pool_size = 3
logfile = {folder}/log
pidfile = {folder}/pid
"""


def program() -> str | None:
    """Return PgBouncer's program; None if it is not installed."""
    return shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


def _takes_connections(path: Path) -> bool:
    """Whether a Unix socket is there and listens. Between the two it refuses connections."""
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(path)) == 0


@contextmanager
def before(url: str, mode: str = "transaction") -> Iterator[str]:
    """Yield the URL of a PgBouncer in front of this URL's server."""
    wanted = program()
    assert wanted is not None
    parts = urlsplit(url)
    folder = Path(tempfile.mkdtemp(prefix="headgate-pgb-"))
    user = None if os.geteuid() else "nobody"  # it refuses to run as root
    config = folder / "pgbouncer.ini"
    config.write_text(_CONFIG.format(upstream=parse_qs(parts.query)["host"][0], folder=folder, mode=mode))
    if user is not None:
        shutil.chown(folder, user)
        config.chmod(0o644)
    process = subprocess.Popen([wanted, "-q", config], user=user, cwd=folder, start_new_session=True)
    try:
        until_true(lambda: _takes_connections(folder / ".s.PGSQL.5432") or process.poll() is not None)
        assert process.poll() is None, (folder / "log").read_text()
        yield f"postgresql://postgres@{parts.path}?host={folder}"
    finally:
        process.terminate()
        process.wait(20)
        shutil.rmtree(folder, ignore_errors=True)
