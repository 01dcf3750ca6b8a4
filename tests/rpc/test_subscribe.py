"""Subscribe: every event after any start exactly once, and the ends of a stream."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import orjson
import pytest
from google.api.httpbody_pb2 import HttpBody
from google.protobuf.timestamp_pb2 import Timestamp

from headgate.v1.bridge_view_pb2 import RawSubscribeRequest
from headgate.v1.event_pb2 import Event
from headgate.v1.event_service_pb2 import GetEventRequest, SubscribeRequest
from headgate_server.access import admin
from headgate_server.background.subscription import SubscriptionConfig
from headgate_server.core.model import Scope
from tests.support.calls import Caller, event, refused
from tests.support.inprocess import Service, serving
from tests.support.marks import on_sqlite
from tests.support.sse import parse
from tests.support.waiting import until

SUBSCRIBE = "/headgate.v1.EventService/Subscribe"
BRIDGED = (("x-envoy-original-path", "/v1/events:subscribe"), ("x-headgate-bridge", "1"))
SSE = ("accept", "text/event-stream")
OFTEN = SubscriptionConfig(heartbeat=0.1)
NEVER = SubscriptionConfig(heartbeat=3600.0)


class Stream:
    """A subscription that is read message by message."""

    def __init__(self, call: Any):
        self.call = call

    async def next(self) -> Any:
        """Return the next message."""
        message = await asyncio.wait_for(self.call.read(), 20)
        assert message is not grpc.aio.EOF
        return message

    async def sequences(self, count: int) -> list[int]:
        """Return the sequences of the next events. Other messages between them are skipped."""
        found: list[int] = []
        while len(found) < count:
            message = await self.next()
            if message.HasField("event"):
                found.append(message.event.sequence)
        return found

    async def caught_up(self) -> int:
        """Return the sequence at which the stream has caught up. No other message may precede it."""
        message = await self.next()
        assert message.HasField("caught_up"), message
        return int(message.caught_up.sequence)


def _subscribe(caller: Caller, **request: Any) -> Stream:
    return Stream(caller.events.Subscribe(SubscribeRequest(**request), metadata=caller.metadata))


@asynccontextmanager
async def _calling(url: str, **settings: Any) -> AsyncIterator[Caller]:
    async with serving(url, **settings) as service, service.caller() as caller:
        yield caller


async def test_stored_events_and_then_new_ones(caller: Caller) -> None:
    first = (await caller.batch(*[event(str(n), {"n": n}) for n in range(3)])).results
    stream = _subscribe(caller, after_sequence=0)
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
    assert await _subscribe(caller).caught_up() == 5
    assert await _subscribe(caller, after_sequence=3).sequences(2) == [4, 5]
    assert await _subscribe(caller, after_sequence=5).caught_up() == 5
    assert await _subscribe(caller, after_id=results[1].id).sequences(3) == [3, 4, 5]
    assert await _subscribe(caller, after_id=results[4].id).caught_up() == 5
    assert await _subscribe(caller, **{"from": results[2].created_at}).sequences(3) == [3, 4, 5]
    assert await _subscribe(caller, **{"from": Timestamp()}).sequences(5) == [1, 2, 3, 4, 5]
    future = _subscribe(caller, **{"from": Timestamp(seconds=1 << 33)})
    assert await future.caught_up() == 5


async def test_a_workspace_without_events(caller: Caller) -> None:
    streams = [_subscribe(caller), _subscribe(caller, after_sequence=0)]
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
    stream = _subscribe(caller, after_sequence=0, **filters)
    half = len(sequences) // 2
    assert await stream.sequences(half) == sequences[:half]
    await caller.batch(*batch)
    assert await stream.sequences(half) == sequences[half:]


async def test_nothing_of_another_workspace(service: Service) -> None:
    async with service.caller(workspace="one") as one, service.caller(workspace="other") as other:
        stream = _subscribe(one, after_sequence=0)
        assert await stream.caught_up() == 0
        (result,) = (await other.batch(event())).results
        await one.batch(event(type="mine"))
        assert (await stream.next()).event.type == "mine"
        refusal = await refused(_subscribe(one, after_id=result.id).next())
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "EVENT_NOT_FOUND")


async def test_events_that_another_process_stores(postgres_url: str) -> None:
    async with (
        serving(postgres_url) as one,
        serving(postgres_url) as other,
        one.caller() as reader,
        other.caller() as writer,
    ):
        stream = _subscribe(reader)
        assert await stream.caught_up() == 0
        for sequence in range(1, 6):
            await writer.batch(event())
            assert await stream.sequences(1) == [sequence]


async def test_many_readers_and_writers_at_once(caller: Caller) -> None:
    async def write(count: int) -> None:
        for _ in range(count):
            await caller.batch(event(), event())

    streams = [_subscribe(caller, after_sequence=0) for _ in range(10)]
    writing = [asyncio.create_task(write(20)) for _ in range(4)]
    read = await asyncio.gather(*(stream.sequences(160) for stream in streams))
    await asyncio.gather(*writing)
    assert read == [list(range(1, 161))] * 10


async def test_heartbeats_carry_the_head(store_url: str) -> None:
    async with _calling(store_url, subscriptions=OFTEN) as caller:
        await caller.batch(event(type="a"), event(type="b"))
        stream = _subscribe(caller, type="a")
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
    refusal = await refused(_subscribe(caller, **request_).next())
    assert (refusal.code.name, refusal.reason, refusal.fields) == (code, reason, field)


@on_sqlite
async def test_callers_that_are_refused(service: Service) -> None:
    async with service.caller(Scope.EVENTS_WRITE, Scope.LEDGER_READ) as caller:
        assert (await refused(_subscribe(caller).next())).reason == "MISSING_SCOPE"
        nobody = caller.events.Subscribe(SubscribeRequest())
        assert (await refused(Stream(nobody).next())).reason == "MISSING_API_KEY"
    async with service.caller(Scope.EVENTS_READ) as caller:
        assert await _subscribe(caller).caught_up() == 0


class Bridged(Stream):
    """A subscription as the bridge reads it."""

    def __init__(self, caller: Caller, *headers: tuple[str, str], **request: Any):
        metadata = (*caller.metadata, *BRIDGED, *headers)
        method = caller._channel.unary_stream(SUBSCRIBE, response_deserializer=HttpBody.FromString)
        super().__init__(method(RawSubscribeRequest(**request).SerializeToString(), metadata=metadata))

    async def rest(self) -> list[HttpBody]:
        """Return the remaining messages until the stream ends."""
        bodies: list[HttpBody] = []
        while (body := await asyncio.wait_for(self.call.read(), 20)) is not grpc.aio.EOF:
            bodies.append(body)
        return bodies


@on_sqlite
async def test_http_gets_lines_of_json(caller: Caller) -> None:
    await caller.batch(event(data=b'{"n":12345678901234567890}'))
    stream = Bridged(caller, after_sequence=0)
    one, caught_up = await stream.next(), await stream.next()
    assert (one.content_type, caught_up.content_type) == ("application/x-ndjson", "application/x-ndjson")
    assert b'"data":{"n":12345678901234567890}' in one.data
    assert orjson.loads(one.data)["event"]["sequence"] == 1
    assert caught_up.data == b'{"caught_up":{"sequence":1}}\n'


@on_sqlite
async def test_http_gets_server_sent_events(caller: Caller) -> None:
    await caller.batch(event())
    stream = Bridged(caller, SSE, after_sequence=0)
    one, caught_up = await stream.next(), await stream.next()
    assert one.content_type == "text/event-stream"
    ((event_id, name, data),) = parse(one.data)
    assert (event_id, name, orjson.loads(data)["sequence"]) == ("1", "message", 1)
    assert parse(caught_up.data) == [(None, "caught_up", '{"sequence":1}')]


@on_sqlite
async def test_the_last_event_id_takes_precedence(caller: Caller) -> None:
    results = (await caller.batch(*[event() for _ in range(4)])).results
    back = ("last-event-id", "2")
    for request in ({}, {"after_sequence": 0}, {"after_id": results[0].id}, {"from": "2024-01-15T10:30:00Z"}):
        stream = Bridged(caller, SSE, back, **request)
        assert [parse((await stream.next()).data)[0].id for _ in range(2)] == ["3", "4"]
    # The same for lines of JSON. An empty header is ignored.
    assert orjson.loads((await Bridged(caller, back).next()).data)["event"]["sequence"] == 3
    assert b"caught_up" in (await Bridged(caller, ("last-event-id", "")).next()).data
    # A gRPC client has no such header.
    other = caller.events.Subscribe(SubscribeRequest(after_sequence=0), metadata=(*caller.metadata, back))
    assert await Stream(other).sequences(1) == [1]


@on_sqlite
@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("abc", "INVALID_CURSOR"),
        ("-1", "INVALID_CURSOR"),
        ("1.5", "INVALID_CURSOR"),
        ("1, 2", "INVALID_CURSOR"),
        ("9" * 30, "INVALID_CURSOR"),
        ("7", "SEQUENCE_PAST_HEAD"),
    ],
)
async def test_last_event_ids_that_are_refused(caller: Caller, value: str, reason: str) -> None:
    refusal = await refused(Bridged(caller, SSE, ("last-event-id", value)).next())
    assert (refusal.code.name, refusal.reason) == ("INVALID_ARGUMENT", reason)


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
        kept = _subscribe(other)
        assert await kept.caught_up() == 0
        headers = [SSE] if kind == "sse" else []
        stream = _subscribe(caller) if kind == "grpc" else Bridged(caller, *headers)
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
            stream = _subscribe(caller)
            assert await stream.caught_up() == 0
            assert (await refused(stream.next())).reason == "INVALID_API_KEY"


async def _write_much(caller: Caller) -> None:
    """Store more bytes than the windows between server and reader can hold."""
    for _ in range(10):
        await caller.batch(*[event(data={"x": "y" * 50_000}) for _ in range(100)])


@on_sqlite
async def test_a_revoked_key_ends_the_stream_of_a_reader_that_does_not_read(store_url: str) -> None:
    async with (
        serving(store_url, load={"concurrent_streams": 1}) as service,
        service.caller(workspace="revoked") as caller,
        service.caller() as other,
    ):
        await _write_much(caller)
        stream = _subscribe(caller, after_sequence=0)
        assert await stream.sequences(1) == [1]
        await _revoke(service)
        # Another stream is admitted, although the reader has not read the end yet.
        await until(lambda: _has_room(other), seconds=5)
        refusal = await refused(stream.sequences(999))
        assert (refusal.code.name, refusal.reason) == ("UNAUTHENTICATED", "INVALID_API_KEY")


async def _has_room(caller: Caller) -> bool:
    """Return whether one more stream is admitted, and cancel it. Fails for any other error."""
    stream = _subscribe(caller)
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
        streams = [_subscribe(one) for _ in range(2)]
        assert [await stream.caught_up() for stream in streams] == [0, 0]
        refusal = await refused(_subscribe(one).next())
        assert (refusal.code.name, refusal.reason) == ("RESOURCE_EXHAUSTED", "OVERLOADED")
        assert refusal.retry_after
        others = [_subscribe(other) for _ in range(2)]
        assert [await stream.caught_up() for stream in others] == [0, 0]
        assert (await refused(_subscribe(third).next())).reason == "OVERLOADED"
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
            await _write_much(caller)
            silent = _subscribe(caller)
            assert await silent.caught_up() == 1_000
            lines = Bridged(caller, SSE)
            await lines.next()
            unread = _subscribe(caller, after_sequence=0)
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


async def test_five_hundred_idle_readers_cost_little(store_url: str) -> None:
    async with _calling(store_url, subscriptions=NEVER) as caller:
        streams = [_subscribe(caller) for _ in range(500)]
        assert set(await asyncio.gather(*(stream.caught_up() for stream in streams))) == {0}
        began = time.process_time()
        await asyncio.sleep(3)  # what is measured is time
        assert time.process_time() - began < 0.6
        await caller.single(Event(type="a"))
        assert await asyncio.gather(*(stream.sequences(1) for stream in streams)) == [[1]] * 500
