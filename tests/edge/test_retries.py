"""Which failed calls Envoy sends to another server."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import grpc.aio
import httpx
import pytest
from grpc_health.v1 import health_pb2

from headgate_bridge import BridgeConfig, Envoy
from headgate_server.process.ports import reserved
from headgate_server.rpc import health
from headgate_server.rpc.pipeline.trust import PUBLIC
from tests.support.calls import Caller, event, statuses
from tests.support.inprocess import Service, serving
from tests.support.waiting import GUARD, until


class Ending(grpc.GenericRpcHandler):
    """A server that says it is healthy, and answers every call as gRPC does for a server that shuts down."""

    def __init__(self) -> None:
        self.calls = 0

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        """Return the handler of any method."""
        check = details.method.startswith(f"/{health.SERVICE}/")
        return grpc.unary_unary_rpc_method_handler(self._healthy if check else self._cancelled)

    async def _healthy(self, body: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        return health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING).SerializeToString()

    async def _cancelled(self, body: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        self.calls += 1
        await context.abort(grpc.StatusCode.CANCELLED)
        return b""


@asynccontextmanager
async def _ending() -> AsyncIterator[tuple[Ending, int]]:
    server, ending = grpc.aio.server(), Ending()
    server.add_generic_rpc_handlers((ending,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield ending, port
    await server.stop(None)


@pytest.fixture
async def both(sqlite_url: str) -> AsyncIterator[tuple[Service, Ending, int]]:
    """Run a server and one that shuts down, behind one Envoy. Return the two and Envoy's port."""
    async with serving(sqlite_url) as service, _ending() as (ending, port):
        upstreams = (("127.0.0.1", port), ("127.0.0.1", service.port))
        config = BridgeConfig(http_port=0, upstreams=upstreams, body_limit=1 << 20, marker=PUBLIC, concurrency=1)
        async with Envoy(config) as envoy:
            yield service, ending, envoy.port


async def test_a_call_that_a_server_cancelled_unseen(both: tuple[Service, Ending, int]) -> None:
    """It goes to the other server, over REST and gRPC, also the question whether a key is valid."""
    service, ending, port = both
    key = await service.key()
    async with (
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers={"x-api-key": key}, timeout=30) as http,
        Caller(port, key) as caller,
    ):
        # Envoy asks about a key a few times, and may choose the server that is ending each time.
        while (answer := await http.post("/v1/events", json={"type": "t"})).status_code == 503:
            assert answer.headers["retry-after"]
        for number in range(20):
            answer = await http.post("/v1/events", json={"type": "t", "idempotency_key": f"rest-{number}"})
            assert answer.json()["status"] == "accepted", answer.text
            assert statuses(await caller.batch(event(f"grpc-{number}"))) == ["accepted"]
    assert ending.calls > 0


PAUSE = "retry_back_off: {base_interval: 0.025s, max_interval: 0.5s}"
"""The pauses between tries, as envoy.yaml has them: together they last as long as a server needs to start."""


async def test_calls_outlast_a_restart(sqlite_url: str, tmp_path: Path) -> None:
    """While no server runs, a call waits for one to come back. Nobody has read it, so it can be sent again.

    On a busy machine a start takes longer than on others, so the longest pause is longer here.
    """
    shipped = (Path(__file__).parents[2] / "envoy.yaml").read_text()
    assert shipped.count(PAUSE) == 1
    patient = tmp_path / "envoy.yaml"
    patient.write_text(shipped.replace(PAUSE, PAUSE.replace("0.5s", "5s")))
    with reserved("127.0.0.1", 0, 1, "a server") as (port,), reserved("127.0.0.1", 0, 1, "Envoy") as (admin,):
        servers = (("127.0.0.1", port),)
        config = BridgeConfig(
            http_port=0,
            upstreams=servers,
            body_limit=1 << 20,
            marker=PUBLIC,
            admin_port=admin,
            concurrency=1,
            config_file=patient,
        )
        async with Envoy(config) as envoy, httpx.AsyncClient(base_url=f"http://127.0.0.1:{envoy.port}") as http:
            async with serving(sqlite_url, port=port) as service:
                http.headers["x-api-key"] = await service.key()
                assert (await http.post("/v1/events", json={"type": "t"})).status_code == 200

            async def tried_again() -> bool:
                statistics = await http.get(f"http://127.0.0.1:{admin}/stats?filter=headgate.upstream_rq_retry$")
                return int(statistics.text.split()[-1]) >= 4 * len(calls)

            calls = [asyncio.create_task(http.post("/v1/events", json={"type": "t"}, timeout=GUARD)) for _ in range(20)]
            await until(tried_again)
            async with serving(sqlite_url, port=port):
                answers = await asyncio.gather(*calls)
    assert [answer.status_code for answer in answers] == [200] * len(calls)
