"""Fixtures of the client's tests: one server for each module, and a workspace of its own for each test."""

import asyncio
import uuid
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from headgate_client import AsyncClient, Client
from headgate_server.core.model import Scope
from tests.support.service import ServerProcess, make_key
from tests.support.waiting import held


class Served(NamedTuple):
    """A server's address, and the URL of its store."""

    address: str
    store: str

    def key(self, *scopes: Scope) -> str:
        """Make a key of a new workspace."""
        return asyncio.run(make_key(self.store, f"w{uuid.uuid4().hex}", scopes or (Scope.ADMIN,)))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Run a server."""
    store = f"sqlite:///{tmp_path_factory.mktemp('client')}/headgate.db"
    with held(ServerProcess(store)) as server:
        yield Served(f"127.0.0.1:{server.port}", store)


@pytest.fixture
def key(served: Served) -> str:
    """Return a key of an empty workspace."""
    return served.key()


class Either:
    """A client of either kind, whose methods are awaited."""

    def __init__(self, client: Client | AsyncClient):
        self.client = client

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.client, name)
        return method if isinstance(self.client, AsyncClient) else lambda *a, **k: asyncio.to_thread(method, *a, **k)

    async def pages(self, **filters: Any) -> list[Any]:
        """Return all pages of a list."""
        if isinstance(self.client, AsyncClient):
            return [page async for page in self.client.list(**filters)]
        return await asyncio.to_thread(lambda: list(self.client.list(**filters)))

    async def events(self, **filters: Any) -> list[Any]:
        """Return the events of all pages of a list."""
        if isinstance(self.client, AsyncClient):
            return [event async for event in self.client.list(**filters).events()]
        return await asyncio.to_thread(lambda: list(self.client.list(**filters).events()))

    async def next(self, subscription: Any) -> Any:
        """Return the next event of a subscription; None at its end."""
        if isinstance(self.client, AsyncClient):
            return await anext(subscription, None)
        return await asyncio.to_thread(next, subscription, None)


@pytest.fixture(params=[Client, AsyncClient])
async def either(request: pytest.FixtureRequest, served: Served, key: str) -> Any:
    """Return a client of each kind in turn."""
    made = Either(request.param(served.address, api_key=key))
    yield made
    await made.close()
