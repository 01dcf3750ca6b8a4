"""A sender to a JetStream stream, the events of its tests, and what is in the stream."""

from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from uuid import UUID

import nats
from nats.aio.client import Client
from nats.js import api

from headgate_server.core.types import EventId
from headgate_server.delivery.attempt import Attempt, Verdict
from headgate_server.delivery.jetstream import JetStream
from tests.support.delivering import stored
from tests.support.nats import NatsServer

EVENTS = [stored(number, {"n": number}, type="order.placed") for number in range(1, 2001)]

Make = Callable[..., JetStream]


async def every(ids: Sequence[EventId]) -> Sequence[EventId]:
    """Return all ids: a ledger that has lost nothing."""
    return ids


async def client(server: NatsServer, closing: AsyncExitStack) -> Client:
    """Return a plain client."""
    one = await nats.connect(server.url)
    closing.push_async_callback(one.close)
    return one


async def messages(server: NatsServer) -> Sequence[api.RawStreamMsg]:
    """Return all messages of the stream."""
    async with AsyncExitStack() as closing:
        stream = (await client(server, closing)).jetstream()
        state = (await stream.stream_info("ORDERS")).state
        return [await stream.get_msg("ORDERS", seq=number) for number in range(state.first_seq, state.last_seq + 1)]


async def content(server: NatsServer) -> list[int]:
    """Return the sequences of the events in the stream."""
    return [int(str(UUID(message.headers["Nats-Msg-Id"]))[-4:], 16) for message in await messages(server)]  # type: ignore[index]


def delivered(attempt: Attempt) -> bool:
    """Return True if an attempt delivered. Otherwise fail with its detail."""
    assert attempt.verdict is Verdict.DELIVERED, attempt.detail
    return True
