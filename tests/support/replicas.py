"""Several servers on one PostgreSQL, in this process, behind several Envoys. One of them reaches the database through a
proxy that can cut it off.
"""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import Any, NamedTuple

import grpc.aio
import httpx
from grpc_health.v1 import health_pb2, health_pb2_grpc

from headgate.v1.bridge_view_pb2 import GetReadinessRequest, GetReadinessResponse
from headgate_bridge import BridgeConfig, Envoy
from headgate_server.access import admin
from headgate_server.app.server import running
from headgate_server.config import Settings, StoreConfig
from headgate_server.delivery.config import DeliveryConfig
from headgate_server.process.ports import reserved
from headgate_server.rpc.pipeline.trust import PUBLIC
from headgate_server.rpc.server import ServerConfig
from headgate_server.store import Store
from tests.support.calls import Caller
from tests.support.proxy import Proxy
from tests.support.service import make_key

SERVERS = 3
ENVOYS = 2
GRACE = 10.0


class Replica:
    """A server on a fixed port, which can be stopped and started again."""

    def __init__(self, url: str, port: int):
        self.port = port
        self._settings = Settings(
            store=StoreConfig(url=url),
            server=ServerConfig(port=port),
            delivery=DeliveryConfig(allowed=(ip_network("127.0.0.0/8"),)),
            shutdown_grace=GRACE,
        )
        self._running = contextlib.AsyncExitStack()

    async def start(self) -> None:
        """Return when it accepts calls."""
        await self._running.enter_async_context(running(self._settings))

    async def stop(self) -> None:
        """End it as SIGTERM does."""
        await self._running.aclose()

    async def is_ready(self) -> bool:
        """Whether it says that an event can be stored."""
        async with grpc.aio.insecure_channel(f"127.0.0.1:{self.port}") as channel:
            answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    async def delivers(self) -> bool:
        """Whether it holds the lease of the delivery. Only a server that is ready says so."""
        async with grpc.aio.insecure_channel(f"127.0.0.1:{self.port}") as channel:
            ask = channel.unary_unary(
                "/headgate.v1.ProbeService/GetReadiness", response_deserializer=GetReadinessResponse.FromString
            )
            answer = await ask(GetReadinessRequest().SerializeToString(), timeout=10)
        return any(part.name == "delivery" and part.state == "delivering" for part in answer.parts)


class Host(NamedTuple):
    """A server as Envoy sees it."""

    healthy: bool
    calls: int


@dataclass(frozen=True, slots=True)
class Gateway:
    """One Envoy."""

    port: int
    admin: httpx.AsyncClient
    """A client of its admin interface."""

    async def hosts(self) -> dict[int, Host]:
        """Return the servers by their ports."""
        clusters = (await self.admin.get("/clusters?format=json")).json()
        (cluster,) = (each for each in clusters["cluster_statuses"] if each["name"] == "headgate")
        return {
            host["address"]["socket_address"]["port_value"]: Host(
                not host["health_status"].get("failed_active_health_check", False),
                sum(int(each.get("value", 0)) for each in host["stats"] if each["name"] == "rq_total"),
            )
            for host in cluster["host_statuses"]
        }


@dataclass(frozen=True, slots=True)
class Site:
    """The servers, the Envoys before all of them, the database behind them."""

    url: str
    replicas: list[Replica]
    gateways: list[Gateway]
    proxy: Proxy
    """Between the last replica and the database."""
    store: Store

    async def key(self, workspace: str) -> str:
        """Create a key with every scope."""
        return await make_key(self.url, workspace)

    def callers(self, key: str) -> "contextlib.AbstractAsyncContextManager[list[Caller]]":
        """Return clients of each server itself."""
        return _callers([replica.port for replica in self.replicas], key)

    def bridged(self, key: str) -> "contextlib.AbstractAsyncContextManager[list[Caller]]":
        """Return clients of each Envoy."""
        return _callers([gateway.port for gateway in self.gateways], key)

    async def is_used(self, port: int) -> bool:
        """Whether each Envoy sends calls to the server on a port."""
        return all([(await gateway.hosts())[port].healthy for gateway in self.gateways])

    async def is_unused(self, port: int) -> bool:
        """Whether no Envoy sends calls to the server on a port."""
        return not any([(await gateway.hosts())[port].healthy for gateway in self.gateways])


@contextlib.asynccontextmanager
async def _callers(ports: list[int], key: str) -> AsyncIterator[list[Caller]]:
    async with contextlib.AsyncExitStack() as stack:
        yield [await stack.enter_async_context(Caller(port, key)) for port in ports]


@contextlib.asynccontextmanager
async def site(url: str, folder: Path) -> AsyncIterator[Site]:
    """Run everything on a database."""
    async with contextlib.AsyncExitStack() as stack:
        proxy = await stack.enter_async_context(Proxy(folder, url))
        store = await stack.enter_async_context(admin.opened(url))
        ports = stack.enter_context(contextlib.ExitStack())
        free: Any = [ports.enter_context(reserved("127.0.0.1", 0, 1, "a server"))[0] for _ in range(SERVERS + ENVOYS)]
        replicas = [Replica(proxy.url if index == SERVERS - 1 else url, free[index]) for index in range(SERVERS)]
        for replica in replicas:
            stack.push_async_callback(replica.stop)
            await replica.start()
        stack.callback(proxy.thaw)
        upstreams = tuple(("127.0.0.1", replica.port) for replica in replicas)
        gateways = []
        for admin_port in free[SERVERS:]:
            config = BridgeConfig(
                http_port=0,
                upstreams=upstreams,
                body_limit=8 << 20,
                marker=PUBLIC,
                admin_port=admin_port,
                concurrency=1,
            )
            envoy = await stack.enter_async_context(Envoy(config))
            client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{admin_port}", verify=False)
            gateways.append(Gateway(envoy.port, await stack.enter_async_context(client)))
        yield Site(url, replicas, gateways, proxy, store)
