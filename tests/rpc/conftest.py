"""Fixtures of the gRPC server's tests."""

from collections.abc import AsyncIterator

import pytest

from tests.support.calls import Caller
from tests.support.inprocess import Service, serving
from tests.support.rejection_desk import Desk


@pytest.fixture
async def service(store_url: str) -> AsyncIterator[Service]:
    """Run a server on a fresh store, of each dialect in turn."""
    async with serving(store_url) as running:
        yield running


@pytest.fixture
async def caller(service: Service) -> AsyncIterator[Caller]:
    """Return a client of workspace `acme` with every scope."""
    async with service.caller() as client:
        yield client


@pytest.fixture
def desk(caller: Caller) -> Desk:
    """Return an operator's requests for rejections with a key that has every scope."""
    return Desk(caller)
