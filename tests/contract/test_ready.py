"""`ping` returns only if an event can be stored durably, and leaves nothing visible."""

import asyncio
import resource
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy import Connection

from headgate_server.core.errors import Unavailable
from headgate_server.ingest.committer import Committer
from headgate_server.ingest.readiness import Readiness
from headgate_server.process.causes import cause_of
from headgate_server.store import Probe, Store
from headgate_server.store.database import not_durable
from headgate_server.store.opening import open_store
from headgate_server.store.sqlite.database import SqliteDatabase
from tests.support import database
from tests.support.drafts import append, draft, submission

pytestmark = pytest.mark.bounds

STATES = {"disk full": "53100", "no privilege": "42501", "read-only": "25006", "out of memory": "53200"}


@asynccontextmanager
async def failing(url: str, state: str, on: str = "INSERT ON events") -> AsyncIterator[None]:
    """Make every write of this kind fail with an SQLSTATE, for the length of the block."""
    body = f"BEGIN RAISE EXCEPTION 'secret value' USING ERRCODE = '{state}'; END"
    await database.execute(url, f"CREATE FUNCTION boom() RETURNS trigger LANGUAGE plpgsql AS $$ {body} $$")
    await database.execute(url, f"CREATE TRIGGER boom BEFORE {on} FOR EACH STATEMENT EXECUTE FUNCTION boom()")
    try:
        yield
    finally:
        await database.execute(url, "DROP FUNCTION boom CASCADE")


async def test_it_leaves_nothing_to_see(store: Store, store_url: str, workspace: int) -> None:
    await append(store, workspace, draft())
    before = await store.ledgers.head(workspace)
    for thorough in (False, True, False):
        await store.probe.ping(thorough=thorough)
    assert await database.execute(store_url, "SELECT count(*) FROM events") == [(1,)]
    assert await store.ledgers.head(workspace) == before
    # One row, which is deleted like an answer when it is no longer written.
    probes = "SELECT workspace_id, scope, length(answer) FROM answers"
    assert await database.execute(store_url, probes) == [(0, "probe", 0)]
    await database.execute(store_url, "UPDATE answers SET created_at = 0")
    assert await store.answers.purge() == 1


async def test_many_at_once_from_two_processes(store: Store, store_url: str) -> None:
    other = await open_store(store_url)
    try:
        await asyncio.gather(*(one.probe.ping() for one in (store, other) * 5))
    finally:
        await other.close()


@pytest.mark.parametrize("on", ["INSERT ON events", "UPDATE ON heads", "INSERT ON answers"])
@pytest.mark.parametrize("state", STATES.values(), ids=STATES)
async def test_postgres_that_refuses_what_an_append_does(postgres_url: str, state: str, on: str) -> None:
    store = await open_store(postgres_url)
    try:
        await store.probe.ping()
        async with failing(postgres_url, state, on):
            for thorough in (False, True):
                with pytest.raises(Unavailable) as refusal:
                    await store.probe.ping(thorough=thorough)
                assert cause_of(refusal.value)["sqlstate"] == state
                assert "secret" not in str(cause_of(refusal.value)) + str(refusal.value)
        await store.probe.ping()
    finally:
        await store.close()


@pytest.mark.parametrize("privilege", ["INSERT ON events", "UPDATE ON heads", "INSERT ON answers", "UPDATE ON answers"])
async def test_postgres_whose_role_may_not_write(postgres_url: str, privilege: str) -> None:
    """The probe finds one missing privilege of a role that has all others."""
    store = await open_store(postgres_url)
    name = postgres_url.partition("@/")[2].partition("?")[0]
    role = f"writer_{name}"
    everything = f"SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}"
    await database.execute(postgres_url, f"CREATE ROLE {role} LOGIN SUPERUSER")
    limited = await open_store(f"postgresql://{role}@{postgres_url.partition('@')[2]}")
    try:
        await database.execute(postgres_url, f"GRANT {everything}")
        await database.execute(postgres_url, f"ALTER ROLE {role} NOSUPERUSER")
        await limited.probe.ping()
        await database.execute(postgres_url, f"REVOKE {privilege} FROM {role}")
        with pytest.raises(Unavailable) as refusal:
            await limited.probe.ping()
        assert cause_of(refusal.value) == {
            "error": "Unavailable",
            "reason": "STORE_UNAVAILABLE",
            "cause": "InsufficientPrivilegeError",
            "sqlstate": "42501",
            "condition": "insufficient_privilege",
        }
    finally:
        await limited.close()
        await store.close()
        await database.execute(postgres_url, f"DROP OWNED BY {role}")
        await database.execute(postgres_url, f"DROP ROLE {role}")


async def _pragma(store: Store, pragma: str) -> None:
    """Set a pragma of the connection that writes."""

    def run() -> None:
        with store.database._writer.connect() as connection:
            plain = connection.connection.driver_connection
            assert plain is not None
            plain.cursor().execute(f"PRAGMA {pragma}")

    await store.database._writes.run(run)


async def test_sqlite_that_may_not_grow(tmp_path: Path) -> None:
    store = Store(await SqliteDatabase.open(tmp_path / "h.db"))
    try:
        workspace = (await store.directory.create_workspace("acme")).id
        await store.probe.ping()
        await _pragma(store, "max_page_count = 1")  # as many as there are
        for thorough in (False, True):
            fill = draft("k", {"text": "x" * 100_000})
            with pytest.raises(Unavailable) as refusal:
                await append(store, workspace, fill)
            assert cause_of(refusal.value)["sqlite"] == "SQLITE_FULL"
            if thorough:
                with pytest.raises(Unavailable) as refusal:
                    await store.probe.ping(thorough=thorough)
                assert cause_of(refusal.value)["sqlite"] == "SQLITE_FULL"
        await _pragma(store, "max_page_count = 100000")
        await store.probe.ping(thorough=True)
        await append(store, workspace, fill)
    finally:
        await store.close()


@pytest.fixture
def file_limit() -> Iterator[Callable[[int], None]]:
    """Return a function that bounds the size of files that this process writes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_sqlite_whose_log_cannot_grow(tmp_path: Path, file_limit: Callable[[int], None]) -> None:
    store = Store(await SqliteDatabase.open(tmp_path / "h.db"))
    try:
        await store.probe.ping()
        file_limit((tmp_path / "h.db-wal").stat().st_size)
        with pytest.raises(Unavailable) as refusal:
            await store.probe.ping()
        assert cause_of(refusal.value)["sqlite"].startswith("SQLITE_IOERR")
        file_limit(resource.RLIM_INFINITY)
        await store.probe.ping()
    finally:
        await store.close()


@pytest.mark.parametrize("pragma", ["synchronous = OFF", "synchronous = NORMAL"])
async def test_sqlite_that_does_not_sync(tmp_path: Path, pragma: str) -> None:
    store = Store(await SqliteDatabase.open(tmp_path / "h.db"))
    try:
        await _pragma(store, pragma)
        with pytest.raises(Unavailable, match="synchronous") as refusal:
            await store.probe.ping()
        assert refusal.value.reason == "STORE_NOT_DURABLE"
        await _pragma(store, "synchronous = FULL")
        await store.probe.ping()
    finally:
        await store.close()


@pytest.mark.parametrize("level", ["DATABASE {name}", "ROLE {role} IN DATABASE {name}"])
async def test_postgres_set_to_lose_what_it_acknowledges(postgres_url: str, level: str) -> None:
    """The service detects it while it runs, and its own events are durable nevertheless."""
    store = await open_store(postgres_url)
    connection = await asyncpg.connect(postgres_url)
    name, role = await connection.fetchrow("SELECT current_database(), session_user")
    where = level.format(name=name, role=role)
    try:
        workspace = (await store.directory.create_workspace("acme")).id
        await connection.execute(f"ALTER {where} SET synchronous_commit = off")
        with pytest.raises(Unavailable, match="synchronous_commit=off") as refusal:
            await store.probe.ping()
        assert refusal.value.reason == "STORE_NOT_DURABLE"
        await _end_connections(connection)
        await _note_commits(connection)
        await append(store, workspace, draft())
        assert await connection.fetch("SELECT DISTINCT level FROM noted") == [("on",)]
        with pytest.raises(Unavailable, match="synchronous_commit=off"):
            await store.probe.ping()
        await connection.execute(f"ALTER {where} RESET synchronous_commit")
        await _end_connections(connection)
        await store.probe.ping()
    finally:
        await connection.execute(f"ALTER {where} RESET synchronous_commit")
        await connection.close()
        await store.close()


async def test_a_stricter_setting_stays(postgres_url: str) -> None:
    connection = await asyncpg.connect(postgres_url)
    name = await connection.fetchval("SELECT current_database()")
    await connection.execute(f"ALTER DATABASE {name} SET synchronous_commit = remote_apply")
    store = await open_store(postgres_url)
    try:
        workspace = (await store.directory.create_workspace("acme")).id
        await _note_commits(connection)
        await append(store, workspace, draft())
        assert await connection.fetch("SELECT DISTINCT level FROM noted") == [("remote_apply",)]
        await store.probe.ping()
    finally:
        await connection.close()
        await store.close()


async def _end_connections(connection: asyncpg.Connection) -> None:
    """End the pool's connections, which keep the settings of their start."""
    others = "datname = current_database() AND pid <> pg_backend_pid()"
    await connection.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}")


async def _note_commits(connection: asyncpg.Connection) -> None:
    """Record, from now on, how durably each transaction commits that stores an event."""
    await connection.execute(
        """
        CREATE TABLE noted (level text);
        CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN INSERT INTO noted VALUES (current_setting('synchronous_commit')); RETURN NULL; END $$;
        CREATE TRIGGER note AFTER INSERT ON events FOR EACH STATEMENT EXECUTE FUNCTION note();
        """
    )


async def test_a_commit_that_failed_shows_at_once_and_one_that_succeeded_costs_no_probe(
    store: Store, store_url: str, workspace: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    probes: list[bool] = []
    ping = Probe.ping

    async def counted(self: Probe, *, thorough: bool = False) -> None:
        probes.append(thorough)
        await ping(self, thorough=thorough)

    monkeypatch.setattr(Probe, "ping", counted)
    now = 0.0
    readiness = Readiness(store.probe, lambda: now)
    committer = Committer(store.database, readiness=readiness)
    await asyncio.gather(*(readiness.check() for _ in range(50)))
    await readiness.check()
    assert probes == [False]
    now += 5
    await committer.submit(submission(workspace, draft("a")))
    await readiness.check()
    assert probes == [False]
    async with broken(store_url):
        with pytest.raises(Unavailable):
            await committer.submit(submission(workspace, draft("b")))
        for _ in range(3):
            with pytest.raises(Unavailable):
                await readiness.check()
        assert probes == [False, True]
    now += 100
    await readiness.check()
    now += 100
    await readiness.check()
    assert probes == [False, True, True, False]
    await committer.close()


@asynccontextmanager
async def broken(url: str) -> AsyncIterator[None]:
    """Make every insertion of events fail for the length of a block."""
    if not url.startswith("sqlite"):
        async with failing(url, "53100"):
            yield
        return
    await database.execute(url, "CREATE TRIGGER boom BEFORE INSERT ON events BEGIN SELECT RAISE(ABORT, 'boom'); END")
    yield
    await database.execute(url, "DROP TRIGGER boom")


async def test_a_database_set_to_lose_is_seen_however_much_is_stored(
    store: Store, workspace: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lossy(_: Connection) -> None:
        raise not_durable("The database forgets")

    now = 0.0
    readiness = Readiness(store.probe, lambda: now)
    committer = Committer(store.database, readiness=readiness)
    await readiness.check()
    monkeypatch.setattr(store.database, "check_durable", lossy)
    refused = 0
    for number in range(30):
        now += 0.9
        await committer.submit(submission(workspace, draft(f"k{number}")))
        try:
            await readiness.check()
        except Unavailable:
            refused += 1
    assert refused >= 15
    monkeypatch.undo()
    now += 100
    await readiness.check()
    await committer.close()


async def test_a_store_that_fails_in_an_unforeseen_way_is_not_ready(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bug(connection: Connection) -> None:
        raise RuntimeError

    readiness = Readiness(store.probe)
    with monkeypatch.context() as patched:
        patched.setattr(store.database, "check_durable", bug)
        with pytest.raises(Unavailable):
            await readiness.check()
    await store.probe.ping()
