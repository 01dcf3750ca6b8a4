"""Behaviour of the SQLite store only."""

import asyncio
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pysqlite3 import dbapi2
from sqlalchemy import Connection

from headgate_server.core.errors import Unavailable
from headgate_server.core.model import EventQuery, Status
from headgate_server.store import Store
from headgate_server.store.sqlite import append as sqlite_append
from headgate_server.store.sqlite import connection as sqlite_connection
from headgate_server.store.sqlite import database as sqlite_database
from headgate_server.store.sqlite.database import SqliteDatabase
from tests.support import database
from tests.support.drafts import append, draft
from tests.support.waiting import until

pytestmark = pytest.mark.bounds


async def test_time_goes_on_while_the_clock_runs_back(tmp_path: Path) -> None:
    times = iter([1_000_000, 5_000_000, 4_000_000])
    store = Store(await SqliteDatabase.open(tmp_path / "headgate.db", clock=lambda: next(times)))
    try:
        workspace = (await store.directory.create_workspace("acme")).id
        seen = [await append(store, workspace, draft(), draft()) for _ in range(2)]
        assert [outcome.link.created_at for group in seen for outcome in group if outcome.link] == [
            5_000_000,
            5_000_001,
            5_000_002,
            5_000_003,
        ]
    finally:
        await store.close()


async def test_what_is_acknowledged_is_synced(tmp_path: Path) -> None:
    store = Store(await SqliteDatabase.open(tmp_path / "headgate.db"))
    try:
        for engine in (store.database._writer, store.database._reader):
            with engine.connect() as connection:
                settings = [
                    connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("journal_mode", "synchronous")
                ]
            assert settings == ["wal", 2]
    finally:
        await store.close()


async def test_the_log_is_cut_after_a_slow_reader_left(tmp_path: Path) -> None:
    """Whoever of two writers commits past the checkpoint's size writes the log back."""
    store, other = [Store(await SqliteDatabase.open(tmp_path / "headgate.db")) for _ in range(2)]
    log = tmp_path / "headgate.db-wal"
    try:
        workspace = (await store.directory.create_workspace("acme")).id

        async def write(events: int) -> None:
            for number in range(events):
                writer = (store, other)[number % 2]
                await append(writer, workspace, draft(data={"text": f"{number}" * 900_000}))

        with store.database._reader.connect() as slow, slow.begin():
            slow.exec_driver_sql("SELECT count(*) FROM events").scalar()
            await write(50)
            assert log.stat().st_size > 40_000_000
        # The next checkpoint writes the log back, and after that the log starts again at its beginning.
        await write(25)
        assert log.stat().st_size <= 33_554_432
    finally:
        await store.close()
        await other.close()


async def test_sqlite_is_not_one_that_corrupts() -> None:
    assert dbapi2.sqlite_version_info >= (3, 51, 3)


async def test_identities_are_found_through_their_index(tmp_path: Path) -> None:
    store = Store(await SqliteDatabase.open(tmp_path / "headgate.db"))
    try:
        with store.database._reader.connect() as connection:
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {sqlite_append._PROBE}", (1, b"")).all()
        reads = [row.detail for row in plan if "events" in row.detail]
        assert reads == ["SEARCH events USING INDEX events_dedupe_key (workspace_id=? AND dedupe=?)"]
    finally:
        await store.close()


@pytest.mark.parametrize("size", [1, 7, 32, 256, 293])
async def test_a_group_of_any_size_is_stored_and_found(tmp_path: Path, size: int) -> None:
    store = Store(await SqliteDatabase.open(tmp_path / "headgate.db"))
    try:
        workspace = (await store.directory.create_workspace("acme")).id
        first, second = [draft(str(n)) for n in range(size)], [draft(str(n)) for n in range(2 * size)]
        stored = await append(store, workspace, *first)
        again = await append(store, workspace, *second)
        assert [outcome.status for outcome in again] == [Status.DUPLICATE] * size + [Status.ACCEPTED] * size
        assert [outcome.link for outcome in again[:size]] == [outcome.link for outcome in stored]
        held = await store.ledgers.lookup(workspace, [one.dedupe for one in second if one.dedupe is not None])
        assert len(held) == (await store.ledgers.head(workspace)).sequence == 2 * size
        page = await store.ledgers.events(EventQuery(workspace_id=workspace, limit=2 * size))
        assert [event.key for event in page.events] == [one.key for one in second]
        assert [event.sequence for event in page.events] == list(range(1, 2 * size + 1))
    finally:
        await store.close()


async def test_a_group_that_fails_midway_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(await SqliteDatabase.open(tmp_path / "headgate.db"))
    try:
        workspace = (await store.directory.create_workspace("acme")).id
        await append(store, workspace, draft("taken"))
        before = await store.ledgers.head(workspace)
        with monkeypatch.context() as blind:
            blind.setattr(sqlite_append, "_PROBE", f"{sqlite_append._PROBE} AND FALSE")
            with pytest.raises(Unavailable):
                await append(store, workspace, *(draft(str(n)) for n in range(90)), draft("taken"))
        assert await store.ledgers.head(workspace) == before
        page = await store.ledgers.events(EventQuery(workspace_id=workspace, limit=100))
        assert [event.key for event in page.events] == ["taken"]
    finally:
        await store.close()


async def test_a_lock_that_is_never_let_go_is_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (sqlite_connection, sqlite_database):
        monkeypatch.setattr(module, "BUSY_TIMEOUT", 0.1)
    url = f"sqlite:///{tmp_path}/headgate.db"
    store = Store(await SqliteDatabase.open(tmp_path / "headgate.db"))
    try:
        workspace = (await store.directory.create_workspace("acme")).id
        async with database.locked(url, workspace):
            with pytest.raises(Unavailable, match="lock"):
                await append(store, workspace, draft())
            with pytest.raises(Unavailable, match="lock"):
                await store.probe.ping()
        await append(store, workspace, draft())
    finally:
        await store.close()


async def test_the_collector_does_not_wait_for_the_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may run in the event loop's thread, and it frees cursors that are in reference cycles. So they are closed."""
    opened = []
    raw_cursor = sqlite_connection.raw_cursor

    @contextmanager
    def noted(connection: Connection) -> Iterator[Any]:
        with raw_cursor(connection) as cursor:
            opened.append(cursor)
            yield cursor

    for module in (sqlite_connection, sqlite_append):
        monkeypatch.setattr(module, "raw_cursor", noted)
    path = tmp_path / "headgate.db"
    store = Store(await SqliteDatabase.open(path))
    try:
        workspace = (await store.directory.create_workspace("acme")).id
        await append(store, workspace, draft("k"), draft())
        other = dbapi2.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        before = len(opened)
        waiting = asyncio.create_task(append(store, workspace, draft()))

        async def begins() -> bool:
            return len(opened) > before

        await until(begins)
        # The cursors are freed here while the writer waits for the lock.
        began = time.monotonic()
        del opened[:before]
        assert time.monotonic() - began < 2
        other.execute("ROLLBACK")
        other.close()
        await waiting
    finally:
        await store.close()


async def test_the_log_is_emptied_when_the_store_closes(tmp_path: Path) -> None:
    store = Store(await SqliteDatabase.open(tmp_path / "headgate.db"))
    workspace = (await store.directory.create_workspace("acme")).id
    await append(store, workspace, *(draft() for _ in range(10)))
    await store.ledgers.head(workspace)
    await store.close()
    # The empty files of the turns stay: another process may wait in them.
    assert sorted(os.listdir(tmp_path)) == ["headgate.db", "headgate.db.next", "headgate.db.turn"]


async def test_a_store_whose_folder_is_gone_says_so(tmp_path: Path) -> None:
    """The metrics stay as they were, and the job that reads them goes on."""
    folder = tmp_path / "data"
    store = Store(await SqliteDatabase.open(folder / "headgate.db"))
    try:
        assert (await store.measures.read()).size > 0
        folder.rename(tmp_path / "elsewhere")
        with pytest.raises(Unavailable, match="cannot be measured"):
            await store.measures.read()
    finally:
        await store.close()
