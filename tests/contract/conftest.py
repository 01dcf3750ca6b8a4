"""Fixtures of the contract's tests."""

from collections.abc import AsyncIterator

import pytest

from headgate_server.store import Store
from tests.support import tampering


@pytest.fixture(params=["sqlite", "postgres", "oldest_postgres"])
def store_url(request: pytest.FixtureRequest) -> str:
    """Return the URL of a fresh store, of each dialect and of the oldest server in turn."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
async def workspace(store: Store) -> int:
    """Return the id of a workspace whose ledger is empty."""
    return (await store.directory.create_workspace("acme")).id


@pytest.fixture
async def tampered(store: Store, store_url: str, workspace: int) -> AsyncIterator[tampering.Tampered]:
    """Return a workspace with six events, and what changes its tables."""
    async with tampering.opened(store, store_url, workspace) as opened:
        yield opened
