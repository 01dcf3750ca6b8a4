"""Subscriptions that are read message by message, over gRPC and as the bridge reads them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
from google.api.httpbody_pb2 import HttpBody

from headgate.v1.bridge_view_pb2 import RawSubscribeRequest
from headgate.v1.event_service_pb2 import SubscribeRequest
from headgate_server.background.subscription import SubscriptionConfig
from tests.support.calls import Caller, event
from tests.support.inprocess import serving
from tests.support.waiting import GUARD

SUBSCRIBE = "/headgate.v1.EventService/Subscribe"
BRIDGED = (("x-envoy-original-path", "/v1/events:subscribe"), ("x-headgate-bridge", "1"))
SSE = ("accept", "text/event-stream")
OFTEN = SubscriptionConfig(heartbeat=0.1)
NEVER = SubscriptionConfig(heartbeat=3600.0)


class Stream:
    """A subscription that is read message by message."""

    def __init__(self, call: Any):
        self.call = call

    async def next(self) -> Any:
        """Return the next message."""
        message = await asyncio.wait_for(self.call.read(), GUARD)
        assert message is not grpc.aio.EOF
        return message

    async def sequences(self, count: int) -> list[int]:
        """Return the sequences of the next events. Other messages between them are skipped."""
        found: list[int] = []
        while len(found) < count:
            message = await self.next()
            if message.HasField("event"):
                found.append(message.event.sequence)
        return found

    async def caught_up(self) -> int:
        """Return the sequence at which the stream has caught up. No other message may precede it."""
        message = await self.next()
        assert message.HasField("caught_up"), message
        return int(message.caught_up.sequence)


def subscribe(caller: Caller, **request: Any) -> Stream:
    """Open a subscription over gRPC."""
    return Stream(caller.events.Subscribe(SubscribeRequest(**request), metadata=caller.metadata))


@asynccontextmanager
async def calling(url: str, **settings: Any) -> AsyncIterator[Caller]:
    """Run a server with these settings, and yield a client of it."""
    async with serving(url, **settings) as service, service.caller() as caller:
        yield caller


class Bridged(Stream):
    """A subscription as the bridge reads it."""

    def __init__(self, caller: Caller, *headers: tuple[str, str], **request: Any):
        metadata = (*caller.metadata, *BRIDGED, *headers)
        method = caller._channel.unary_stream(SUBSCRIBE, response_deserializer=HttpBody.FromString)
        super().__init__(method(RawSubscribeRequest(**request).SerializeToString(), metadata=metadata))

    async def rest(self) -> list[HttpBody]:
        """Return the remaining messages until the stream ends."""
        bodies: list[HttpBody] = []
        while (body := await asyncio.wait_for(self.call.read(), GUARD)) is not grpc.aio.EOF:
            bodies.append(body)
        return bodies


async def write_much(caller: Caller) -> None:
    """Store more bytes than the windows between server and reader can hold."""
    for _ in range(10):
        await caller.batch(*[event(data={"x": "y" * 50_000}) for _ in range(100)])
