"""The store keeps its promise behind PgBouncer in transaction mode."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import asyncpg
import pytest

from headgate_server.core.errors import SetupError
from headgate_server.core.model import EventQuery, Mismatch, RateLimit, Replayed
from headgate_server.store import Store
from headgate_server.store.opening import open_store
from headgate_server.store.postgres import target
from headgate_server.store.postgres.connection import Connector, stands_behind_pooler
from tests.support import database, pgbouncer, postgres
from tests.support.drafts import append, draft, request

pytestmark = pytest.mark.skipif(pgbouncer.program() is None, reason="there is no PgBouncer: apt-get install pgbouncer")


@pytest.fixture
def pooled_url(postgres_url: str) -> Iterator[str]:
    """Return the URL of a fresh store behind a pooler with three connections."""
    with pgbouncer.before(postgres_url) as url:
        yield url


@pytest.fixture
async def store(pooled_url: str) -> AsyncIterator[Store]:
    """Return a store behind the pooler."""
    opened = await open_store(pooled_url)
    yield opened
    await opened.close()


async def test_a_pooler_is_noticed(postgres_url: str, pooled_url: str) -> None:
    for url, pooled in ((postgres_url, False), (pooled_url, True)):
        connection = await Connector(target.parse(url), pooler=True).connect()
        assert await stands_behind_pooler(connection) is pooled
        connection.terminate()


async def test_a_new_database_is_set_up_through_a_pooler(postgres_server: None) -> None:
    async with postgres.fresh_database("template1") as url:
        with pgbouncer.before(url) as pooled:
            for _ in range(2):
                await (await open_store(pooled)).close()


async def test_what_is_stored_and_read_through_a_pooler(store: Store, workspace: int) -> None:
    first, second = await append(store, workspace, draft("a", {"n": 1}), draft("b"))
    outcomes = await append(
        store, workspace, draft("a", {"n": 1}), draft("a", {"n": 2}), draft("b", 2, on_mismatch=Mismatch.REPLACE)
    )
    assert [outcome.status for outcome in outcomes] == ["duplicate", "conflict", "replaced"]
    assert await store.database.append([request(workspace, "r", draft("c"))]) != [None]
    assert isinstance((await store.database.append([request(workspace, "r", draft("c"))]))[0], Replayed)
    assert first.link is not None
    assert second.link is not None
    assert [event.sequence for event in await store.ledgers.fetch(workspace, [second.link.id, first.link.id])] == [1, 2]
    query = EventQuery(workspace_id=workspace, limit=2, source="test")
    assert [event.sequence for event in (await store.ledgers.events(query)).events] == [1, 2]
    dedupe = draft("a").dedupe
    assert dedupe is not None
    assert (await store.ledgers.lookup(workspace, [dedupe]))[dedupe] == first.link
    assert (await store.limits.admit(workspace, "x", RateLimit(1, 60_000_000, 1))).allowed
    assert not (await store.limits.admit(workspace, "x", RateLimit(1, 60_000_000, 1))).allowed


async def test_two_servers_behind_one_pooler(store: Store, pooled_url: str, workspace: int) -> None:
    """More connections than the pooler has: their statements reach each other's server processes."""
    other = await open_store(pooled_url)
    try:
        calls = [
            call
            for n in range(10)
            for one in (store, other)
            for call in (
                append(one, workspace, draft(f"k{n}"), draft()),
                one.ledgers.head(workspace),
                one.ledgers.events(EventQuery(workspace_id=workspace, limit=5, type="document.created")),
                one.directory.find_key(bytes(32)),
                one.directory.workspaces(),
            )
        ]
        await asyncio.gather(*calls)
        assert (await other.ledgers.head(workspace)).sequence == 30
    finally:
        await other.close()


async def test_a_pooler_that_allows_no_transaction_is_refused(postgres_url: str) -> None:
    with pgbouncer.before(postgres_url, "statement") as url, pytest.raises(SetupError, match="transaction"):
        await open_store(url)


async def test_nothing_is_left_on_the_pooler_s_connections(store: Store, pooled_url: str, workspace: int) -> None:
    await append(store, workspace, draft("a"))
    connection = await asyncpg.connect(pooled_url, statement_cache_size=0)
    try:
        for name in ("enable_seqscan", "lock_timeout", "synchronous_commit", "jit"):
            changed = f"SELECT setting <> reset_val FROM pg_settings WHERE name = '{name}'"
            assert not await connection.fetchval(changed), name
        assert await connection.fetchval("SELECT count(*) FROM pg_prepared_statements") == 0
    finally:
        await connection.close()
    assert await database.execute(pooled_url, "SELECT count(*) FROM events") == [(1,)]
