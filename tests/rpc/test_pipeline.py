"""Methods of every kind through the one pipeline, on a real server: small methods that only these tests have."""

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any

import grpc
import grpc.aio
import orjson
import pytest
from google.api.httpbody_pb2 import HttpBody
from google.protobuf import descriptor_pool
from google.protobuf.descriptor_pb2 import FileDescriptorProto

from headgate.v1.event_pb2 import Event
from headgate.v1.ingest_service_pb2 import EventResult
from headgate_server.access import admin
from headgate_server.access.auth import CACHE_SECONDS, Authenticator, Principal
from headgate_server.access.limits import RateLimiter
from headgate_server.core.errors import InvalidRequest
from headgate_server.core.model import Scope
from headgate_server.process.metrics import Metrics
from headgate_server.rpc.pipeline.call import Call
from headgate_server.rpc.pipeline.interceptors import _RECHECK_SECONDS, standard
from headgate_server.rpc.pipeline.load import Load
from headgate_server.rpc.pipeline.method import AnyMethod, BothWays, Method, Needs, Public, ServerStream, Unary
from headgate_server.rpc.pipeline.streams import Streams
from headgate_server.rpc.pipeline.trust import PUBLIC, Trust
from headgate_server.rpc.server import GrpcServer, ServerConfig
from headgate_server.store import Store
from tests.support.calls import Refusal, refused
from tests.support.marks import on_sqlite
from tests.support.waiting import until

pytestmark = on_sqlite

SERVICE = "test.v1.EchoService"
_ECHO = FileDescriptorProto(name="test/v1/echo.proto", package="test.v1")
_ECHO.service.add(name="EchoService")
# The server describes its services to tools, so each has a descriptor.
descriptor_pool.Default().AddSerializedFile(_ECHO.SerializeToString())
BRIDGED = (("x-envoy-original-path", "/test"), ("x-headgate-bridge", "1"))
LIMIT = 10_000
READERS = Needs((Scope.EVENTS_READ,))
KINDS = ("One", "Down", "Both")


class Echo:
    """Repeats each event's type, as often as its subject says; the types "wrong" and "bug" fail."""

    def __init__(self) -> None:
        self.running = 0

    def methods(self, access: Needs | Public) -> list[AnyMethod]:
        """Return a method of each kind."""
        kinds: dict[str, Any] = {"One": Unary(self.one), "Down": ServerStream(self.down), "Both": BothWays(self.both)}
        return [
            Method(service=SERVICE, name=name, request=Event, response=EventResult, access=access, kind=kind)
            for name, kind in kinds.items()
        ]

    async def one(self, call: Call, event: Event) -> EventResult:
        """Answer once."""
        self._check(event)
        return EventResult(index=0, status=event.type)

    async def down(self, call: Call, event: Event) -> AsyncGenerator[EventResult, None]:
        """Answer as often as requested, then fail if requested."""
        self.running += 1
        try:
            for index in range(int(event.subject or "1")):
                yield EventResult(index=index, status=event.type)
            self._check(event)
        finally:
            self.running -= 1

    async def both(self, call: Call, events: AsyncIterator[Event]) -> AsyncGenerator[EventResult, None]:
        """Answer each event."""
        self.running += 1
        try:
            async for event in events:
                self._check(event)
                yield EventResult(index=0, status=event.type)
        finally:
            self.running -= 1

    def _check(self, event: Event) -> None:
        if event.type == "wrong":
            raise InvalidRequest("That is wrong.", reason="WRONG", field="type")
        if event.type == "bug":
            raise RuntimeError("internal matters")


class Running:
    """The server, its metrics, and calls to it with a key."""

    channel: grpc.aio.Channel
    authenticator: Authenticator

    def __init__(self, store: Store, key: str):
        self.metrics = Metrics()
        self.echo = Echo()
        self.store = store
        self.key = (("x-api-key", key),)
        self.seconds = 0.0
        """The timer of the cache of keys."""

    async def call(
        self, kind: str, *events: Event | bytes, metadata: Any = None, answer: Any = EventResult
    ) -> list[Any]:
        """Call a method and return all its answers."""
        sent = self.key if metadata is None else metadata
        if kind == "Both":
            return [one async for one in self.both(iter(events), sent, answer)]
        if kind == "Down":
            call = self.channel.unary_stream(f"/{SERVICE}/Down", _bytes, answer.FromString)
            return [one async for one in call(events[0], metadata=sent)]
        return [await self.channel.unary_unary(f"/{SERVICE}/One", _bytes, answer.FromString)(events[0], metadata=sent)]

    def both(self, events: Any = None, metadata: Any = None, answer: Any = EventResult) -> Any:
        """Open a bidirectional stream."""
        call = self.channel.stream_stream(f"/{SERVICE}/Both", _bytes, answer.FromString)
        return call(events, metadata=self.key if metadata is None else metadata)

    async def is_idle(self) -> bool:
        """Whether no stream is being answered."""
        return self.echo.running == 0

    def counted(self, kind: str) -> dict[str, float]:
        """Return the number of calls of a method by their code."""
        found = self.metrics.registry.collect()
        samples = [sample for metric in found for sample in metric.samples if sample.name == "headgate_calls_total"]
        return {one.labels["code"]: one.value for one in samples if one.labels["method"] == f"/{SERVICE}/{kind}"}


def _bytes(event: Event | bytes) -> bytes:
    return event if isinstance(event, bytes) else event.SerializeToString()


Serve = Callable[..., contextlib.AbstractAsyncContextManager[Running]]


@pytest.fixture
def serve(store: Store) -> Serve:
    """Return a context that runs a server with a method of each kind."""

    @contextlib.asynccontextmanager
    async def served(access: Needs | Public = READERS, **bounds: int) -> AsyncIterator[Running]:
        config = ServerConfig(port=0, body_limit=LIMIT, **bounds)
        load = Load(config)
        key = await admin.create_key(store.directory, "acme", frozenset({Scope.EVENTS_READ}))
        running = Running(store, key)
        authenticator = running.authenticator = Authenticator(store.directory, timer=lambda: running.seconds)
        streams = Streams(running.metrics, config.streams_of_one)
        chain = standard(authenticator, RateLimiter(store.limits), running.metrics, load, Trust(PUBLIC), streams, LIMIT)
        server = GrpcServer(config, running.echo.methods(access), chain, load.public, streams)
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as running.channel:
            yield running
        await server.stop(1)

    return served


@pytest.fixture
async def running(serve: Serve) -> AsyncIterator[Running]:
    async with serve() as found:
        yield found


async def test_each_kind_answers(running: Running) -> None:
    assert [one.status for one in await running.call("One", Event(type="a"))] == ["a"]
    down = await running.call("Down", Event(type="a", subject="3"))
    assert [(one.index, one.status) for one in down] == [(0, "a"), (1, "a"), (2, "a")]
    assert await running.call("Down", Event(type="a", subject="0")) == []
    both = await running.call("Both", Event(type="a"), Event(type="b"))
    assert [one.status for one in both] == ["a", "b"]
    assert await running.call("Both") == []
    assert [running.counted(kind) for kind in KINDS] == [{"OK": 1}, {"OK": 2}, {"OK": 2}]


async def test_answers_go_out_while_requests_come_in(running: Running) -> None:
    call = running.both()
    for name in ("a", "b", "c"):
        await call.write(Event(type=name))
        assert (await call.read()).status == name
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF
    assert await call.code() is grpc.StatusCode.OK
    assert dict(await call.trailing_metadata())["x-request-id"]


@pytest.mark.parametrize("kind", KINDS)
async def test_who_may_not_is_refused(running: Running, kind: str) -> None:
    other = await admin.create_key(running.store.directory, "acme", frozenset({Scope.EVENTS_WRITE}))
    for metadata, code, reason in (
        ((), grpc.StatusCode.UNAUTHENTICATED, "MISSING_API_KEY"),
        ((("x-api-key", "hg_" + "x" * 43),), grpc.StatusCode.UNAUTHENTICATED, "INVALID_API_KEY"),
        ((("x-api-key", other),), grpc.StatusCode.PERMISSION_DENIED, "MISSING_SCOPE"),
    ):
        refusal = await refused(running.call(kind, Event(type="a"), metadata=metadata))
        assert (refusal.code, refusal.reason) == (code, reason)
        assert refusal.trailing["x-request-id"]
    assert running.counted(kind) == {"UNAUTHENTICATED": 2, "PERMISSION_DENIED": 1}


@pytest.mark.parametrize("kind", KINDS)
async def test_a_public_method_asks_for_no_key(serve: Serve, kind: str) -> None:
    async with serve(Public()) as running:
        assert [one.status for one in await running.call(kind, Event(type="a"), metadata=())] == ["a"]


@pytest.mark.parametrize("kind", KINDS)
async def test_errors_end_a_call_of_any_kind(running: Running, kind: str) -> None:
    refusal = await refused(running.call(kind, Event(type="wrong")))
    assert (refusal.code, refusal.reason, refusal.fields) == (grpc.StatusCode.INVALID_ARGUMENT, "WRONG", ["type"])
    refusal = await refused(running.call(kind, Event(type="bug")))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
    assert "internal matters" not in refusal.message
    assert str(refusal.trailing["x-request-id"]) in refusal.message
    assert running.counted(kind) == {"INVALID_ARGUMENT": 1, "INTERNAL": 1}
    assert running.echo.running == 0


@pytest.mark.parametrize("kind", KINDS)
async def test_requests_that_are_none(running: Running, kind: str) -> None:
    refusal = await refused(running.call(kind, b"\xff"))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED_REQUEST")
    refusal = await refused(running.call(kind, Event(type="a", data_json=b"x" * LIMIT)))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "BODY_TOO_LARGE")


async def test_what_was_answered_before_an_error_arrives(running: Running) -> None:
    call = running.both(iter([Event(type="a"), Event(type="wrong"), Event(type="b")]))
    assert (await call.read()).status == "a"
    assert (await refused(call.read())).reason == "WRONG"


async def _lines(running: Running, kind: str, *events: Event) -> list[Any]:
    bodies = await running.call(kind, *events, metadata=(*running.key, *BRIDGED), answer=HttpBody)
    assert {body.content_type for body in bodies[:1]} <= {"application/x-ndjson"}
    assert all(body.data.endswith(b"\n") for body in bodies)
    return [orjson.loads(body.data) for body in bodies]


@pytest.mark.parametrize("kind", ["Down", "Both"])
async def test_the_bridge_gets_a_line_for_each_answer(running: Running, kind: str) -> None:
    assert await _lines(running, kind, Event(type="a")) == [{"index": 0, "status": "a"}]


@pytest.mark.parametrize("kind", ["Down", "Both"])
async def test_the_bridge_gets_headers_before_the_first_answer(running: Running, kind: str) -> None:
    method = running.channel.unary_stream if kind == "Down" else running.channel.stream_stream
    event: Any = Event(type="a") if kind == "Down" else iter([Event(type="a")])
    call = method(f"/{SERVICE}/{kind}", _bytes, HttpBody.FromString)(event, metadata=(*running.key, *BRIDGED))
    assert [one async for one in call]
    assert "x-request-id" not in dict(await call.initial_metadata())  # the bridge adds it
    assert await call.code() is grpc.StatusCode.OK


async def test_an_error_after_the_first_answer_is_a_line_of_the_stream(running: Running) -> None:
    """The HTTP status 200 was sent already, and HTTP has no other end."""
    for kind, events in (("Down", [Event(type="wrong")]), ("Both", [Event(type="a"), Event(type="wrong")])):
        *_, last = await _lines(running, kind, *events)
        assert (last["error"]["code"], last["error"]["message"]) == (3, "That is wrong.")
        assert last["error"]["details"][0]["reason"] == "WRONG"
        assert running.counted(kind) == {"INVALID_ARGUMENT": 1}
    # Before the first answer, a status can still be sent.
    both = running.call("Both", Event(type="wrong"), metadata=(*running.key, *BRIDGED), answer=HttpBody)
    assert (await refused(both)).code is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_caller_that_goes_ends_what_was_done_for_it(running: Running) -> None:
    call = running.both()
    await call.write(Event(type="a"))
    await call.read()
    assert running.echo.running == 1
    call.cancel()
    await until(running.is_idle)
    down = running.channel.unary_stream(f"/{SERVICE}/Down", _bytes)(
        Event(type="a" * 1_000, subject="1000000000"), metadata=running.key
    )
    await down.read()
    assert running.echo.running == 1
    down.cancel()
    await until(running.is_idle)

    async def counted() -> bool:
        return [running.counted(kind) for kind in ("Both", "Down")] == [{"CANCELLED": 1}] * 2

    await until(counted)


async def _turned_away(running: Running, *events: Event) -> Refusal:
    refusal = await refused(running.call("Both", *events))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
    assert refusal.retry_after
    return refusal


async def test_a_stream_holds_a_place_until_it_ends(serve: Serve) -> None:
    async with serve(concurrent_calls=1) as running:
        call = running.both()
        await call.write(Event(type="a"))
        await call.read()
        await _turned_away(running)
        assert (await refused(running.call("One", Event(type="b")))).reason == "OVERLOADED"
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF
        await call.code()
        assert await running.call("One", Event(type="b"))


async def test_a_streams_requests_count_while_they_are_worked_on(serve: Serve) -> None:
    large = Event(type="a", data_json=b"x" * 600)
    async with serve(bytes_in_progress=1_000) as running:
        # In sequence, their number has no limit.
        assert len(await running.call("Both", *[large] * 5)) == 5
        held = running.channel.unary_stream(f"/{SERVICE}/Down", _bytes)(
            Event(type="a" * 1_000, subject="1000000000", data_json=b"x" * 600), metadata=running.key
        )
        await held.read()
        await _turned_away(running, large)
        held.cancel()
        await until(running.is_idle)
        assert len(await running.call("Both", large)) == 1


async def test_the_key_of_a_stream_is_checked_again_after_a_while(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A check for each message would take a tenth of the time of a small one."""
    checks: list[str | None] = []
    authenticate = running.authenticator.authenticate

    async def counted(key: str | None) -> Principal:
        checks.append(key)
        return await authenticate(key)

    monkeypatch.setattr(running.authenticator, "authenticate", counted)
    call = running.both()
    for expected in (1, 1, 1, 2, 2):
        if expected == 2:
            running.seconds = _RECHECK_SECONDS
        await call.write(Event(type="a"))
        assert (await call.read()).status == "a"
        assert len(checks) == expected
    call.cancel()


async def test_a_revoked_key_ends_a_stream(serve: Serve) -> None:
    async with serve() as running:
        streams = [running.both() for _ in range(2)]
        for call in streams:
            await call.write(Event(type="a"))
            assert (await call.read()).status == "a"
        await admin.revoke_key(running.store.directory, (await running.store.directory.list_keys())[-1].id)
        running.seconds += CACHE_SECONDS
        for call in streams:
            await call.write(Event(type="b"))
            assert (await refused(call.read())).reason == "INVALID_API_KEY"
        assert running.counted("Both") == {"UNAUTHENTICATED": 2}
