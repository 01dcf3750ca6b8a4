"""Fixtures for the buffer of the thread client: gRPC's test channel, and a clock that stands still."""

import pytest

from headgate_client import Client, Retry
from tests.unit.client.channel import FakeClock, FakeServer


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def server():
    return FakeServer()


@pytest.fixture
def client(server, clock):
    made = Client(api_key="hg_x", make_channel=lambda: server.channel, clock=clock, retry=Retry(first=1.0, most=1.0))
    yield made
    made.close()


@pytest.fixture
def make(client):
    """Return a function that makes buffers, which are abandoned at the end."""
    made = []

    def buffered(**settings):
        made.append(client.buffered(**{"max_size": 3, "close_timeout": 0.0, **settings}))
        return made[-1]

    yield buffered
    for buffer in made:
        buffer.close(0.0)
