"""Subscribe: what ends a stream, how many there may be, and what idle ones cost."""

import asyncio
import time
from collections import Counter
from contextlib import AsyncExitStack
from typing import Any

import grpc
import grpc.aio
import orjson
import pytest

from headgate.v1.event_pb2 import Event
from headgate_server.access import admin
from headgate_server.core.model import Scope
from headgate_server.store import Ledgers
from tests.support.calls import Caller, event, refused
from tests.support.inprocess import Service, serving
from tests.support.marks import on_sqlite
from tests.support.sse import parse
from tests.support.subscribing import (
    NEVER,
    SSE,
    Bridged,
    calling,
    subscribe,
    write_much,
)
from tests.support.waiting import until


async def _revoke(service: Service) -> None:
    (key, *_) = (one for one in await service.store.directory.list_keys() if one.workspace.name == "revoked")
    await admin.revoke_key(service.store.directory, key.id)


@pytest.mark.parametrize("kind", ["grpc", "lines", "sse"])
async def test_a_revoked_key_ends_a_silent_stream_within_five_seconds(store_url: str, kind: str) -> None:
    async with (
        serving(store_url, subscriptions=NEVER) as service,
        service.caller(workspace="revoked") as caller,
        service.caller(workspace="kept") as other,
    ):
        kept = subscribe(other)
        assert await kept.caught_up() == 0
        headers = [SSE] if kind == "sse" else []
        stream = subscribe(caller) if kind == "grpc" else Bridged(caller, *headers)
        await stream.next()
        await _revoke(service)
        began = time.monotonic()
        if kind == "grpc":
            assert (await refused(stream.next())).reason == "INVALID_API_KEY"
        else:
            assert isinstance(stream, Bridged)
            (last,) = await stream.rest()
            if kind == "sse":
                ((_, name, data),) = parse(last.data)
                assert name == "error"
                error = orjson.loads(data)
            else:
                error = orjson.loads(last.data)["error"]
            assert (error["code"], error["details"][0]["reason"]) == (16, "INVALID_API_KEY")
        assert time.monotonic() - began < 5
        await other.batch(event())
        assert await kept.sequences(1) == [1]


@on_sqlite
async def test_an_expired_key_ends_a_silent_stream(store_url: str) -> None:
    async with serving(store_url, subscriptions=NEVER) as service:
        directory = service.store.directory
        key = await admin.create_key(directory, "acme", frozenset({Scope.EVENTS_READ}), 1_000_000)
        async with Caller(service.port, key) as caller:
            stream = subscribe(caller)
            assert await stream.caught_up() == 0
            assert (await refused(stream.next())).reason == "INVALID_API_KEY"


@on_sqlite
async def test_a_revoked_key_ends_the_stream_of_a_reader_that_does_not_read(store_url: str) -> None:
    async with (
        serving(store_url, load={"concurrent_streams": 1}) as service,
        service.caller(workspace="revoked") as caller,
        service.caller() as other,
    ):
        await write_much(caller)
        stream = subscribe(caller, after_sequence=0)
        assert await stream.sequences(1) == [1]
        await _revoke(service)
        # Another stream is admitted, although the reader has not read the end yet.
        await until(lambda: _has_room(other), seconds=5)
        refusal = await refused(stream.sequences(999))
        assert (refusal.code.name, refusal.reason) == ("UNAUTHENTICATED", "INVALID_API_KEY")


async def _has_room(caller: Caller) -> bool:
    """Return whether one more stream is admitted, and cancel it. Fails for any other error."""
    stream = subscribe(caller)
    first = asyncio.ensure_future(stream.next())
    await asyncio.wait((first,))
    stream.call.cancel()
    error = first.exception()
    if error is not None:
        assert isinstance(error, grpc.aio.AioRpcError)
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    return error is None


async def test_streams_have_a_bound_of_their_own(store_url: str) -> None:
    """One workspace has at most half of them, so that others can subscribe. Calls are not affected."""
    async with (
        serving(store_url, load={"concurrent_streams": 4, "concurrent_calls": 1}) as service,
        service.caller(workspace="one") as one,
        service.caller(workspace="other") as other,
        service.caller(workspace="third") as third,
    ):
        streams = [subscribe(one) for _ in range(2)]
        assert [await stream.caught_up() for stream in streams] == [0, 0]
        refusal = await refused(subscribe(one).next())
        assert (refusal.code.name, refusal.reason) == ("RESOURCE_EXHAUSTED", "OVERLOADED")
        assert refusal.retry_after
        others = [subscribe(other) for _ in range(2)]
        assert [await stream.caught_up() for stream in others] == [0, 0]
        assert (await refused(subscribe(third).next())).reason == "OVERLOADED"
        await one.batch(event())
        assert [await stream.sequences(1) for stream in streams] == [[1], [1]]
        # A stream that ends makes room.
        streams[0].call.cancel()
        await until(lambda: _has_room(one))


@pytest.mark.parametrize("reading", [True, False])
async def test_a_stop_does_not_wait_for_streams(store_url: str, reading: bool) -> None:
    async with AsyncExitStack() as clients:
        async with AsyncExitStack() as server:
            service = await server.enter_async_context(serving(store_url, shutdown_grace=60.0))
            caller = await clients.enter_async_context(service.caller())
            await write_much(caller)
            silent = subscribe(caller)
            assert await silent.caught_up() == 1_000
            lines = Bridged(caller, SSE)
            await lines.next()
            unread = subscribe(caller, after_sequence=0)
            if reading:
                unread.call.cancel()
            else:
                assert await unread.sequences(1) == [1]
            began = time.monotonic()
        assert time.monotonic() - began < 10
        refusal = await refused(silent.next())
        assert (refusal.code.name, refusal.reason) == ("UNAVAILABLE", "SHUTTING_DOWN")
        (last,) = await lines.rest()
        ((_, name, data),) = parse(last.data)
        assert (name, orjson.loads(data)["details"][0]["reason"]) == ("error", "SHUTTING_DOWN")


async def test_five_hundred_idle_readers_do_not_read(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One statement looks at the heads of all ledgers. While nothing is stored no reader asks the store, and one page
    serves them all.
    """
    asked: Counter[str] = Counter()

    def count(name: str) -> None:
        ask = getattr(Ledgers, name)

        async def counted(ledgers: Ledgers, *arguments: Any) -> Any:
            asked[name] += 1
            return await ask(ledgers, *arguments)

        monkeypatch.setattr(Ledgers, name, counted)

    async def looked() -> bool:
        return asked["heads"] >= 10

    async with calling(store_url, subscriptions=NEVER) as caller:
        streams = [subscribe(caller) for _ in range(500)]
        assert set(await asyncio.gather(*(stream.caught_up() for stream in streams))) == {0}
        for name in ("head", "heads", "events"):
            count(name)
        await until(looked)
        assert asked.keys() == {"heads"}
        await caller.single(Event(type="a"))
        assert await asyncio.gather(*(stream.sequences(1) for stream in streams)) == [[1]] * 500
        assert asked["events"] <= 10
