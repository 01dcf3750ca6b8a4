"""PostgreSQL: if the database or the network falls silent, no caller waits beyond the deadline."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from headgate_server.core.errors import OutcomeUnknown, Unavailable
from headgate_server.core.model import EventQuery, RateLimit
from headgate_server.store import Store
from headgate_server.store.opening import open_store
from headgate_server.store.postgres import append as postgres_append
from headgate_server.store.postgres import connection, target
from headgate_server.store.postgres import database as postgres
from tests.support.drafts import append, draft
from tests.support.proxy import Proxy
from tests.support.waiting import until

pytestmark = pytest.mark.bounds

_FOUND = 5.0
"""The seconds within which a dead connection must be found."""


@pytest.fixture
async def proxy(postgres_url: str, tmp_path: Path) -> AsyncIterator[Proxy]:
    """Return the proxy between the store and its database."""
    async with Proxy(tmp_path, postgres_url) as between:
        yield between


@pytest.fixture
async def store(proxy: Proxy) -> AsyncIterator[Store]:
    """Return a store behind the proxy."""
    opened = await open_store(proxy.url)
    yield opened
    proxy.thaw()
    await opened.close()


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the deadlines, so that a test does not wait as long as a caller."""
    monkeypatch.setattr(postgres, "DEADLINE", 1.0)
    monkeypatch.setattr(postgres, "COMMIT_DEADLINE", 0.5)
    monkeypatch.setattr(postgres, "RESOLVE_DEADLINE", 0.5)


async def _warm(store: Store, workspace: int) -> None:
    """Use several connections at once, so that the pools hold some."""
    await asyncio.gather(
        *(store.ledgers.head(workspace) for _ in range(3)), *(store.limits.set_quota(workspace, None) for _ in "ab")
    )


@pytest.mark.parametrize("idle", [0.0, 0.7])
async def test_connections_that_a_firewall_dropped_are_found_and_replaced(
    proxy: Proxy, store: Store, workspace: int, idle: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_append, "SILENCE", 1.0)
    monkeypatch.setattr(connection, "SILENCE", 1.0)
    if idle:
        # Makes the connection look idle for a long time, without waiting.
        monkeypatch.setattr(connection, "QUIET", -1.0)
    await _warm(store, workspace)
    proxy.drop()
    started = time.monotonic()
    outcomes = await append(store, workspace, draft("a"))
    if idle:
        assert (await store.ledgers.head(workspace)).sequence == 1
    assert [outcome.status for outcome in outcomes] == ["accepted"]
    assert time.monotonic() - started < _FOUND


async def test_what_is_stored_goes_on_beside_a_dropped_connection(
    proxy: Proxy, store: Store, workspace: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "QUIET", -1.0)
    others = [(await store.directory.create_workspace(f"w{n}")).id for n in range(4)]
    await _warm(store, workspace)
    proxy.drop()
    started = time.monotonic()
    stored = await asyncio.gather(
        *(append(store, other, draft("a")) for other in others), store.ledgers.head(workspace)
    )
    assert len(stored) == 5
    assert time.monotonic() - started < _FOUND


_CALLS: dict[str, Any] = {
    "append": lambda store, workspace: append(store, workspace, draft("a")),
    "head": lambda store, workspace: store.ledgers.head(workspace),
    "fetch": lambda store, workspace: store.ledgers.fetch(workspace, [bytes(16)]),
    "events": lambda store, workspace: store.ledgers.events(EventQuery(workspace_id=workspace, limit=1)),
    "lookup": lambda store, workspace: store.ledgers.lookup(workspace, [bytes(16)]),
    "find_key": lambda store, workspace: store.directory.find_key(bytes(32)),
    "ping": lambda store, workspace: store.probe.ping(),
    "set_quota": lambda store, workspace: store.limits.set_quota(workspace, 1),
    "admit": lambda store, workspace: store.limits.admit(workspace, "x", RateLimit(1, 1_000_000, 1)),
}


@pytest.mark.parametrize("call", _CALLS)
async def test_a_frozen_database_is_unavailable_within_the_deadline(
    proxy: Proxy, store: Store, workspace: int, call: str, hurried: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _warm(store, workspace)
    proxy.freeze()
    started = time.monotonic()
    with pytest.raises(Unavailable) as raised:
        await _CALLS[call](store, workspace)
    assert time.monotonic() - started < 4
    assert not isinstance(raised.value, OutcomeUnknown)
    monkeypatch.undo()  # in no hurry any more
    proxy.thaw()
    assert (await store.ledgers.head(workspace)).sequence == 0
    await _CALLS[call](store, workspace)


@pytest.mark.parametrize(("thawing", "outcome"), [(False, OutcomeUnknown), (True, None)])
async def test_a_database_that_freezes_at_commit(
    proxy: Proxy,
    store: Store,
    workspace: int,
    hurried: None,
    thawing: bool,
    outcome: type[Exception] | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if thawing:
        monkeypatch.setattr(postgres, "RESOLVE_DEADLINE", 8.0)
    proxy.freeze_at = b"COMMIT\0"
    appending = asyncio.create_task(append(store, workspace, draft("a")))
    started = time.monotonic()
    if thawing:
        done, _ = await asyncio.wait([appending], timeout=0.8)
        assert not done
        proxy.thaw()
        assert [one.status for one in await appending] == ["accepted"]
    else:
        with pytest.raises(OutcomeUnknown):
            await appending
        assert time.monotonic() - started < 4
        proxy.thaw()
    monkeypatch.undo()
    assert [one.status for one in await append(store, workspace, draft("a"))] == ["duplicate"]


async def test_a_setting_whose_commit_froze_is_unknown_and_a_count_is_not(
    proxy: Proxy, store: Store, workspace: int, hurried: None
) -> None:
    for name, error in {"set_quota": OutcomeUnknown, "admit": Unavailable}.items():
        proxy.freeze_at = b"COMMIT;"
        with pytest.raises(Unavailable) as raised:
            await _CALLS[name](store, workspace)
        assert type(raised.value) is error
        proxy.thaw()


async def test_the_deadlines_are_what_the_service_states() -> None:
    readme = Path(__file__).parents[2] / "README.md"
    assert "answered within 20 seconds" in readme.read_text()
    assert postgres.DEADLINE + postgres.COMMIT_DEADLINE + postgres.RESOLVE_DEADLINE <= 20
    assert postgres.DEADLINE > postgres_append.LOCK_TIMEOUT
    assert postgres.RESOLVE_DEADLINE > postgres_append.IDLE_TIMEOUT
    assert postgres_append.LOCK_TIMEOUT > postgres_append.IDLE_TIMEOUT + 1
    assert target.LONGEST_CONNECT < postgres.DEADLINE
    assert 2 * postgres_append.SILENCE < _FOUND


async def test_the_system_looks_after_connections_over_tcp() -> None:
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    async with server:
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
        watched = writer.get_extra_info("socket")
        connection._watch(watched, target.parse("postgresql://u@h/d?keepalives_idle=7"))
        assert watched.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert watched.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 7
        assert watched.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == target.USER_TIMEOUT
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize(("call", "commit"), [("append", b"COMMIT\0"), ("admit", b"COMMIT;")])
async def test_rows_that_a_silent_process_has_locked_are_free_before_others_give_up(
    proxy: Proxy,
    store: Store,
    postgres_url: str,
    workspace: int,
    call: str,
    commit: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The server ends the transaction of a process that was cut off. Otherwise the rows would be locked for hours."""
    idle = (f"'{postgres_append.IDLE_TIMEOUT}s'", "'1s'")
    monkeypatch.setattr(postgres_append, "_BEGIN", postgres_append._BEGIN.replace(*idle))
    monkeypatch.setattr(postgres, "_SETTINGS", postgres._SETTINGS.replace(*idle))
    other = await open_store(postgres_url)
    proxy.freeze_at = commit
    cut_off = asyncio.create_task(_CALLS[call](store, workspace))
    try:
        await until(proxy.is_frozen)
        started = time.monotonic()
        await _CALLS[call](other, workspace)
        assert time.monotonic() - started < postgres_append.LOCK_TIMEOUT
    finally:
        cut_off.cancel()
        await asyncio.gather(cut_off, return_exceptions=True)
        await other.close()


async def test_the_server_looks_after_its_side_of_a_connection(postgres_url: str) -> None:
    for pooler, source in ((False, "client"), (True, "default")):
        one = await connection.Connector(target.parse(postgres_url), pooler=pooler).connect()
        try:
            sources = await one.fetch("SELECT name, source FROM pg_settings WHERE name LIKE 'tcp_keepalives%'")
        finally:
            one.terminate()
        assert {row["source"] for row in sources} == {source}
        assert len(sources) == 3
