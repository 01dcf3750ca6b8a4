"""A server in this process, on a free port and a store of its own."""

import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any

from headgate_server.access import admin
from headgate_server.app.server import running
from headgate_server.config import Settings, StoreConfig
from headgate_server.core.model import Scope
from headgate_server.process.metrics import Metrics
from headgate_server.rpc.ingest_servicer import IngestConfig
from headgate_server.rpc.server import ServerConfig
from headgate_server.store import Store
from tests.support.calls import Caller

if TYPE_CHECKING:
    from headgate_server.process.tracing.spans import Tracing


class Service:
    """A running server. `store` is a second store on the server's database."""

    def __init__(self, url: str, port: int, store: Store):
        self.url = url
        self.port = port
        self.store = store

    async def key(self, *scopes: Scope, workspace: str = "acme") -> str:
        """Create a key. Without `scopes` it has every scope."""
        return await admin.create_key(self.store.directory, workspace, frozenset(scopes or (Scope.ADMIN,)))

    @contextlib.asynccontextmanager
    async def caller(self, *scopes: Scope, workspace: str = "acme") -> AsyncIterator[Caller]:
        """Yield a client with a new key of its own."""
        async with Caller(self.port, await self.key(*scopes, workspace=workspace)) as caller:
            yield caller


@contextlib.asynccontextmanager
async def serving(
    url: str,
    *,
    port: int = 0,
    body_limit: int = 8 << 20,
    max_events: int = 1_000,
    load: Mapping[str, int] | None = None,
    metrics: Metrics | None = None,
    tracing: "Tracing | None" = None,
    **settings: Any,
) -> AsyncIterator[Service]:
    """Run a server on the store of this URL during a block. `load` has fields of `LoadConfig`."""
    wanted = Settings(
        store=StoreConfig(url=url),
        server=ServerConfig(port=port, body_limit=body_limit, **(load or {})),
        ingest=IngestConfig(max_events=max_events),
        **settings,
    )
    async with running(wanted, metrics, tracing) as server, admin.opened(url) as store:
        yield Service(url, server.port, store)
