"""PostgreSQL: one group commit after another uses the same connection, without the pool in between."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import event

from headgate_server.core.errors import Unavailable
from headgate_server.store import Store
from headgate_server.store.opening import open_store
from headgate_server.store.postgres import connection as postgres_connection
from headgate_server.store.postgres.connection import driver_of
from headgate_server.store.postgres.database import PostgresDatabase
from tests.support.drafts import append, draft
from tests.support.waiting import until

pytestmark = pytest.mark.bounds


class Opened:
    """A store with a workspace, and how often its pool gave a connection to an append."""

    def __init__(self, store: Store, workspace: int):
        assert isinstance(store.database, PostgresDatabase)
        self.store, self.workspace, self.database = store, workspace, store.database
        self.taken = 0
        event.listen(self.database._appending.sync_engine, "checkout", self._count)

    def _count(self, *_: object) -> None:
        self.taken += 1

    async def append(self, *keys: str) -> list[str]:
        """Store an event for each key."""
        return [outcome.status for outcome in await append(self.store, self.workspace, *map(draft, keys))]

    @property
    def in_use(self) -> int:
        """The connections that appends use now."""
        return self.database.pools()["append"].in_use


@pytest.fixture
async def opened(postgres_url: str) -> AsyncIterator[Opened]:
    store = await open_store(postgres_url)
    try:
        yield Opened(store, (await store.directory.create_workspace("acme")).id)
    finally:
        await store.close()


async def test_appends_in_a_row_use_one_connection(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_connection, "QUIET", 600.0)
    for number in range(5):
        assert await opened.append(f"k{number}") == ["accepted"]
        assert opened.in_use == 0  # it is kept, and does nothing
    assert opened.taken == 1


async def test_a_connection_that_is_not_used_returns_to_the_pool(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_connection, "QUIET", 0.01)
    await opened.append("a")
    pool = opened.database._appending.pool

    async def returned() -> bool:
        return opened.database._kept.count == 0 and pool.checkedout() == 0  # type: ignore[attr-defined]

    await until(returned)
    await opened.append("b")
    assert opened.taken == 2


async def test_appends_at_the_same_time_have_connections_of_their_own(opened: Opened) -> None:
    other = (await opened.store.directory.create_workspace("other")).id
    before = opened.taken
    stored = await asyncio.gather(
        *(append(opened.store, workspace, draft("a")) for workspace in (opened.workspace, other))
    )
    assert [[outcome.status for outcome in outcomes] for outcomes in stored] == [["accepted"]] * 2
    assert opened.taken - before == 2
    assert opened.in_use == 0


async def test_a_kept_connection_that_is_closed_is_replaced(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_connection, "QUIET", 600.0)
    await opened.append("a")
    kept = opened.database._kept._kept
    assert kept is not None
    driver_of(kept).terminate()
    assert await opened.append("a", "b") == ["duplicate", "accepted"]


async def test_no_connection_is_kept_after_a_failure(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    await opened.append("a")
    with monkeypatch.context() as patched:
        patched.setattr("headgate_server.store.postgres.append._LOCK", "SELECT no_such_function()")
        with pytest.raises(Unavailable):
            await opened.append("b")
    assert (opened.database._kept.count, opened.in_use) == (0, 0)
    assert await opened.append("b") == ["accepted"]


async def test_the_end_closes_the_kept_connection(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_connection, "QUIET", 600.0)
    store = await open_store(postgres_url)
    opened = Opened(store, (await store.directory.create_workspace("acme")).id)
    await opened.append("a")
    kept = opened.database._kept._kept
    assert kept is not None
    driver = driver_of(kept)
    await store.close()
    assert driver.is_closed()
    assert opened.database._kept.count == 0
