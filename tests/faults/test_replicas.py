"""Three servers on one PostgreSQL, behind two Envoys: one service, whichever of them a call reaches."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import grpc
import httpx
import pytest
import pytest_asyncio
from structlog.testing import capture_logs

from headgate.v1.admin_service_pb2 import RevokeKeyRequest
from headgate.v1.admin_service_pb2_grpc import AdminServiceStub
from headgate.v1.ledger_service_pb2 import VerifyLedgerRequest
from headgate_server.access import keys
from headgate_server.access.auth import digest_of
from headgate_server.access.keys import NewKey
from headgate_server.background import leased, watch
from headgate_server.background.leased import Terms
from headgate_server.core.audit import RESERVED
from headgate_server.core.model import KeyLimits, RateLimit, Scope
from headgate_server.ingest import readiness
from tests.support import postgres
from tests.support.calls import Caller, event, refused, statuses
from tests.support.destinations import SECRET, Operator
from tests.support.receivers import answers, receiver
from tests.support.replicas import Site, site
from tests.support.subscribing import subscribe
from tests.support.waiting import until
from tests.support.writing import Writers, over_grpc, over_rest

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.bounds]

PATIENCE = 3.0
TERMS = Terms(term=4.0, margin=1.0, renew_every=1.0, take_every=0.2)
ANSWERED = 20.0
"""The README's promise, in seconds, whatever the database does."""
REVOKED = 5.0
"""Seconds within which a revoked key is refused everywhere."""
SOON = 5.0
"""Seconds. Another process's commit is seen after at most 0.25; a busy machine adds to it. Less than the time
between two heartbeats, 10."""
NOTICED = PATIENCE + 1.0 + 0.5 + 5.0
"""Seconds until a server that has lost its database says so: its patience, the age of its last success, the time
between two looks, and five for a busy machine."""
PASSED = TERMS.term + TERMS.take_every + 5.0
"""Seconds until another server has the lease."""


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def here(postgres_server: None, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    """Run the service once for all tests. A lost database is noticed sooner than by default, and leases are shorter.

    The log is only kept: a traceback for a console would stop the event loop, which all servers share, for seconds.
    """
    with pytest.MonkeyPatch.context() as patch, capture_logs():
        patch.setattr(readiness, "_PATIENCE_SECONDS", PATIENCE)
        patch.setattr(watch, "_PROBE_SECONDS", 0.5)
        patch.setattr(leased, "Terms", lambda: TERMS)
        async with (
            postgres.fresh_database() as url,
            site(url, tmp_path_factory.mktemp("replicas")) as running,
        ):
            yield running


@asynccontextmanager
async def writing(here: Site, workspace: str, between: float) -> AsyncIterator[tuple[Writers, Caller]]:
    """Write through both Envoys, over gRPC and REST. At the end everything acknowledged is in a sound ledger, once."""
    key = await here.key(workspace)
    async with AsyncExitStack() as stack:
        ways = []
        for client, gateway in zip(await stack.enter_async_context(here.bridged(key)), here.gateways, strict=True):
            address = f"http://127.0.0.1:{gateway.port}"
            http = await stack.enter_async_context(httpx.AsyncClient(base_url=address, headers={"x-api-key": key}))
            ways += [over_grpc(client), over_rest(http)]
        writers = Writers(*ways, between=between)
        tasks = [asyncio.create_task(writers.write(number)) for number in range(2 * len(ways))]
        reader, *_ = await stack.enter_async_context(here.callers(key))
        try:
            await writers.some_more()
            yield writers, reader
        finally:
            writers.stop()
            async with asyncio.timeout(ANSWERED):
                await asyncio.gather(*tasks)
        stored = await reader.all_events()
        verified = await reader.ledger.VerifyLedger(VerifyLedgerRequest(limit=10_000), metadata=reader.metadata)
    assert verified.valid
    assert [one.sequence for one in stored] == list(range(1, len(stored) + 1))
    assert {one.idempotency_key: one.id for one in stored} == writers.acknowledged
    assert max(writers.accepted.values()) == 1


async def _seconds(state: Callable[[], object]) -> float:
    """Return how long it takes until a state is there."""
    started = time.monotonic()
    await until(state)  # type: ignore[arg-type]
    return time.monotonic() - started


async def _calls(here: Site) -> list[Counter[int]]:
    """Return how many calls each Envoy has sent to each server."""
    return [Counter({port: host.calls for port, host in (await gateway.hosts()).items()}) for gateway in here.gateways]


async def test_calls_are_spread_over_all_by_each_envoy(here: Site) -> None:
    before = await _calls(here)

    async def spread() -> bool:
        """A server whose first calls take long gets fewer at the beginning."""
        await writers.some_more(50)
        grown = [now - then for now, then in zip(await _calls(here), before, strict=True)]
        return all(len(each) == len(here.replicas) and min(each.values()) > each.total() / 10 for each in grown)

    async with writing(here, "spread", 0) as (writers, _):
        await until(spread)
    assert not writers.failures


async def test_keys_of_events_and_requests_are_one_set(here: Site) -> None:
    """Whoever is asked: an event's key is accepted once, and a request's answer is replayed."""
    async with here.callers(await here.key("keys")) as callers:
        sent = [caller.batch(*[event(f"k{n}") for n in range(20)]) for caller in callers for _ in range(3)]
        counts = Counter(tuple(statuses(answer)) for answer in await asyncio.gather(*sent))
        assert counts == {("accepted",) * 20: 1, ("duplicate",) * 20: 8}
        first, replayed = await callers[0].keyed("r", event())
        assert not replayed
        for other in callers[1:]:
            assert await other.keyed("r", event()) == (first, True)
        assert [await caller.stored() for caller in callers] == [21] * 3


async def test_a_subscriber_of_another_server_sees_events_at_once(here: Site) -> None:
    async with here.callers(await here.key("followed")) as (writer, second, third):
        streams = [subscribe(caller) for caller in (second, third)]
        for stream in streams:
            assert await stream.caught_up() == 0
        for sequence in range(1, 6):
            await writer.single(event())
            started = time.monotonic()
            for stream in streams:
                assert await stream.sequences(1) == [sequence]
            assert time.monotonic() - started < SOON
        for stream in streams:
            stream.call.cancel()


async def test_limits_count_all_servers_together(here: Site) -> None:
    limited = NewKey(
        workspace="limited", scopes=[Scope.ADMIN], limits=KeyLimits(calls=RateLimit(10, 3_600_000_000, burst=10))
    )
    key, record = await keys.create(here.store.directory, limited)
    async with here.callers(key) as callers:
        results = await asyncio.gather(
            *(caller.single(event()) for caller in callers for _ in range(6)), return_exceptions=True
        )
    assert sum(not isinstance(one, BaseException) for one in results) == 10
    assert {one.code() for one in results if isinstance(one, grpc.aio.AioRpcError)} == {
        grpc.StatusCode.RESOURCE_EXHAUSTED
    }
    await here.store.limits.set_quota(record.workspace.id, 15)
    async with here.callers(await here.key("limited")) as callers:
        answers = await asyncio.gather(*(caller.batch(*[event() for _ in range(4)]) for caller in callers))
    assert Counter(status for answer in answers for status in statuses(answer)) == {"accepted": 5, "rejected": 7}


async def test_a_key_that_is_revoked_at_one_ends_at_all(here: Site) -> None:
    key = await here.key("revoking")
    async with here.callers(key) as callers:
        for caller in callers:
            await caller.stored()
        record = await here.store.directory.find_key(digest_of(key))
        assert record is not None
        async with here.callers(await here.key(RESERVED)) as (operator, *_):
            admin = AdminServiceStub(operator._channel)
            await admin.RevokeKey(RevokeKeyRequest(id=record.id), metadata=operator.metadata)
        started = time.monotonic()

        async def is_refused(caller: Caller) -> bool:
            try:
                await caller.stored()
            except grpc.aio.AioRpcError as error:
                return error.code() is grpc.StatusCode.UNAUTHENTICATED
            return False

        for caller in callers:
            await until(lambda caller=caller: is_refused(caller))  # type: ignore[misc]
        assert time.monotonic() - started < REVOKED


async def test_one_of_them_delivers(here: Site) -> None:
    """What each of them stores, once and in order; whichever of them was asked to make the destination."""
    async with here.callers(await here.key("delivered")) as callers, receiver(answers(200)) as hook:
        url = f"http://127.0.0.1:{hook.port}/"
        await Operator.of(callers[1]).create(
            {"name": "crm", "ordering": "ordered", "webhook": {"url": url, "secret": SECRET}}
        )
        sent = [(await callers[number % 3].single(event())).id for number in range(9)]

        async def all_came() -> bool:
            return len(hook.requests) >= len(sent)

        await until(all_came)
        assert [request.headers["webhook-id"] for request in hook.requests] == sent
    assert sum([await replica.delivers() for replica in here.replicas]) == 1


async def test_a_rolling_restart_fails_no_call(here: Site) -> None:
    """Each is stopped and started in turn, as soon as both Envoys use the one before again."""
    async with writing(here, "rolling", 0.002) as (writers, _):
        for replica in here.replicas:
            await replica.stop()
            await writers.each_again()
            await replica.start()
            await until(lambda port=replica.port: here.is_used(port))  # type: ignore[misc]
            await writers.some_more(20)
    assert not writers.failures


async def test_one_is_cut_off_from_the_database(here: Site) -> None:
    """Its bytes are lost, and later its connections are reset. It says so, gets no calls, and comes back by itself."""
    *_, last = here.replicas

    async def cut_off() -> bool:
        return not await last.is_ready()

    async def others_deliver() -> bool:
        return any([await replica.delivers() for replica in here.replicas[:-1]])

    async def delivers() -> bool:
        with suppress(grpc.aio.AioRpcError):
            return await last.delivers()
        return False

    for replica in here.replicas[:-1]:
        await replica.stop()
    await until(delivers)
    for replica in here.replicas[:-1]:
        await replica.start()
        await until(lambda port=replica.port: here.is_used(port))  # type: ignore[misc]
    async with writing(here, "cut-off", 0.01) as (writers, near), Caller(last.port, near.metadata[0][1]) as far:
        await far.stored()
        here.proxy.freeze()
        started = time.monotonic()
        waiting = asyncio.create_task(refused(far.batch(event("far"))))
        assert await _seconds(cut_off) < NOTICED
        await until(lambda: here.is_unused(last.port))
        assert await _seconds(others_deliver) < PASSED
        refusal = await waiting
        assert time.monotonic() - started < ANSWERED
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE")
        assert statuses(await near.batch(event("far"))) == ["accepted"]
        writers.acknowledged["far"] = (await near.batch(event("far"))).results[0].id
        await writers.each_again()
        # The others go on without it.
        failed = len(writers.failures)
        await writers.some_more(50)
        assert len(writers.failures) == failed
        here.proxy.thaw()
        await until(last.is_ready)
        await until(lambda: here.is_used(last.port))
        # Whatever it sent before it was cut off: the key is held by one event.
        assert statuses(await far.batch(event("far"))) == ["duplicate"]
        here.proxy.refuse()
        assert await _seconds(cut_off) < NOTICED
        here.proxy.thaw()
        await until(last.is_ready)
        assert statuses(await far.batch(event("far"))) == ["duplicate"]
