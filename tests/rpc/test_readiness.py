"""Ready means that an event can be stored: REST's answer, gRPC's health, and the cause in the log."""

import asyncio
import os
import resource
from pathlib import Path

import grpc
import orjson
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from headgate.v1.bridge_view_pb2 import GetReadinessResponse
from headgate.v1.workspace_service_pb2 import GetUsageRequest, GetUsageResponse
from headgate_server.core import timestamps
from headgate_server.delivery.config import DeliveryConfig
from headgate_server.process.clock import system_clock
from tests.contract.test_ready import broken
from tests.support import database
from tests.support.calls import Caller, event, refused, statuses
from tests.support.inprocess import Service, serving
from tests.support.marks import on_sqlite
from tests.support.service import ServerProcess, make_key
from tests.support.waiting import until

pytestmark = pytest.mark.bounds

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
LOST_FOUND = ["store_lost", "store_found"]
READY = "/headgate.v1.ProbeService/GetReadiness"


async def _answers(channel: grpc.aio.Channel) -> tuple[bool, bool]:
    """Return whether REST, and whether gRPC, says that the server is ready."""
    health = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
    code = await channel.unary_unary(READY)(b"").code()
    return code is grpc.StatusCode.OK, health.status == SERVING


async def _until(channel: grpc.aio.Channel, ready: bool) -> None:
    async def agreed() -> bool:
        return await _answers(channel) == (ready, ready)

    await until(agreed, seconds=30)


async def test_a_store_that_takes_no_event_is_not_ready(service: Service, caller: Caller) -> None:
    """The fault is found without an append, so the load balancer learns of it first."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{service.port}") as channel:
        await _until(channel, True)
        async with broken(service.url):
            await _until(channel, False)
            refusal = await refused(caller.batch(event("k")))
            assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE")
        await _until(channel, True)
        assert statuses(await caller.batch(event("k"))) == ["accepted"]


async def test_a_log_that_cannot_grow_any_more(sqlite_url: str, tmp_path: Path) -> None:
    """SQLite cannot write, as on a full disk: not ready, with the cause in the log, and ready again afterwards."""
    key = await make_key(sqlite_url)
    log = tmp_path / "log"
    async with ServerProcess(sqlite_url, log=log) as server, Caller(server.port, key) as caller:
        assert statuses(await caller.batch(event("a"))) == ["accepted"]
        soft, hard = resource.prlimit(server.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (16_384, hard))
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            await _until(channel, False)
            for number in range(30):
                assert (await refused(caller.batch(event(f"s{number}")))).code is grpc.StatusCode.UNAVAILABLE
            resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (soft, hard))
            await _until(channel, True)
        assert statuses(await caller.batch(event("a"), event("b"))) == ["duplicate", "accepted"]
    lines = [orjson.loads(line) for line in log.read_bytes().splitlines()]
    causes = [line for line in lines if line["event"] == "append_failed"]
    assert 1 <= len(causes) <= 3
    assert causes[0]["sqlite"].startswith("SQLITE_IOERR")
    assert [line["event"] for line in lines if line["event"] in LOST_FOUND] == LOST_FOUND


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a file system")
async def test_a_full_disk(tmp_path: Path) -> None:
    """The same on a file system that is full: SQLITE_FULL, which is ENOSPC."""
    mount = await asyncio.create_subprocess_exec("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path))
    if await mount.wait():
        pytest.skip("nothing can be mounted here")
    try:
        url = f"sqlite:///{tmp_path}/h.db"
        key = await make_key(url)
        async with (
            ServerProcess(url, stderr=asyncio.subprocess.DEVNULL) as server,
            Caller(server.port, key) as caller,
            grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
        ):
            await _until(channel, True)
            await asyncio.to_thread(_fill, tmp_path / "ballast")
            await _until(channel, False)
            assert (await refused(caller.batch(event(data={"x": "y" * 20_000})))).code is grpc.StatusCode.UNAVAILABLE
            (tmp_path / "ballast").unlink()
            await _until(channel, True)
            assert statuses(await caller.batch(event())) == ["accepted"]
    finally:
        await (await asyncio.create_subprocess_exec("umount", "-l", str(tmp_path))).wait()


def _fill(path: Path) -> None:
    """Write until the disk is full."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    try:
        while True:
            os.write(descriptor, bytes(512))
    except OSError:
        os.close(descriptor)


async def test_usage_after_the_clock_leapt_ahead_and_back(service: Service, caller: Caller) -> None:
    """The month is the one in which the next event counts, not that of the process's clock."""
    workspace = (await service.store.directory.create_workspace("acme")).id
    await service.store.limits.set_quota(workspace, 1)
    await caller.batch(event())
    leap = 400 * 24 * 3600 * 1_000_000
    month, end = timestamps.month(system_clock() + leap)
    await database.execute(service.url, f"UPDATE heads SET created_at = created_at + {leap}, month = {month}")
    usage = await caller.send(
        GetUsageRequest().SerializeToString(), GetUsageResponse, method="/headgate.v1.WorkspaceService/GetUsage"
    )
    assert (usage.used, usage.quota) == (1, 1)
    assert usage.period_start.seconds * 1_000_000 == timestamps.month_start(month)
    assert usage.period_end.seconds * 1_000_000 == end
    for validate_only in (False, True):
        (result,) = (await caller.batch(event(), validate_only=validate_only)).results
        assert result.error.reason == "QUOTA_EXCEEDED"


MALFORMED = [b"\xff", b"\x0a\x05abc", b"\x0a\x02\xc3\x28", b"\x08", bytes(100)]


@pytest.mark.parametrize("body", MALFORMED, ids=repr)
@on_sqlite
async def test_a_malformed_body(service: Service, caller: Caller, body: bytes) -> None:
    """The answer is INVALID_ARGUMENT with our message, for every RPC of every kind."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{service.port}") as channel:
        calls = {
            "grpc.health.v1.HealthCheckRequest": [
                channel.unary_unary("/grpc.health.v1.Health/Check")(body),
                _first(channel.unary_stream("/grpc.health.v1.Health/Watch")(body)),
            ],
            "grpc.reflection.v1alpha.ServerReflectionRequest": [
                _first(
                    channel.stream_stream("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")(
                        iter([body])
                    )
                )
            ],
        }
        for name, ones in calls.items():
            for call in ones:
                refusal = await refused(call)
                assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED_REQUEST")
                assert refusal.message == f"The request is not a serialized {name}."


async def _first(call: grpc.aio.UnaryStreamCall[bytes, bytes]) -> object:
    return await call.read()


@on_sqlite
async def test_what_reflection_cannot_describe(service: Service) -> None:
    """Each request of a stream has its own answer or error, and the stream continues."""
    extension = reflection_pb2.ExtensionRequest(containing_type="no.Such", extension_number=-1)
    requests = [
        reflection_pb2.ServerReflectionRequest(),
        reflection_pb2.ServerReflectionRequest(file_by_filename="../../etc/passwd"),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="."),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol=""),
        reflection_pb2.ServerReflectionRequest(file_containing_extension=extension),
        reflection_pb2.ServerReflectionRequest(all_extension_numbers_of_type="\0"),
    ]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{service.port}") as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        answers = [answer async for answer in stub.ServerReflectionInfo(iter(requests))]
    assert [answer.HasField("error_response") for answer in answers] == [True] * len(requests)


@on_sqlite
async def test_a_watcher_that_does_not_read_keeps_nobody_from_learning(service: Service) -> None:
    """Many watches on one connection that is never read: the state is still set, and the server ends."""
    request = health_pb2.HealthCheckRequest().SerializeToString()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{service.port}") as channel:
        watches = [channel.unary_stream("/grpc.health.v1.Health/Watch")(request) for _ in range(50)]
        for watch in watches:
            await watch.initial_metadata()  # it comes with the first state
        async with broken(service.url):
            await _until(channel, False)
        await _until(channel, True)
        for watch in watches:
            assert health_pb2.HealthCheckResponse.FromString(await watch.read()).status == SERVING
            watch.cancel()


def _channel(service: Service) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(f"127.0.0.1:{service.port}")


@pytest.mark.parametrize("deliver", ["on", "off"])
async def test_the_parts_of_the_service_are_shown(sqlite_url: str, deliver: str) -> None:
    """With the states of each. A refusal has them, too, and the code of its cause."""
    config = DeliveryConfig(deliver=deliver)
    async with serving(sqlite_url, delivery=config) as service, _channel(service) as channel:

        async def parts(*headers: tuple[str, str]) -> dict[str, tuple[str, str]]:
            answer = await channel.unary_unary(READY)(b"", metadata=headers)
            return {part.name: (part.state, part.detail) for part in GetReadinessResponse.FromString(answer).parts}

        async def delivering() -> bool:
            return (await parts())["delivery"][0] == ("delivering" if deliver == "on" else "off")

        await until(delivering)
        found = await parts()
        assert set(found) == {"store", "queue", "delivery", "envoy"}
        assert (found["store"][0], found["envoy"][0]) == ("ready", "unknown")
        assert found["queue"] == ("open", "0 of 40000 events wait.")
        async with broken(service.url):
            await _until(channel, False)
            metadata = (await refused(channel.unary_unary(READY)(b""))).metadata
        await _until(channel, True)
    assert metadata.keys() == {"store", "queue", "delivery", "envoy"}
    assert metadata["store"].startswith("unavailable: STORE_UNAVAILABLE SQLITE_")
    assert service.url.removeprefix("sqlite:///") not in str(metadata)


async def test_a_lock_that_another_process_holds(sqlite_url: str) -> None:
    """Not ready while it is held, and ready again by itself."""
    async with serving(sqlite_url) as service, _channel(service) as channel:
        await _until(channel, True)
        async with database.locked(sqlite_url, 0):
            await _until(channel, False)
            metadata = (await refused(channel.unary_unary(READY)(b""))).metadata
        await _until(channel, True)
    assert metadata["store"].startswith("unavailable: STORE_UNAVAILABLE")


async def test_the_jobs_of_the_process_are_shown(service: Service) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{service.port}") as channel:
        answer = GetReadinessResponse.FromString(await channel.unary_unary(READY)(b""))
    assert {job.name: (job.state, job.failures) for job in answer.jobs} == {
        "key-use": ("running", 0),
        "watch": ("running", 0),
        "rejections": ("running", 0),
        "purge": ("running", 0),
        "heads": ("running", 0),
        "streams": ("running", 0),
        "measure": ("running", 0),
        "deliver": ("running", 0),
    }
