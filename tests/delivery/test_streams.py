"""JetStream destinations from end to end: a server, a store and a real NATS: each event once, in order."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import nats
from nats.js.errors import NotFoundError

from headgate_server.delivery.config import DeliveryConfig
from headgate_server.delivery.nats_connection import NatsConfig
from tests.delivery.test_delivery import shows
from tests.support.calls import Caller, event, refused
from tests.support.destinations import Operator
from tests.support.inprocess import serving
from tests.support.nats import NatsServer
from tests.support.waiting import until

BUS = {"name": "bus", "jetstream": {"stream": "ORDERS", "subject_prefix": "orders"}, "start": "beginning"}


@asynccontextmanager
async def operating(url: str, server: NatsServer) -> AsyncIterator[tuple[Caller, Operator]]:
    """Run the service on a store, and return a client."""
    config = DeliveryConfig(nats=NatsConfig(url=server.url))
    async with serving(url, delivery=config) as running, running.caller() as caller:
        yield caller, Operator.of(caller)


async def in_stream(server: NatsServer) -> list[tuple[str, str]]:
    """Return subject and event id of every message in the stream."""
    client = await nats.connect(server.url)
    try:
        stream = client.jetstream()
        try:
            count = (await stream.stream_info("ORDERS")).state.messages
        except NotFoundError:
            return []
        found = [await stream.get_msg("ORDERS", seq=number) for number in range(1, count + 1)]
        return [(str(one.subject), (one.headers or {})["Nats-Msg-Id"]) for one in found]
    finally:
        await client.close()


async def test_every_event_once_and_in_order_over_restarts(store_url: str, server: NatsServer) -> None:
    ids: list[str] = []

    async def sent(caller: Caller, **fields: Any) -> None:
        results = (await caller.batch(*[event(**fields) for _ in range(100)])).results
        ids.extend(result.id for result in results)

    async with operating(store_url, server) as (caller, operator):
        await sent(caller)
        made = await operator.create(BUS)
        assert (made["ordering"], made["jetstream"]) == ("ordered", BUS["jetstream"])
        await shows(operator, made["id"], cursor=100, delivered=100)
        refusal = await refused(operator.replay(made["id"], {"after_sequence": 0}))
        assert refusal.reason == "INVALID_FIELD"
    async with operating(store_url, server) as (caller, operator):
        server.stop()
        await sent(caller, type="order.paid")
        await shows(operator, made["id"], set_aside=1)
        server.start()
        await operator.call("RetryFailure", id=made["id"], sequence=101)
        await shows(operator, made["id"], cursor=200, set_aside=0)
    found = await in_stream(server)
    assert [name for _, name in found] == ids
    assert found[150][0] == "orders.order.paid"


async def test_a_message_of_another_publisher_is_a_visible_failure(store_url: str, server: NatsServer) -> None:
    client = await nats.connect(server.url)
    stream = client.jetstream()
    await stream.add_stream(name="ORDERS", subjects=["orders.>"])
    await stream.publish("orders.x", b"theirs")
    await client.close()
    async with operating(store_url, server) as (caller, operator):
        await caller.batch(event())
        made = await operator.create(BUS)
        found = await shows(operator, made["id"], set_aside=1, cursor=0)
    assert "another publisher" in found["last_error"]


async def test_a_filter_and_a_second_destination(store_url: str, server: NatsServer) -> None:
    async with operating(store_url, server) as (caller, operator):
        made = await operator.create({**BUS, "filter": {"types": ["a.*"]}})
        await caller.batch(event(type="a.b"), event(type="b"), event(type="a.c"))
        await shows(operator, made["id"], cursor=3, delivered=2)
        second = await operator.create({**BUS, "name": "second"})
        found = await shows(operator, second["id"], set_aside=1, cursor=0)
        assert "not of this destination" in found["last_error"]

    async def both() -> bool:
        return [subject for subject, _ in await in_stream(server)] == ["orders.a.b", "orders.a.c"]

    await until(both)
