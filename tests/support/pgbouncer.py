"""A real PgBouncer in front of one of the run's servers, in transaction mode: only the statements of one transaction
reach the same server process. The next transaction of a client goes to another one, as soon as there are several.
"""

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import asyncpg

from tests.support.waiting import listens, until_true

_CONFIG = """
[databases]
* = host={upstream} user=postgres
[pgbouncer]
unix_socket_dir = {folder}
listen_addr =
listen_port = 5432
auth_type = any
pool_mode = {mode}
default_pool_size = {size}
server_round_robin = 1
logfile = {folder}/log
pidfile = {folder}/pid
"""

CONNECTIONS = 3
"""The pooler's connections to the server."""

# What a session keeps after its transaction. PgBouncer itself sets the first five names, to what each client asks for.
_SESSION = """
SELECT pg_backend_pid(),
       (SELECT array_agg('setting ' || name) FROM pg_settings
        WHERE source = 'session' AND name NOT IN
              ('client_encoding', 'DateStyle', 'TimeZone', 'standard_conforming_strings', 'application_name'))
       || (SELECT array_agg('statement ' || name) FROM pg_prepared_statements)
       || (SELECT array_agg('channel ' || name) FROM pg_listening_channels() AS name)
       || (SELECT array_agg('cursor ' || name) FROM pg_cursors WHERE is_holdable)
       || (SELECT array_agg('table ' || relname) FROM pg_class
           WHERE relnamespace = pg_my_temp_schema() AND relkind = 'r')
       || (SELECT array_agg('lock'::text) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid())
"""


def program() -> str | None:
    """Return PgBouncer's program; None if it is not installed."""
    return shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


@contextmanager
def before(url: str, mode: str = "transaction") -> Iterator[str]:
    """Yield the URL of a PgBouncer in front of this URL's server."""
    wanted = program()
    assert wanted is not None
    parts = urlsplit(url)
    folder = Path(tempfile.mkdtemp(prefix="headgate-pgb-"))
    user = None if os.geteuid() else "nobody"  # it refuses to run as root
    config = folder / "pgbouncer.ini"
    config.write_text(
        _CONFIG.format(upstream=parse_qs(parts.query)["host"][0], folder=folder, mode=mode, size=CONNECTIONS)
    )
    if user is not None:
        shutil.chown(folder, user)
        config.chmod(0o644)
    process = subprocess.Popen([wanted, "-q", config], user=user, cwd=folder, start_new_session=True)
    try:
        until_true(lambda: listens(folder / ".s.PGSQL.5432") or process.poll() is not None)
        assert process.poll() is None, (folder / "log").read_text()
        yield f"postgresql://postgres@{parts.path}?host={folder}"
    finally:
        process.terminate()
        process.wait(20)
        shutil.rmtree(folder, ignore_errors=True)


async def left_in_sessions(url: str) -> list[str]:
    """Return what the server processes behind a pooler have kept. It looks at each of them, and opens those that are
    not open yet.
    """
    async with contextlib.AsyncExitStack() as stack:
        seen = {}
        for _ in range(CONNECTIONS):
            # A transaction that has begun keeps its server process, so each of them gets another one.
            client = await asyncpg.connect(url, statement_cache_size=0)
            stack.push_async_callback(client.close)
            await stack.enter_async_context(client.transaction())
            pid, kept = await client.fetchrow(_SESSION)
            seen[pid] = kept or []
    assert len(seen) == CONNECTIONS
    return sorted(name for kept in seen.values() for name in kept)
