"""A server as its operator sees it: health, reflection, request ids, logs, metrics, stopping, a lost store."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import orjson
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from headgate.v1.event_service_pb2 import ListEventsRequest
from headgate_server.app.server import running
from headgate_server.config import Settings, StoreConfig
from headgate_server.core.errors import SetupError
from headgate_server.core.model import Decision, Submission
from headgate_server.ingest.committer import Committer, CommitterConfig
from headgate_server.rpc.server import ServerConfig
from tests.support import database
from tests.support.calls import Caller, event, refused, statuses
from tests.support.inprocess import Service, serving
from tests.support.marks import on_postgres, on_sqlite
from tests.support.outage import outage
from tests.support.service import ServerProcess, make_key
from tests.support.waiting import until

pytestmark = pytest.mark.bounds

SERVICES = [f"headgate.v1.{name}Service" for name in ("Event", "Ingest", "Ledger", "Probe")]
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture
async def channel(service: Service) -> AsyncIterator[grpc.aio.Channel]:
    """Return a channel to the server, without a key."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{service.port}") as opened:
        yield opened


@on_sqlite
async def test_health(channel: grpc.aio.Channel) -> None:
    health = health_pb2_grpc.HealthStub(channel)
    for name in ("", *SERVICES):
        assert (await health.Check(health_pb2.HealthCheckRequest(service=name))).status == SERVING
    unknown = await refused(health.Check(health_pb2.HealthCheckRequest(service="nobody.v1.Service")))
    assert unknown.code is grpc.StatusCode.NOT_FOUND


@on_sqlite
async def test_reflection(channel: grpc.aio.Channel) -> None:
    """Services can be listed, and described by their own names, their methods' and their messages'."""
    requests = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        *(
            reflection_pb2.ServerReflectionRequest(file_containing_symbol=symbol)
            for symbol in (
                "headgate.v1.IngestService",
                "headgate.v1.IngestService.BatchIngest",
                "headgate.v1.BatchIngestRequest",
            )
        ),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="headgate.v1.IngestService.Nothing"),
    ]
    stream = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter(requests))
    services, *files, unknown = [answer async for answer in stream]
    names = [service.name for service in services.list_services_response.service]
    assert set(SERVICES) < set(names)
    assert "grpc.health.v1.Health" in names
    assert all(answer.file_descriptor_response.file_descriptor_proto for answer in files)
    assert unknown.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        pytest.param("req-1", True, id="an id"),
        pytest.param("x" * 128, True, id="128 characters"),
        pytest.param("x" * 129, False, id="too long"),
        pytest.param("a b", False, id="a space"),
        pytest.param("", False, id="empty"),
        pytest.param(None, False, id="none"),
    ],
)
@on_sqlite
async def test_the_request_id(caller: Caller, given: str | None, kept: bool) -> None:
    sent = () if given is None else (("x-request-id", given),)
    call = caller.events.ListEvents(ListEventsRequest(), metadata=(*caller.metadata, *sent))
    await call
    answered = dict(await call.trailing_metadata())["x-request-id"]
    assert (answered == given) is kept
    assert answered
    # A refusal has it, too.
    refusal = await refused(caller.events.ListEvents(ListEventsRequest(), metadata=sent))
    assert (refusal.trailing["x-request-id"] == given) is kept


async def test_the_log_holds_no_secret(sqlite_url: str, tmp_path: Path) -> None:
    """Every call is one line of JSON with its request id; no line holds a key or content."""
    key, wrong = await make_key(sqlite_url), "hg_" + "w" * 43
    log = tmp_path / "log"
    secret = "very-secret-content"
    async with ServerProcess(sqlite_url, "--log-level", "debug", log=log) as server, Caller(server.port, key) as caller:
        await caller.batch(event(secret, {"secret": secret}, subject=secret), event(type="", subject=secret))
        await refused(caller.single(event(secret, {"other": secret})))
        await refused(caller.single(event(secret * 20)))
        await refused(caller.json(b'{"events":"%s' % secret.encode()))
        async with Caller(server.port, wrong) as stranger:
            await refused(stranger.batch(event(), metadata=[("x-request-id", "mine")]))
    lines = [orjson.loads(line) for line in log.read_bytes().splitlines()]
    text = log.read_text()
    for hidden in (key, wrong, key[3:], secret):
        assert hidden not in text
    calls = [line for line in lines if line["event"] == "call"]
    assert [line["code"] for line in calls] == ["OK", "ALREADY_EXISTS", *["INVALID_ARGUMENT"] * 2, "UNAUTHENTICATED"]
    assert all(line["request_id"] and line["ms"] >= 0 for line in calls)
    assert (calls[0]["accepted"], calls[0]["rejected"], calls[0]["workspace"]) == (1, 1, "acme")
    assert (calls[-1]["request_id"], calls[-1]["reason"]) == ("mine", "INVALID_API_KEY")


@on_sqlite
async def test_an_error_of_the_server(caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug's answer gives only the request id, and the bug ends only its own call."""

    async def bug(*_: object) -> None:
        raise RuntimeError("internal matters")

    with monkeypatch.context() as patched:
        patched.setattr(Committer, "submit", bug)
        refusal = await refused(caller.batch(event()))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
    assert "internal matters" not in refusal.message
    assert str(refusal.trailing["x-request-id"]) in refusal.message
    assert statuses(await caller.batch(event())) == ["accepted"]


async def test_a_port_in_use(sqlite_url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        settings = Settings(store=StoreConfig(url=sqlite_url), server=ServerConfig(port=port))
        with pytest.raises(SetupError, match="gRPC") as refusal:
            async with running(settings):
                pass
    assert str(port) in str(refusal.value)
    assert "\n" not in str(refusal.value)
    # The failed start closed the store again: it can be served.
    async with serving(sqlite_url):
        pass


async def test_a_stop_finishes_what_is_in_flight(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch that waits for its ledger's lock at the stop is stored and answered; new batches are refused."""
    arrived = asyncio.Event()
    submit = Committer.submit

    async def noted(committer: Committer, submission: Submission) -> Decision:
        arrived.set()
        return await submit(committer, submission)

    monkeypatch.setattr(Committer, "submit", noted)
    stop = asyncio.Event()
    ready: asyncio.Future[tuple[Service, Caller]] = asyncio.get_running_loop().create_future()

    async def run() -> None:
        async with serving(store_url) as service:
            caller = Caller(service.port, await service.key())
            ready.set_result((service, caller))
            await stop.wait()

    running = asyncio.create_task(run())
    service, caller = await ready
    async with caller:
        workspace = (await service.store.directory.create_workspace("acme")).id
        async with database.locked(store_url, workspace):
            batch = asyncio.create_task(caller.batch(event("k")))
            await arrived.wait()
            stop.set()

            async def turned_away() -> bool:
                async with Caller(service.port, "hg_none") as late:
                    return (await refused(late.single(event()))).code is grpc.StatusCode.UNAVAILABLE

            await until(turned_away)
            assert not batch.done()
        assert statuses(await batch) == ["accepted"]
        await running
    async with serving(store_url) as again, again.caller() as caller:
        assert statuses(await caller.batch(event("k"))) == ["duplicate"]


async def test_a_stop_cuts_off_what_takes_too_long(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The call ends with UNAVAILABLE and an unknown outcome. CANCELLED would mean that no server has seen it."""
    arrived = asyncio.Event()

    async def stuck(*_: object) -> None:
        arrived.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(Committer, "submit", stuck)
    async with contextlib.AsyncExitStack() as stack:
        async with serving(sqlite_url, shutdown_grace=1.0) as service:
            caller = await stack.enter_async_context(Caller(service.port, await service.key()))
            call = asyncio.create_task(refused(caller.batch(event())))
            await arrived.wait()
        refusal = await call
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "OUTCOME_UNKNOWN")


@on_postgres
async def test_what_could_not_be_stored_is_refused_before_it_is_read(store_url: str) -> None:
    full = CommitterConfig(waiting_events=2)
    async with serving(store_url, committer=full) as service, service.caller() as caller:
        workspace = (await service.store.directory.create_workspace("acme")).id
        async with database.locked(store_url, workspace):
            batch = asyncio.create_task(caller.batch(event("a"), event("b")))

            async def turned_away() -> bool:
                found = await refused(caller.json(b"no JSON"))
                return found.code is grpc.StatusCode.RESOURCE_EXHAUSTED

            await until(turned_away)
            for call in (caller.batch(event("c")), caller.single(event("c")), caller.json(b"no JSON")):
                found = await refused(call)
                assert (found.code, found.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
                assert found.retry_after
            assert statuses(await caller.batch(event("c"), validate_only=True)) == ["accepted"]
        assert statuses(await batch) == ["accepted", "accepted"]
        assert (await refused(caller.json(b"no JSON"))).reason == "MALFORMED_JSON"
        assert statuses(await caller.batch(event("c"))) == ["accepted"]


@on_postgres
async def test_the_store_is_lost_and_found(
    service: Service, caller: Caller, channel: grpc.aio.Channel, store_url: str
) -> None:
    await caller.batch(event("before"))
    health = health_pb2_grpc.HealthStub(channel)
    states = health.Watch(health_pb2.HealthCheckRequest())
    assert (await states.read()).status == SERVING
    ready = channel.unary_unary("/headgate.v1.ProbeService/GetReadiness")
    async with outage(store_url):
        for call in (caller.batch, caller.single):
            refusal = await refused(call(event("k")))
            assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE")
        for read in (caller.stored(), ready(b"")):
            refusal = await refused(read)
            assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE")
            assert refusal.retry_after
        assert await channel.unary_unary("/headgate.v1.ProbeService/GetHealth")(b"")
        assert (await states.read()).status == NOT_SERVING
    assert (await states.read()).status == SERVING
    assert await ready(b"")
    assert statuses(await caller.batch(event("before"), event("k"))) == ["duplicate", "accepted"]
    states.cancel()
