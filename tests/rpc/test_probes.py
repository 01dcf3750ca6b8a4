"""The port for probes: the state of the server and of the process, in plain text beside TLS, and nothing else."""

from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
import trustme
from grpc_health.v1 import health_pb2, health_pb2_grpc

from headgate_server.app.server import running
from headgate_server.config import Settings, StoreConfig
from headgate_server.core.errors import SetupError
from headgate_server.process.tls import TlsConfig
from headgate_server.rpc.server import GrpcServer, ServerConfig
from tests.support.calls import refused
from tests.support.tls import Files

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


def _settings(url: str, port: int, tls: TlsConfig | None = None) -> Settings:
    return Settings(store=StoreConfig(url=url), server=ServerConfig(port=0, health_port=port), tls=tls or TlsConfig())


@pytest.fixture
async def server(sqlite_url: str, tmp_path: Path) -> AsyncIterator[GrpcServer]:
    """A server that asks its clients for certificates."""
    files = Files(tmp_path, trustme.CA().issue_cert("localhost"), trustme.CA())
    tls = TlsConfig(cert=files.cert, key=files.key, client_ca=files.client_ca)
    async with running(_settings(sqlite_url, 0, tls)) as started:
        yield started


async def test_ready_and_live_are_two_states(server: GrpcServer) -> None:
    """A server that cannot store is not to be restarted for that."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.health_port}") as channel:
        check = health_pb2_grpc.HealthStub(channel).Check

        async def states() -> list[int]:
            names = ("", "live", "headgate.v1.IngestService")
            return [(await check(health_pb2.HealthCheckRequest(service=name))).status for name in names]

        assert await states() == [SERVING, SERVING, SERVING]
        server.set_serving(False)
        assert await states() == [NOT_SERVING, SERVING, NOT_SERVING]
        unknown = await refused(check(health_pb2.HealthCheckRequest(service="no")))
        assert unknown.code is grpc.StatusCode.NOT_FOUND


async def test_nothing_else_is_on_the_port(server: GrpcServer) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.health_port}") as channel:
        for method in ("/headgate.v1.LedgerService/GetHead", "/headgate.v1.ProbeService/GetReadiness"):
            refusal = await refused(channel.unary_unary(method)(b"", metadata=[("x-api-key", "hg_x")]))
            assert refusal.code is grpc.StatusCode.UNIMPLEMENTED
        for body in (b"\xff", b"\x0a\xff\x7f" + b"x" * 2000):
            with pytest.raises(grpc.RpcError) as no:
                await channel.unary_unary("/grpc.health.v1.Health/Check")(body)
            assert no.value.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED)


async def test_a_port_that_is_taken(server: GrpcServer, sqlite_url: str) -> None:
    with pytest.raises(SetupError, match="for probes: the port is in use"):
        async with running(_settings(sqlite_url + "2", server.health_port or 0)):
            pass
