"""StreamIngest: every request answered in its order, refusals of one request, and the ends of a stream."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest

from headgate.v1.bridge_view_pb2 import RawStreamIngestRequest
from headgate.v1.event_pb2 import Event
from headgate.v1.ingest_service_pb2 import StreamIngestRequest, StreamIngestResponse
from headgate_server.access import admin
from headgate_server.core.errors import Overloaded
from headgate_server.core.model import Outcome, Scope, Status
from headgate_server.ingest.committer import Committer
from headgate_server.rpc import ingest_stream
from tests.support.calls import Caller, event, refused
from tests.support.inprocess import Service, serving
from tests.support.marks import on_sqlite
from tests.support.waiting import GUARD, until

STREAM = "/headgate.v1.IngestService/StreamIngest"


class Stream:
    """A stream of requests that is written and read step by step."""

    def __init__(self, caller: Caller, *metadata: tuple[str, str]):
        method = caller._channel.stream_stream(
            STREAM, lambda message: message.SerializeToString(), StreamIngestResponse.FromString
        )
        self.call: Any = method(metadata=(*caller.metadata, *metadata))

    async def ask(self, name: str, *events: Event | bytes) -> None:
        """Send a request."""
        serialized = [one if isinstance(one, bytes) else one.SerializeToString() for one in events]
        await self.call.write(RawStreamIngestRequest(id=name, events=serialized))

    async def next(self) -> StreamIngestResponse:
        """Return the next answer."""
        response = await asyncio.wait_for(self.call.read(), GUARD)
        assert response is not grpc.aio.EOF, self.call
        return response

    async def answered(self, requests: int) -> list[StreamIngestResponse]:
        """Return answers to so many requests."""
        answers: list[StreamIngestResponse] = []
        while sum(answer.requests for answer in answers) < requests:
            answers.append(await self.next())
        return answers

    async def over(self) -> list[StreamIngestResponse]:
        """Return the answers up to the end. Raises what ended the stream."""
        answers: list[StreamIngestResponse] = []
        while (answer := await self.call.read()) is not grpc.aio.EOF:
            answers.append(answer)
        return answers


def _statuses(answers: Iterable[StreamIngestResponse]) -> list[tuple[int, str]]:
    return [(result.index, result.status) for answer in answers for result in answer.results]


@asynccontextmanager
async def _calling(url: str, **settings: Any) -> AsyncIterator[Caller]:
    async with serving(url, **settings) as service, service.caller() as caller:
        yield caller


async def test_every_request_is_answered_in_its_order(caller: Caller) -> None:
    stream = Stream(caller)
    for number in range(50):
        await stream.ask(f"r{number}", event(f"{number}-a"), event(f"{number}-b"), event(f"{number // 10}-same"))
    await stream.call.done_writing()
    answers = await stream.over()
    assert sum(answer.requests for answer in answers) == 50
    assert answers[-1].id == "r49"
    same = [[(2, "accepted")] + [(2, "duplicate")] * 9 for _ in range(5)]
    assert _statuses(answers) == [
        pair for each in same for last in each for pair in ((0, "accepted"), (1, "accepted"), last)
    ]
    new = [result.sequence for answer in answers for result in answer.results if result.status == "accepted"]
    assert new == list(range(1, 106))
    assert await stream.call.code() is grpc.StatusCode.OK


async def test_the_public_messages_are_the_same_on_the_wire(caller: Caller) -> None:
    async def requests() -> AsyncIterator[StreamIngestRequest]:
        yield StreamIngestRequest(id="a", events=[Event(type="t", source="s")])

    answers = [one async for one in caller.ingest.StreamIngest(requests(), metadata=caller.metadata)]
    assert [(one.id, one.requests, one.results[0].status) for one in answers] == [("a", 1, "accepted")]


async def test_answers_come_before_the_next_request(caller: Caller) -> None:
    stream = Stream(caller)
    for number in range(3):
        await stream.ask(str(number), event(str(number)))
        (answer,) = await stream.answered(1)
        assert (answer.id, answer.requests, _statuses([answer])) == (str(number), 1, [(0, "accepted")])


async def test_several_requests_share_an_answer(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that are stored in one transaction."""
    async with _calling(store_url) as caller:
        stream, stored = Stream(caller), asyncio.Event()
        store = Committer._store

        async def slow(*arguments: Any, **options: Any) -> Any:
            await stored.wait()
            return await store(*arguments, **options)

        monkeypatch.setattr(Committer, "_store", slow)
        for number in range(20):
            await stream.ask(str(number), *[event(f"{number}-{each}") for each in range(100)])
        stored.set()
        answers = await stream.answered(20)
    assert [result.index for answer in answers for result in answer.results] == list(range(100)) * 20
    assert len(answers) < 20


@pytest.mark.parametrize(("requests", "results"), [(5, [500]), (20, [1_000, 1_000]), (11, [1_000, 100])])
async def test_an_answer_has_a_thousand_results_at_most(requests: int, results: list[int]) -> None:
    answered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    answered.set_result([Outcome(Status.REJECTED)] * 100)
    asked = [ingest_stream._Asked(str(number), 0, answered) for number in range(requests)]
    responses = list(ingest_stream._responses(asked))
    assert [len(response.results) for response in responses] == results
    assert sum(response.requests for response in responses) == requests
    assert responses[-1].id == str(requests - 1)


async def test_a_refused_request_touches_no_other(caller: Caller) -> None:
    stream = Stream(caller)
    await stream.ask("first", event("a"))
    await stream.ask("empty")
    await stream.ask("many", *[event("b")] * 1_001)
    await stream.ask("x" * 256, event("c"))
    await stream.ask("mixed", event("a"), b"\xff", Event(), event("a", {"other": 1}))
    await stream.call.done_writing()
    answers = await stream.over()
    errors = [(answer.id[:5], answer.error.reason, answer.requests) for answer in answers if answer.HasField("error")]
    assert errors == [("empty", "EMPTY_BATCH", 1), ("many", "TOO_MANY_EVENTS", 1), ("xxxxx", "TOO_LONG", 1)]
    assert not any(answer.error.retryable for answer in answers)
    assert _statuses(answers) == [
        (0, "accepted"),
        *((0, "duplicate"), (1, "rejected"), (2, "rejected"), (3, "conflict")),
    ]
    assert await caller.stored() == 1


async def test_a_request_that_cannot_be_read_ends_the_stream_after_the_answers_before_it(caller: Caller) -> None:
    method = caller._channel.stream_stream(STREAM, None, StreamIngestResponse.FromString)
    call = method(metadata=caller.metadata)
    await call.write(RawStreamIngestRequest(id="a", events=[event("a").SerializeToString()]).SerializeToString())
    await call.write(b"\xff")
    answers = []

    async def read() -> None:
        async for answer in call:
            answers.append(answer)

    refusal = await refused(read())
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED_REQUEST")
    assert _statuses(answers) == [(0, "accepted")]


@on_sqlite
async def test_an_overload_refuses_requests_and_not_the_stream(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with _calling(store_url) as caller:
        stream = Stream(caller)
        await stream.ask("a", event("a"))
        await stream.answered(1)
        room = Committer.check_room
        monkeypatch.setattr(Committer, "check_room", _refuse)
        await stream.ask("b", event("b"))
        (refused,) = await stream.answered(1)
        assert (refused.id, refused.error.reason, refused.error.retryable) == ("b", "OVERLOADED", True)
        assert refused.error.retry_after == 2
        monkeypatch.setattr(Committer, "check_room", room)
        await stream.ask("b", event("b"))
        assert _statuses(await stream.answered(1)) == [(0, "accepted")]


def _refuse(*_: Any) -> None:
    raise Overloaded("Full.", retry_after=1.5)


@on_sqlite
async def test_a_reader_that_does_not_read_stops_its_own_stream(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server reads on only when there is room, so the caller's writes wait. Nothing is lost."""
    most = 0
    add = ingest_stream._Unanswered.add

    def counting(unanswered: ingest_stream._Unanswered, asked: ingest_stream._Asked) -> None:
        nonlocal most
        add(unanswered, asked)
        most = max(most, len(unanswered._asked))

    monkeypatch.setattr(ingest_stream._Unanswered, "add", counting)
    monkeypatch.setattr(ingest_stream, "_MOST_REQUESTS", 4)
    held = asyncio.Event()
    store = Committer._store

    async def waiting(*arguments: Any, **options: Any) -> Any:
        await held.wait()
        return await store(*arguments, **options)

    async with _calling(store_url) as caller:
        monkeypatch.setattr(Committer, "_store", waiting)
        stream, sent = Stream(caller), 0
        large = {"text": "x" * 20_000}

        async def write() -> None:
            nonlocal sent
            for number in range(60):
                await stream.ask(str(number), event(str(number), large))
                sent += 1

        async def has_written_more_than_is_read() -> bool:
            return sent > most == 4

        writing = asyncio.create_task(write())
        await until(has_written_more_than_is_read)
        held.set()
        answers = await stream.answered(60)
        await writing
    assert _statuses(answers) == [(0, "accepted")] * 60
    assert most == 4


async def test_a_revoked_key_ends_it_after_the_answers(service: Service) -> None:
    key = await service.key(Scope.EVENTS_WRITE)
    async with Caller(service.port, key) as caller:
        stream = Stream(caller)
        await stream.ask("a", event("a"))
        await stream.answered(1)
        (mine,) = await admin.list_keys(service.store.directory, None)
        await admin.revoke_key(service.store.directory, mine.id)
        refusal = await asyncio.wait_for(refused(stream.over()), GUARD)
    assert refusal.code is grpc.StatusCode.UNAUTHENTICATED


async def test_a_server_that_ends_answers_what_it_has_read(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    held, begun = asyncio.Event(), asyncio.Event()
    store = Committer._store

    async def waiting(*arguments: Any, **options: Any) -> Any:
        begun.set()
        await held.wait()
        return await store(*arguments, **options)

    answers: list[StreamIngestResponse] = []
    async with AsyncExitStack() as clients:
        async with serving(store_url) as service:
            caller = await clients.enter_async_context(service.caller())
            monkeypatch.setattr(Committer, "_store", waiting)
            stream = Stream(caller)
            await stream.ask("a", event("a"))
            await begun.wait()

            async def read() -> None:
                async for answer in stream.call:
                    answers.append(answer)

            reading = asyncio.create_task(refused(read()))
            asyncio.get_running_loop().call_later(0.5, held.set)
        refusal = await reading
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")
    assert _statuses(answers) == [(0, "accepted")]


@on_sqlite
async def test_a_silent_stream_ends_without_an_error(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest_stream, "_IDLE_SECONDS", 0.2)
    async with _calling(store_url) as caller:
        stream = Stream(caller)
        await stream.ask("a", event("a"))
        assert _statuses(await asyncio.wait_for(stream.over(), GUARD)) == [(0, "accepted")]
        assert await stream.call.code() is grpc.StatusCode.OK


@on_sqlite
async def test_streams_are_bounded_for_a_workspace_and_for_all(store_url: str) -> None:
    async with serving(store_url, load={"ingest_streams": 4}) as service, service.caller() as caller:
        streams = [Stream(caller) for _ in range(2)]
        for stream in streams:
            await stream.ask("a", event("a"))
            await stream.answered(1)
        assert (await refused(Stream(caller).over())).code is grpc.StatusCode.RESOURCE_EXHAUSTED
        async with service.caller(workspace="second") as second, service.caller(workspace="third") as third:
            others = [Stream(second) for _ in range(2)]
            for stream in others:
                await stream.ask("a", event("a"))
                await stream.answered(1)
            assert (await refused(Stream(third).over())).code is grpc.StatusCode.RESOURCE_EXHAUSTED
        streams[0].call.cancel()

        async def has_room() -> bool:
            stream = Stream(caller)
            try:
                await stream.ask("a", event("a"))
                return bool(await stream.answered(1))
            except (grpc.aio.AioRpcError, AssertionError, asyncio.InvalidStateError):
                return False

        await until(has_room)


@on_sqlite
@pytest.mark.parametrize(
    ("metadata", "scopes", "code"),
    [
        pytest.param((("idempotency-key", "k"),), (Scope.EVENTS_WRITE,), "INVALID_ARGUMENT", id="request key"),
        pytest.param((), (Scope.EVENTS_READ,), "PERMISSION_DENIED", id="scope"),
    ],
)
async def test_streams_that_are_not_begun(
    store_url: str, metadata: tuple[tuple[str, str], ...], scopes: tuple[Scope, ...], code: str
) -> None:
    async with serving(store_url) as service, service.caller(*scopes) as caller:
        assert (await refused(Stream(caller, *metadata).over())).code.name == code


@on_sqlite
async def test_a_caller_that_is_gone_leaves_nothing_behind(store_url: str) -> None:
    def running() -> int:
        return sum("IngestStream." in repr(task.get_coro()) for task in asyncio.all_tasks())

    async with serving(store_url) as service, service.caller() as caller:
        for _ in range(5):
            stream = Stream(caller)
            await stream.ask("a", event("a"))
            await stream.answered(1)
            assert running() > 0
            stream.call.cancel()

        async def gone() -> bool:
            return not running()

        await until(gone)
