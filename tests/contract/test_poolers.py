"""The store keeps its promise behind PgBouncer in transaction mode."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from ipaddress import ip_network

import asyncpg
import pytest

from headgate.v1.event_pb2 import Event
from headgate.v1.ledger_service_pb2 import VerifyLedgerRequest
from headgate_server.access.admin import revoke_key
from headgate_server.access.auth import digest_of
from headgate_server.core.errors import SetupError
from headgate_server.core.model import EventQuery, Mismatch, RateLimit, Replayed
from headgate_server.delivery.config import DeliveryConfig
from headgate_server.store import Store
from headgate_server.store.opening import open_store
from headgate_server.store.postgres import target
from headgate_server.store.postgres.connection import Connector, stands_behind_pooler
from tests.support import database, pgbouncer, postgres
from tests.support.calls import event
from tests.support.destinations import SECRET, Operator
from tests.support.drafts import append, draft, request
from tests.support.eventtypes import Types
from tests.support.inprocess import serving
from tests.support.receivers import answers, receiver
from tests.support.rejection_desk import Desk
from tests.support.subscribing import subscribe
from tests.support.waiting import until

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


async def test_what_a_session_keeps_is_found(pooled_url: str) -> None:
    """The test below finds nothing because there is nothing."""
    await pgbouncer.left_in_sessions(pooled_url)
    client = await asyncpg.connect(pooled_url, statement_cache_size=0)
    try:
        for statement in (
            "SET jit = off",
            "PREPARE p AS SELECT 1",
            "LISTEN c",
            "DECLARE h CURSOR WITH HOLD FOR SELECT 1",
            "CREATE TEMP TABLE t (n int)",
            "SELECT pg_advisory_lock(1)",
        ):
            await client.execute(statement)
        used = {await client.fetchval("SELECT pg_backend_pid()") for _ in range(6)}
    finally:
        await client.close()
    assert len(used) == pgbouncer.CONNECTIONS, "each transaction goes to another server process"
    kept = ["channel c", "cursor h", "lock", "setting jit", "statement p", "table t"]
    assert await pgbouncer.left_in_sessions(pooled_url) == kept


async def test_two_services_behind_one_pooler_keep_nothing_in_sessions(pooled_url: str) -> None:
    """Everything that a server does, while each transaction goes to another server process than the one before."""
    await pgbouncer.left_in_sessions(pooled_url)
    delivery = DeliveryConfig(allowed=(ip_network("127.0.0.0/8"),))
    async with (
        receiver(answers(200)) as hook,
        serving(pooled_url, delivery=delivery) as one,
        serving(pooled_url, delivery=delivery) as two,
        one.caller() as first,
        two.caller() as second,
    ):
        stream = subscribe(second)
        assert await stream.caught_up() == 0
        target = {"url": f"http://127.0.0.1:{hook.port}/", "secret": SECRET}
        made = await Operator.of(second).create({"name": "crm", "webhook": target})
        sent = [call for n in range(10) for call in (first.single(event(f"k{n}")), second.single(event(f"k{n}")))]
        statuses = [result.status for result in await asyncio.gather(*sent)]
        assert (statuses.count("accepted"), statuses.count("duplicate")) == (10, 10)
        assert await stream.sequences(10) == list(range(1, 11))
        answer, _ = await first.keyed("r", event("r"))
        assert await second.keyed("r", event("r")) == (answer, True)
        (result,) = (await first.batch(Event(source="s"))).results
        assert result.status == "rejected"
        (refusal,) = await Desk(first).seen(1)
        assert (await Types(first).put("order", {"type": "object"})).type == "order"
        assert (await second.ledger.VerifyLedger(VerifyLedgerRequest(), metadata=second.metadata)).valid
        assert len(await second.all_events()) == 11

        async def delivered() -> bool:
            return len(hook.requests) >= 11

        await until(delivered)
        assert (await Operator.of(first).get(made["id"]))["name"] == "crm"
        assert (await Desk(second).get(refusal.id)).id == refusal.id
        record = await one.store.directory.find_key(digest_of(dict(first.metadata)["x-api-key"]))
        assert record is not None
        await revoke_key(one.store.directory, record.id)
        assert await pgbouncer.left_in_sessions(pooled_url) == []
    assert await pgbouncer.left_in_sessions(pooled_url) == []
    stored = "SELECT count(*) FROM events JOIN workspaces ON workspaces.id = workspace_id WHERE name = 'acme'"
    assert await database.execute(pooled_url, stored) == [(11,)]
