"""What is particular to the embedded store."""

import os
from pathlib import Path

import pytest
from pysqlite3 import dbapi2

from headgate_server.errors import Unavailable
from headgate_server.store import sqlite
from headgate_server.store.sqlite import SqliteStore
from tests.support import database
from tests.support.drafts import append, draft


async def test_time_goes_on_while_the_clock_runs_back(tmp_path: Path) -> None:
    times = iter([1_000_000, 5_000_000, 4_000_000])
    store = await SqliteStore.open(tmp_path / "headgate.db", clock=lambda: next(times))
    try:
        workspace = (await store.create_workspace("acme")).id
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
    store = await SqliteStore.open(tmp_path / "headgate.db")
    try:
        for engine in (store._writer, store._reader):
            with engine.connect() as connection:
                settings = [
                    connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("journal_mode", "synchronous")
                ]
            assert settings == ["wal", 2]
    finally:
        await store.close()


async def test_sqlite_is_not_one_that_corrupts() -> None:
    assert dbapi2.sqlite_version_info >= (3, 51, 3)


async def test_a_lock_that_is_never_let_go_is_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT", 0.1)
    url = f"sqlite:///{tmp_path}/headgate.db"
    store = await SqliteStore.open(tmp_path / "headgate.db")
    try:
        workspace = (await store.create_workspace("acme")).id
        async with database.locked(url, workspace):
            with pytest.raises(Unavailable, match="lock"):
                await append(store, workspace, draft())
            with pytest.raises(Unavailable, match="lock"):
                await store.ping()
        await append(store, workspace, draft())
    finally:
        await store.close()


async def test_the_log_is_emptied_when_the_store_closes(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "headgate.db")
    workspace = (await store.create_workspace("acme")).id
    await append(store, workspace, *(draft() for _ in range(10)))
    await store.head(workspace)
    await store.close()
    assert os.listdir(tmp_path) == ["headgate.db"]
