"""The programs of `make speed-client` store what they count."""

import asyncio

import pytest

from bench.contender import Assignment
from bench.suite import By, Load
from headgate_client import Client
from tests.client.conftest import Served
from tests.client.speed import Program


@pytest.mark.parametrize("way", ["stream", "stub", "buffer", "aio"])
def test_a_program_stores_its_orders_in_order_and_says_if_it_did_not(served: Served, way: str) -> None:
    program = Program(way, served.address, key := served.key(), Assignment(Load(By.GRPC, 100), 200))
    asyncio.run(program.run())
    assert asyncio.run(program.check()).stored == 200
    with Client(served.address, api_key=key) as client:
        stored = [event.key for event in client.list().events()]
    assert stored == [order["idempotency_key"] for order in program._orders]
    program._statuses.clear()
    asyncio.run(program.run())
    with pytest.raises(RuntimeError, match="0 of 200"):
        asyncio.run(program.check())
