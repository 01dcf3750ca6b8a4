"""What the contract's tests share."""

import pytest

from headgate_server.store import Store


@pytest.fixture
async def workspace(store: Store) -> int:
    """Return the id of a workspace whose ledger is empty."""
    return (await store.create_workspace("acme")).id
