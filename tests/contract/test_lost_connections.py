"""PostgreSQL: when an append loses its connection, its answer says what really happened."""

import asyncio
from pathlib import Path

import pytest

from headgate_server.core.errors import OutcomeUnknown, Unavailable
from headgate_server.core.model import Replayed, Settled
from headgate_server.store import Store
from headgate_server.store.opening import open_store
from headgate_server.store.postgres import append as postgres_append
from headgate_server.store.postgres import database as postgres
from tests.support import database
from tests.support.drafts import append, draft, request
from tests.support.proxy import Proxy
from tests.support.waiting import until

pytestmark = pytest.mark.bounds


async def _workspace(url: str) -> int:
    direct = await open_store(url)
    try:
        return (await direct.directory.create_workspace("acme")).id
    finally:
        await direct.close()


async def _statuses(store: Store, workspace: int, *keys: str) -> list[str]:
    return [outcome.status for outcome in await append(store, workspace, *map(draft, keys))]


@pytest.mark.parametrize("moment", ["after", "late"])
async def test_a_commit_that_happened_is_acknowledged(postgres_url: str, tmp_path: Path, moment: str) -> None:
    workspace = await _workspace(postgres_url)
    async with Proxy(tmp_path, postgres_url, moment) as proxy:
        store = await _opened(proxy)
        try:
            assert await _statuses(store, workspace, "a", "b") == ["accepted", "accepted"]
            assert proxy.lost == 1
            assert await _statuses(store, workspace, "a", "c") == ["duplicate", "accepted"]
            assert (await store.ledgers.head(workspace)).sequence == 3
        finally:
            await store.close()


async def test_a_commit_that_did_not_happen_is_unavailable(postgres_url: str, tmp_path: Path) -> None:
    workspace = await _workspace(postgres_url)
    async with Proxy(tmp_path, postgres_url, "before") as proxy:
        store = await _opened(proxy)
        try:
            with pytest.raises(Unavailable) as raised:
                await _statuses(store, workspace, "a")
            assert not isinstance(raised.value, OutcomeUnknown)
            assert proxy.lost == 1
            assert await _statuses(store, workspace, "a") == ["accepted"]
            assert (await store.ledgers.head(workspace)).sequence == 1
        finally:
            await store.close()


async def test_a_commit_nobody_can_be_asked_about_is_unknown(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "RESOLVE_DEADLINE", 0.3)
    workspace = await _workspace(postgres_url)
    async with Proxy(tmp_path, postgres_url, "after") as proxy:
        store = await _opened(proxy)
        proxy.deaf = True
        try:
            with pytest.raises(OutcomeUnknown):
                await _statuses(store, workspace, "a")
            proxy.deaf = False
            assert await _statuses(store, workspace, "a") == ["duplicate"]
        finally:
            await store.close()


@pytest.mark.parametrize(("moment", "stored"), [("after", True), ("before", False)])
async def test_without_events_the_stored_answer_tells(
    postgres_url: str, tmp_path: Path, moment: str, stored: bool
) -> None:
    workspace = await _workspace(postgres_url)
    async with Proxy(tmp_path, postgres_url, moment) as proxy:
        store = await _opened(proxy)
        try:
            if stored:
                (decision,) = await store.database.append([request(workspace, "r")])
                assert isinstance(decision, Settled)
                assert await store.database.append([request(workspace, "r")]) == [Replayed(b"")]
            else:
                with pytest.raises(Unavailable):
                    await store.database.append([request(workspace, "r")])
            assert proxy.lost == 1
        finally:
            await store.close()


@pytest.mark.parametrize(
    ("trigger", "count"), [(b"BEGIN", 2), (b"FOR NO KEY UPDATE", 2), (b"INSERT INTO events", 2), (b"COPY", 40)]
)
async def test_a_connection_lost_before_commit_is_tried_again(
    postgres_url: str, tmp_path: Path, trigger: bytes, count: int
) -> None:
    workspace = await _workspace(postgres_url)
    async with Proxy(tmp_path, postgres_url, "before", trigger) as proxy:
        store = await _opened(proxy)
        try:
            assert await _statuses(store, workspace, *map(str, range(count))) == ["accepted"] * count
            assert proxy.lost == 1
            assert (await store.ledgers.head(workspace)).sequence == count
        finally:
            await store.close()


async def test_a_connection_that_has_said_its_last_word_is_lost(postgres_url: str, tmp_path: Path) -> None:
    workspace = await _workspace(postgres_url)
    async with Proxy(tmp_path, postgres_url, "before") as proxy:
        store = await _opened(proxy, times=0)
        try:
            assert await _statuses(store, workspace, "a") == ["accepted"]
            await store.ledgers.head(workspace)
            proxy.lingering = True
            await database.execute(postgres_url, _END_OTHERS)
            await until(lambda: _both_linger(proxy))
            proxy.lingering = False
            assert await _statuses(store, workspace, "a", "b") == ["duplicate", "accepted"]
            assert (await store.ledgers.head(workspace)).sequence == 2
        finally:
            await store.close()


async def test_a_database_that_stays_away_is_unavailable(postgres_url: str, tmp_path: Path) -> None:
    workspace = await _workspace(postgres_url)
    async with Proxy(tmp_path, postgres_url, "before", b"INSERT INTO events") as proxy:
        store = await _opened(proxy, times=100)
        try:
            with pytest.raises(Unavailable):
                await _statuses(store, workspace, "a")
            assert proxy.lost == postgres.ATTEMPTS
            proxy.deaf = True
            await database.execute(postgres_url, _END_OTHERS)
            for call in (
                store.probe.ping(),
                store.ledgers.head(workspace),
                _statuses(store, workspace, "a"),
                store.directory.create_workspace("x"),
            ):
                with pytest.raises(Unavailable):
                    await call
        finally:
            await store.close()


async def test_connections_that_the_server_ended_are_replaced(postgres_url: str) -> None:
    store = await open_store(postgres_url)
    try:
        workspace = (await store.directory.create_workspace("acme")).id
        await asyncio.gather(
            *(_statuses(store, workspace) for _ in range(4)), *(store.ledgers.head(workspace) for _ in range(4))
        )
        await database.execute(postgres_url, _END_OTHERS)
        assert await _statuses(store, workspace, "a") == ["accepted"]
        assert (await store.ledgers.head(workspace)).sequence == 1
    finally:
        await store.close()


async def test_a_cancelled_append_frees_its_workspace(postgres_url: str) -> None:
    store = await open_store(postgres_url)
    try:
        workspace = (await store.directory.create_workspace("acme")).id
        async with database.locked(postgres_url, workspace):
            waiting = asyncio.create_task(_statuses(store, workspace, "a"))
            done, _ = await asyncio.wait([waiting], timeout=0.1)
            assert not done
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        assert await _statuses(store, workspace, "a") == ["accepted"]
    finally:
        await store.close()


async def test_a_stuck_lock_is_unavailable(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shorter = postgres_append._BEGIN.replace("lock_timeout = '5s'", "lock_timeout = '100ms'")
    monkeypatch.setattr(postgres_append, "_BEGIN", shorter)
    store = await open_store(postgres_url)
    try:
        workspace = (await store.directory.create_workspace("acme")).id
        async with database.locked(postgres_url, workspace):
            with pytest.raises(Unavailable, match="locked"):
                await _statuses(store, workspace, "a")
    finally:
        await store.close()


_END_OTHERS = (
    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
)


async def _both_linger(proxy: Proxy) -> bool:
    return proxy.lingered == 2


async def _opened(proxy: Proxy, *, times: int = 1) -> Store:
    """Return a store whose connections are lost from now on."""
    store = await open_store(proxy.url)
    proxy.times = times
    return store
