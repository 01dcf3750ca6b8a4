"""Subscribe: every event after any start exactly once."""

import asyncio
from collections.abc import Sequence
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from headgate.v1.event_service_pb2 import GetEventRequest, SubscribeRequest
from headgate_server.core.model import Scope
from tests.support.calls import Caller, event, refused
from tests.support.inprocess import Service, serving
from tests.support.marks import on_sqlite
from tests.support.subscribing import (
    OFTEN,
    Stream,
    calling,
    subscribe,
)


async def test_stored_events_and_then_new_ones(caller: Caller) -> None:
    first = (await caller.batch(*[event(str(n), {"n": n}) for n in range(3)])).results
    stream = subscribe(caller, after_sequence=0)
    for result in first:
        got = await caller.events.GetEvent(GetEventRequest(id=result.id), metadata=caller.metadata)
        assert (await stream.next()).event == got.event
    assert await stream.caught_up() == 3
    for sequence in range(4, 10):
        await caller.batch(event())
        assert await stream.sequences(1) == [sequence]
    await caller.batch(*[event() for _ in range(1_000)])
    assert await stream.sequences(1_000) == list(range(10, 1_010))


async def test_every_start(caller: Caller) -> None:
    results = (await caller.batch(*[event() for _ in range(5)])).results
    assert await subscribe(caller).caught_up() == 5
    assert await subscribe(caller, after_sequence=3).sequences(2) == [4, 5]
    assert await subscribe(caller, after_sequence=5).caught_up() == 5
    assert await subscribe(caller, after_id=results[1].id).sequences(3) == [3, 4, 5]
    assert await subscribe(caller, after_id=results[4].id).caught_up() == 5
    assert await subscribe(caller, **{"from": results[2].created_at}).sequences(3) == [3, 4, 5]
    assert await subscribe(caller, **{"from": Timestamp()}).sequences(5) == [1, 2, 3, 4, 5]
    future = subscribe(caller, **{"from": Timestamp(seconds=1 << 33)})
    assert await future.caught_up() == 5


async def test_a_workspace_without_events(caller: Caller) -> None:
    streams = [subscribe(caller), subscribe(caller, after_sequence=0)]
    assert [await stream.caught_up() for stream in streams] == [0, 0]
    await caller.batch(event())
    assert [await stream.sequences(1) for stream in streams] == [[1], [1]]


@pytest.mark.parametrize(
    ("filters", "sequences"),
    [
        ({"type": "document.*"}, [1, 2, 5, 6]),
        ({"type": "document.created"}, [1, 5]),
        ({"source": "b"}, [3, 7]),
        ({"subject": "s"}, [2, 6]),
        ({"type": "document.*", "source": "a", "subject": "s"}, [2, 6]),
    ],
)
async def test_filters(caller: Caller, filters: dict[str, str], sequences: list[int]) -> None:
    batch = (
        event(type="document.created", source="a"),
        event(type="document.signed", source="a", subject="s"),
        event(type="documents", source="b"),
        event(type="other", source=""),
    )
    await caller.batch(*batch)
    stream = subscribe(caller, after_sequence=0, **filters)
    half = len(sequences) // 2
    assert await stream.sequences(half) == sequences[:half]
    await caller.batch(*batch)
    assert await stream.sequences(half) == sequences[half:]


async def test_nothing_of_another_workspace(service: Service) -> None:
    async with service.caller(workspace="one") as one, service.caller(workspace="other") as other:
        stream = subscribe(one, after_sequence=0)
        assert await stream.caught_up() == 0
        (result,) = (await other.batch(event())).results
        await one.batch(event(type="mine"))
        assert (await stream.next()).event.type == "mine"
        refusal = await refused(subscribe(one, after_id=result.id).next())
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "EVENT_NOT_FOUND")


async def test_events_that_another_process_stores(postgres_url: str) -> None:
    async with (
        serving(postgres_url) as one,
        serving(postgres_url) as other,
        one.caller() as reader,
        other.caller() as writer,
    ):
        stream = subscribe(reader)
        assert await stream.caught_up() == 0
        for sequence in range(1, 6):
            await writer.batch(event())
            assert await stream.sequences(1) == [sequence]


async def test_many_readers_and_writers_at_once(caller: Caller) -> None:
    async def write(count: int) -> None:
        for _ in range(count):
            await caller.batch(event(), event())

    streams = [subscribe(caller, after_sequence=0) for _ in range(10)]
    writing = [asyncio.create_task(write(20)) for _ in range(4)]
    read = await asyncio.gather(*(stream.sequences(160) for stream in streams))
    await asyncio.gather(*writing)
    assert read == [list(range(1, 161))] * 10


async def test_heartbeats_carry_the_head(store_url: str) -> None:
    async with calling(store_url, subscriptions=OFTEN) as caller:
        await caller.batch(event(type="a"), event(type="b"))
        stream = subscribe(caller, type="a")
        assert await stream.caught_up() == 2
        for _ in range(2):
            beat = (await stream.next()).heartbeat
            assert (beat.sequence, beat.head) == (2, 2)
        await caller.batch(event(type="b"))

        async def head() -> int:
            return int((await stream.next()).heartbeat.head)

        while await head() != 3:
            pass


@pytest.mark.parametrize(
    ("request_", "code", "reason", "field"),
    [
        ({"after_sequence": -1}, "INVALID_ARGUMENT", "NEGATIVE", ["after_sequence"]),
        ({"after_sequence": 2}, "INVALID_ARGUMENT", "SEQUENCE_PAST_HEAD", ["after_sequence"]),
        ({"after_id": "abc"}, "INVALID_ARGUMENT", "INVALID_ID", ["after_id"]),
        ({"after_id": "01a1fc55-87c1-728f-9c4c-d55d5623739d"}, "NOT_FOUND", "EVENT_NOT_FOUND", []),
        ({"after_id": "x", "after_sequence": 0}, "INVALID_ARGUMENT", "SEVERAL_STARTS", []),
        ({"from": Timestamp(), "after_sequence": 0}, "INVALID_ARGUMENT", "SEVERAL_STARTS", []),
        ({"from": Timestamp(seconds=-(1 << 40))}, "INVALID_ARGUMENT", "INVALID_TIMESTAMP", ["from"]),
        ({"type": "a\0"}, "INVALID_ARGUMENT", "INVALID_CHARACTER", ["type"]),
        ({"type": "x" * 100_000}, "RESOURCE_EXHAUSTED", "BODY_TOO_LARGE", []),
    ],
)
async def test_requests_that_are_refused(
    caller: Caller, request_: dict[str, Any], code: str, reason: str, field: Sequence[str]
) -> None:
    await caller.batch(event())
    refusal = await refused(subscribe(caller, **request_).next())
    assert (refusal.code.name, refusal.reason, refusal.fields) == (code, reason, field)


@on_sqlite
async def test_callers_that_are_refused(service: Service) -> None:
    async with service.caller(Scope.EVENTS_WRITE, Scope.LEDGER_READ) as caller:
        assert (await refused(subscribe(caller).next())).reason == "MISSING_SCOPE"
        nobody = caller.events.Subscribe(SubscribeRequest())
        assert (await refused(Stream(nobody).next())).reason == "MISSING_API_KEY"
    async with service.caller(Scope.EVENTS_READ) as caller:
        assert await subscribe(caller).caught_up() == 0
