"""Several server processes behind one Envoy: all are used, a dead one is replaced, and none is left over."""

import asyncio
import os
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import grpc.aio
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from structlog.testing import capture_logs

from headgate.v1.event_pb2 import Event
from headgate.v1.ingest_service_pb2 import BatchIngestRequest
from headgate.v1.ledger_service_pb2 import VerifyLedgerRequest
from headgate_server.cli.workers import counted
from headgate_server.config import Settings
from headgate_server.core.errors import SetupError
from headgate_server.process.child import RestartPolicy
from headgate_server.process.ports import reserved
from headgate_server.process.workers import Workers
from tests.support import database
from tests.support.edge import Edge, failure, statuses
from tests.support.processes import children, is_gone
from tests.support.service import Client, ServerProcess, make_key
from tests.support.up import HEADGATE, Up, headgate
from tests.support.waiting import held, until, until_true
from tests.support.writing import BATCH, Writers, over_grpc

WRITERS = 8


async def _scraped(http: httpx.AsyncClient, up: Up) -> dict[str, float]:
    """Return the samples of the service's metrics, by their name with labels."""
    said = (await http.get(f"http://127.0.0.1:{up.metrics_port}/metrics")).text
    lines = (line.rpartition(" ") for line in said.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in lines}


async def _calls(http: httpx.AsyncClient, up: Up) -> list[float]:
    """Return the number of calls that each worker got, together with those that it replaced."""
    samples = await _scraped(http, up)
    return [value for name, value in sorted(samples.items()) if name.startswith("headgate_worker_calls_total{")]


@contextmanager
def _ports_in_a_row(count: int) -> Iterator[int]:
    """Reserve so many ports in a row, below the ephemeral ones, and return the first."""
    with ExitStack() as stack:
        for first in range(20_000 + os.getpid() % 10_000, 32_000, count):
            with suppress(SetupError):
                stack.enter_context(reserved("127.0.0.1", first, count, "a test"))
                break
        yield first


@contextmanager
def _taken(port: int) -> Iterator[None]:
    """Listen on a port that this process has reserved."""
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", port))
        taken.listen()
        yield


def _grows(name: str) -> bool:
    bare = name.partition("{")[0]
    return bare.startswith("headgate_") and bare.endswith(("_total", "_bucket", "_count", "_sum"))


async def test_one_of_two_is_killed_under_traffic(store_url: str, tmp_path: Path) -> None:
    """Only calls in progress on it may fail; the other worker continues, and no event is lost or stored twice."""
    with (
        Up("--store", store_url, "--workers", "2", "--metrics-port", "0", folder=tmp_path) as up,
    ):
        async with Client(int(up.rest.rpartition(":")[2]), up.key) as client, httpx.AsyncClient() as http:

            async def both_called(since: list[float]) -> None:
                async def called() -> bool:
                    now = await _calls(http, up)
                    return len(now) == 2 and all(new > 10 + old for new, old in zip(now, since, strict=True))

                await until(called)

            writers = Writers(over_grpc(client))
            tasks = [asyncio.create_task(writers.write(number)) for number in range(WRITERS)]
            await both_called([0, 0])
            assert not writers.failures
            shown = await _scraped(http, up)
            before = up.workers()
            victim = min(before)
            os.kill(victim, signal.SIGKILL)
            await writers.some_more()
            await both_called(await _calls(http, up))
            # Each writer has one call in progress at a time, and at most two of them fail. A trace of the kernel shows
            # why (sock:inet_sock_set_state): it closes the sockets of a killed process some 50 ms after the signal, one
            # after the other. The first call was on a connection that was there. The second was on one that Envoy made
            # between the end of that connection and that of the listening socket: the kernel accepts it, and nobody
            # ever reads it. After that connections are refused, and Envoy sends the calls to the other worker.
            failed = len(writers.failures)
            assert max(writers.failures_of_each.values(), default=0) <= 2, writers.failures
            assert not [failure for failure in writers.failures if "check the key" in failure]
            await writers.some_more()
            assert len(writers.failures) == failed, writers.failures
            later = await _scraped(http, up)
            writers.stop()
            await asyncio.gather(*tasks)
            stored = await client.all_events()
            verified = await client.ledger.VerifyLedger(VerifyLedgerRequest(limit=100_000), metadata=client.metadata)
        after = up.workers()
        assert up.end(signal.SIGTERM) == 0
    assert len(after) == 2
    assert len(after & before) == 1
    assert victim not in after
    assert up.log.read_text().count("worker_replaced") == 1
    # No counter has gone backwards with the worker's death.
    grown = {name: later[name] - value for name, value in shown.items() if _grows(name)}
    assert {name: more for name, more in grown.items() if more < 0} == {}
    assert later['headgate_restarts_total{kind="worker"}'] == 1
    assert later["headgate_workers_answering"] == later["headgate_workers"] == 2
    assert verified.valid
    assert [event.sequence for event in stored] == list(range(1, len(stored) + 1))
    assert {event.idempotency_key: event.id for event in stored} == writers.acknowledged
    # If an answer was lost, a key's first acknowledgement is `duplicate`.
    assert max(writers.accepted.values()) == 1
    assert sum(count == 0 for count in writers.accepted.values()) <= len(writers.failures) * (BATCH + 1)


async def test_one_of_two_is_asked_to_end_under_traffic(postgres_url: str, tmp_path: Path) -> None:
    """If an operator or a tool sends SIGTERM to a worker, it is replaced, and no call fails."""
    with Up("--store", postgres_url, "--workers", "2", folder=tmp_path) as up:
        async with Client(int(up.rest.rpartition(":")[2]), up.key) as client:
            writers = Writers(over_grpc(client))
            tasks = [asyncio.create_task(writers.write(number)) for number in range(4 * WRITERS)]
            for replaced in (1, 2):
                await writers.some_more()
                os.kill(min(up.workers()), signal.SIGTERM)

                async def is_replaced(count: int = replaced) -> bool:
                    return up.log.read_text().count("worker_replaced") == count

                await until(is_replaced)
            await writers.some_more()
            writers.stop()
            await asyncio.gather(*tasks)
        assert up.end(signal.SIGTERM) == 0
    assert not writers.failures


def test_sigterm_finishes_what_all_are_at(postgres_url: str, tmp_path: Path) -> None:
    """Batches that wait for their ledger's lock in both workers are stored and answered; then all processes end."""
    with (
        Up("--store", postgres_url, "--workers", "2", folder=tmp_path) as up,
        closing(Edge(up, postgres_url, up.key)) as edge,
        ThreadPoolExecutor() as pool,
    ):
        parts = children(up.pid)
        assert len(parts) == 3
        ((workspace,),) = asyncio.run(database.execute(postgres_url, "SELECT min(id) FROM workspaces"))
        with held(database.locked(postgres_url, workspace)):
            batches = [pool.submit(edge.batch, {"type": "t"}) for _ in range(6)]
            until_true(lambda: database.lock_waiters(postgres_url) == 2)
            up.signal(signal.SIGTERM)
        assert [statuses(batch.result(30)) for batch in batches] == [["accepted"]] * 6
        assert up.wait() == 0
        assert all(is_gone(pid) for pid in parts)
    assert "worker_died" not in up.log.read_text()


async def test_the_parts_alone(postgres_url: str, tmp_path: Path) -> None:
    """`serve --workers` with `bridge` in front is the same service; Envoy skips servers that do not run."""
    key = await make_key(postgres_url)
    async with ServerProcess(postgres_url, "--workers", "2", log=tmp_path / "log") as server:
        workers = children(server.pid)
        assert len(set(server.ports)) == len(workers) == 2
        with reserved("127.0.0.1", 0, 1, "a test") as (unused,):
            ports = (unused, *server.ports)
            upstreams = [part for port in ports for part in ("--upstream", f"127.0.0.1:{port}")]
            command = [*HEADGATE, "bridge", "--http-port", "0", *upstreams]
            bridge = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
            try:
                assert bridge.stdout is not None
                address = (await bridge.stdout.readline()).split()[-1].decode()
                async with httpx.AsyncClient(base_url=address, headers={"x-api-key": key}) as http:
                    # Larger than Envoy's buffer of a connection: the body is kept for a retry as well.
                    batch = {"events": [{"type": "t", "data": {"text": "x" * 1_000}}] * 500}
                    for _ in range(4):
                        assert (await http.post("/v1/events/batch", json=batch)).status_code == 200
                    assert (await http.get("/v1/ledger/head")).json()["sequence"] == 4 * 500
                    assert await server.end(signal.SIGTERM) == 0
                    assert all(is_gone(pid) for pid in workers)
                    assert failure(await http.get("/readyz")) == (503, 14, "UPSTREAM_UNAVAILABLE")
            finally:
                bridge.terminate()
                await bridge.wait()


async def test_kill_9_of_their_parent_leaves_none(postgres_url: str) -> None:
    async with ServerProcess(postgres_url, "--workers", "2") as server:
        workers = children(server.pid)
        assert len(workers) == 2
        await server.kill()
        for pid in workers:
            until_true(lambda pid=pid: is_gone(pid))


async def test_one_that_cannot_start_again_ends_it(sqlite_url: str) -> None:
    """After so many failures in a row, with growing pauses, an error names the worker."""
    before = set(children(os.getpid()))
    policy = RestartPolicy(first_pause=0.02, growth=2, failures=3)
    with reserved("127.0.0.1", 0, 1, "a test") as (port,), capture_logs() as logs:
        arguments = [[f"--grpc-port={port}", "--workers=1", "--log-level=error"]]
        workers = Workers(arguments, {"HEADGATE_STORE": sqlite_url}, grace=5, policy=policy)
        try:
            await workers.start()
            database_file = database.sqlite_path(sqlite_url)
            os.unlink(database_file)
            os.mkdir(database_file)
            (server,) = set(children(os.getpid())) - before
            os.kill(server, signal.SIGKILL)
            with pytest.raises(SetupError, match=f"port {port} died and could not be started again, 3 times"):
                await workers.keep()
        finally:
            await workers.stop()
    said = [(entry["event"], entry["restart_in"]) for entry in logs if "restart_in" in entry]
    assert said == [("worker_died", 0.02), ("worker_not_started", 0.04), ("worker_not_started", 0.08)]


async def test_one_that_hangs_in_its_start(sqlite_url: str) -> None:
    """It is killed after its time, and counts as a failed start."""
    policy = RestartPolicy(first_pause=0.02, failures=2)
    before = set(children(os.getpid()))
    with reserved("127.0.0.1", 0, 1, "a test") as (port,):
        environment = {"HEADGATE_STORE": sqlite_url, "HEADGATE_LOG_LEVEL": "error"}
        workers = Workers([[f"--grpc-port={port}"]], environment, grace=5, policy=policy, start_seconds=0.05)
        try:
            # The first start has more time, because it migrates.
            await workers.start()
            (server,) = set(children(os.getpid())) - before
            os.kill(server, signal.SIGKILL)
            with pytest.raises(SetupError, match=r"2 times in a row; the worker took no calls within 0\.05 s"):
                await workers.keep()
            assert all(is_gone(pid) for pid in set(children(os.getpid())) - before)
        finally:
            await workers.stop()


def test_a_port_of_theirs_is_taken(postgres_url: str) -> None:
    with _ports_in_a_row(2) as first, _taken(first + 1):
        done = headgate("serve", "--store", postgres_url, "--workers", "2", "--grpc-port", str(first))
    assert done.returncode == 2
    assert done.stderr == f"headgate: cannot listen on 127.0.0.1:{first + 1} for gRPC: the port is in use\n"


async def test_as_many_as_the_machine_can_use(tmp_path: Path) -> None:
    """By default. The greeting says the number; the others start after it, and take calls like the first, also if the
    next port for probes is another program's.
    """
    with (
        _ports_in_a_row(2) as first,
        _taken(first + 1),
        Up("--workers", "auto", "--health-port", str(first), folder=tmp_path) as up,
    ):
        async with grpc.aio.insecure_channel(f"127.0.0.1:{first}") as channel:
            health = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        assert health.status == health_pb2.HealthCheckResponse.SERVING
        wanted = counted(Settings(), serves_alone=False).workers
        assert f"   workers  {wanted}\n" in up.said
        assert len(up.ports) == wanted
        for number, port in enumerate(up.ports, 1):
            async with Client(port, up.key) as client:
                batch = BatchIngestRequest(events=[Event(type="t")])
                answer = await client.ingest.BatchIngest(
                    batch, metadata=client.metadata, wait_for_ready=True, timeout=60
                )
            assert [result.sequence for result in answer.results] == [number]
        assert len(up.workers()) == wanted
        assert up.end(signal.SIGTERM) == 0
    assert up.log.read_text().count("worker_started") == wanted - 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        pytest.param(("serve", "--workers", "0"), "--workers", id="none"),
        pytest.param(("up", "--workers", "65"), "--workers", id="too many"),
        pytest.param(("up", "--workers", "some"), "'some' is not a number of workers", id="no number"),
        pytest.param(("serve", "--workers", "3", "--grpc-port", "65534"), "no ports for 3 workers", id="no ports"),
        pytest.param(("bridge", "--upstream", "somewhere"), "'somewhere' is not an upstream", id="no port"),
        pytest.param(("bridge", "--upstream", "host:65536"), "'host:65536' is not an upstream", id="no such port"),
    ],
)
def test_what_cannot_be(options: tuple[str, ...], said: str) -> None:
    done = headgate(*options, HEADGATE_STORE="postgresql://nobody@127.0.0.1:1/x")
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
