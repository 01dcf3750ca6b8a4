"""Fixtures of the contract's tests."""

import pytest

from headgate_server.store import Store


@pytest.fixture(params=["sqlite", "postgres", "oldest_postgres"])
def store_url(request: pytest.FixtureRequest) -> str:
    """Return the URL of a fresh store, of each dialect and of the oldest server in turn."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
async def workspace(store: Store) -> int:
    """Return the id of a workspace whose ledger is empty."""
    return (await store.directory.create_workspace("acme")).id
