"""Opening a store: schema, settings, and one clear line for each fault."""

import asyncio
import os
import stat
import sys
from pathlib import Path

import pytest

from headgate_server.core.errors import SetupError
from headgate_server.store import Store
from headgate_server.store.opening import open_store
from headgate_server.store.sqlite.target import take_alone
from tests.support import database, postgres
from tests.support.drafts import append, draft


async def _refusal(url: str, *, serving: bool = False) -> str:
    with pytest.raises(SetupError) as raised:
        await open_store(url, serving=serving)
    message = str(raised.value)
    assert "\n" not in message
    assert message.endswith(".")
    return message


async def test_a_newer_schema_is_refused(store: Store, store_url: str, workspace: int) -> None:
    await append(store, workspace, draft())
    await store.close()
    await database.execute(store_url, "UPDATE alembic_version SET version_num = '9999'")
    await database.execute(store_url, "UPDATE properties SET value = '9999' WHERE name = 'runs_since'")
    assert "9999" in await _refusal(store_url)
    assert await database.execute(store_url, "SELECT count(*) FROM events") == [(1,)]


async def _open_in_processes(url: str) -> None:
    program = "import asyncio, sys\nfrom headgate_server.store.opening import open_store\n" + (
        "async def main():\n"
        "    store = await open_store(sys.argv[1])\n"
        "    await store.directory.create_workspace('acme')\n"
        "    await store.close()\n"
        "asyncio.run(main())"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    processes = [
        await asyncio.create_subprocess_exec(sys.executable, "-c", program, url, env=environment) for _ in range(4)
    ]
    assert [await process.wait() for process in processes] == [0] * 4
    assert await database.execute(url, "SELECT name FROM workspaces") == [("acme",)]


async def test_processes_that_open_a_new_sqlite_store_at_once(absent_sqlite_url: str) -> None:
    await _open_in_processes(absent_sqlite_url)


async def test_processes_that_open_a_new_postgres_store_at_once(postgres_server: None) -> None:
    async with postgres.fresh_database("template1") as url:
        await _open_in_processes(url)


@pytest.mark.parametrize(
    "url", ["", "headgate.db", "mysql://x/y", "sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite://host/x.db"]
)
async def test_urls_that_name_no_store(url: str) -> None:
    assert "sqlite:///" in await _refusal(url)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:s3cret@127.0.0.1:1/db",
        "postgresql://u:s3cret@127.0.0.1:port/db",
        "postgresql://u:s3cret@here@127.0.0.1:1/db",
        "postgresql://u:s3cret/x@127.0.0.1:1/db",
        "postgresql://u:s3cret:x@127.0.0.1:1/db",
        "postgresql://127.0.0.1:1/db?user=u&password=s3cret&sslmode=bogus",
        "unknown://u:s3cret@host/db",
        "://u:s3cret@host",
        "u:s3cret@host",
    ],
)
async def test_a_refusal_holds_no_password(url: str) -> None:
    assert "s3cret" not in await _refusal(url)


async def test_a_database_that_is_not_there(postgres_server: None) -> None:
    assert "nowhere" in await _refusal(postgres.url("nowhere"))


async def test_a_database_that_acknowledges_too_early(postgres_url: str) -> None:
    name = postgres_url.partition("@/")[2].partition("?")[0]
    await database.execute(postgres_url, f"ALTER DATABASE {name} SET synchronous_commit = off")
    assert "synchronous_commit=off" in await _refusal(postgres_url)


async def test_a_server_that_does_not_sync() -> None:
    with postgres.own_server("fsync=off") as url:
        assert "fsync=off" in await _refusal(url)


async def test_an_sqlite_store_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "new" / "deep" / "headgate.db"
    store = await open_store(f"sqlite:///{path}", serving=True)
    try:
        await store.directory.create_workspace("acme")
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
        assert set(modes.values()) == {0o600}, modes
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    finally:
        await store.close()


async def test_several_processes_serve_an_sqlite_store_and_commands_work_beside_them(sqlite_url: str) -> None:
    one, two = [await open_store(sqlite_url, serving=True) for _ in range(2)]
    beside = await open_store(sqlite_url)
    try:
        workspace = await beside.directory.create_workspace("acme")
        for store in (one, two, beside):
            assert await store.directory.workspace("acme") == workspace
    finally:
        for store in (one, two, beside):
            await store.close()


async def test_who_replaces_an_sqlite_store_has_it_alone(sqlite_url: str) -> None:
    path = Path(database.sqlite_path(sqlite_url))
    serving = await open_store(sqlite_url, serving=True)
    try:
        with pytest.raises(SetupError, match="stop it first"):
            take_alone(path)
    finally:
        await serving.close()
    alone = take_alone(path)
    try:
        assert "headgate.db.lock" in await _refusal(sqlite_url, serving=True)
    finally:
        os.close(alone)
    await (await open_store(sqlite_url, serving=True)).close()


async def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("Not a database, but long enough to be read as one, and somebody's only copy." * 100)
    assert "not a database" in await _refusal(f"sqlite:///{path}", serving=True)
    assert path.read_text().startswith("Not a database")
    path.rename(tmp_path / "again")
    # The refusal released the lock.
    await (await open_store(f"sqlite:///{path}", serving=True)).close()


async def test_paths_that_cannot_hold_a_database(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file" / "headgate.db", Path("/proc/nowhere/headgate.db")):
        await _refusal(f"sqlite:///{path}")


@pytest.mark.parametrize("as_is", [False, True])
async def test_nothing_is_left_beside_a_file_that_is_no_store(tmp_path: Path, as_is: bool) -> None:
    other = tmp_path / "notes.txt"
    await asyncio.to_thread(other.write_text, "this is no database\n" * 100)
    with pytest.raises(SetupError, match=r"cannot be opened: .*not a database"):
        await open_store(other, as_is=as_is, serving=not as_is)
    assert os.listdir(tmp_path) == ["notes.txt"]


async def test_a_store_that_is_opened_by_a_link_is_the_same_store(tmp_path: Path) -> None:
    file, link = tmp_path / "disk" / "headgate.db", tmp_path / "headgate.db"
    await asyncio.to_thread(link.symlink_to, file)
    assert "not a file" in await _refusal(f"sqlite:///{link}")  # it leads nowhere yet
    await (await open_store(file)).close()
    store = await open_store(link, serving=True)
    try:
        for path in (file, link):
            with pytest.raises(SetupError, match="A process serves the store"):
                take_alone(path)
        workspace = await store.directory.create_workspace("acme")
        await append(store, workspace.id, draft())
        assert (await store.survey.facts()).bytes > file.stat().st_size
    finally:
        await store.close()
    assert sorted(os.listdir(tmp_path)) == ["disk", "headgate.db"]
