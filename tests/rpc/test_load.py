"""The bounds on calls in progress, over all methods."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import cast

import pytest

from headgate_server.core.errors import Overloaded
from headgate_server.rpc.pipeline.call import Call, Handler
from headgate_server.rpc.pipeline.load import Load
from headgate_server.rpc.server import ServerConfig


async def _received(call: Call) -> bytes:
    assert call.receive is not None
    return await call.receive()


@dataclass
class Held:
    """Calls that end when the test decides."""

    ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, call: Call) -> bytes:
        """Answer a call."""
        body = await _received(call)
        await self.ended.wait()
        return body


@dataclass
class Request:
    """The parts of a call that the code reads."""

    body: bytes
    receive: Callable[[], Awaitable[bytes]] | None = None
    messages: None = None
    bridged: bool = True
    principal: None = None
    size: int = 0

    def __post_init__(self) -> None:
        async def receive() -> bytes:
            return self.body

        self.receive = receive

    def to(self, handler: Handler) -> "asyncio.Task[bytes]":
        """Make the call."""
        return asyncio.ensure_future(handler(cast(Call, self)))


async def test_calls_in_progress_are_bounded() -> None:
    held = Held()
    handler = Load(ServerConfig(concurrent_calls=2)).bounded(held)
    calls = [Request(b"a").to(handler), Request(b"b").to(handler)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await Request(b"c").to(handler)
    held.ended.set()
    assert await asyncio.gather(*calls) == [b"a", b"b"]
    assert await Request(b"c").to(handler) == b"c"


async def test_bytes_in_progress_are_bounded_but_a_lone_call_is_never_too_large() -> None:
    held = Held()
    handler = Load(ServerConfig(bytes_in_progress=10)).bounded(held)
    calls = [Request(b"x" * 50).to(handler)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await Request(b"y").to(handler)
    held.ended.set()
    await asyncio.gather(*calls)
    held.ended.clear()
    calls = [Request(b"x" * 5).to(handler), Request(b"y" * 5).to(handler)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await Request(b"z").to(handler)
    held.ended.set()
    await asyncio.gather(*calls)


async def test_a_call_that_failed_or_was_given_up_is_no_longer_in_progress() -> None:
    async def failing(call: Call) -> bytes:
        raise ValueError(await _received(call))

    held = Held()
    load = Load(ServerConfig(concurrent_calls=1))
    with pytest.raises(ValueError, match="a"):
        await Request(b"a").to(load.bounded(failing))
    given_up = Request(b"b").to(load.bounded(held))
    await asyncio.sleep(0)
    given_up.cancel()
    with pytest.raises(asyncio.CancelledError):
        await given_up
    held.ended.set()
    assert await Request(b"c").to(load.bounded(held)) == b"c"


async def test_what_a_body_becomes_counts_too() -> None:
    held = Held()

    async def inflating(call: Call) -> bytes:
        body = await _received(call)
        call.hold(8)
        await held.ended.wait()
        return body

    handler = Load(ServerConfig(bytes_in_progress=10)).bounded(inflating)
    alone = Request(b"x").to(handler)
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await Request(b"y").to(handler)
    held.ended.set()
    assert await alone == b"x"
    assert await Request(b"y").to(handler) == b"y"


async def test_a_body_that_is_still_inflated_after_its_call_counts_no_more() -> None:
    calls: list[Call] = []

    async def noted(call: Call) -> bytes:
        calls.append(call)
        return await _received(call)

    handler = Load(ServerConfig(bytes_in_progress=10)).bounded(noted)
    await Request(b"x").to(handler)
    with pytest.raises(Overloaded):
        calls[0].hold(100)
    assert await Request(b"y" * 5).to(handler) == b"y" * 5
