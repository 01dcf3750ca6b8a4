"""How much is in progress, over all methods."""

import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from headgate_server.core.errors import Overloaded
from headgate_server.core.inflate import check_size
from headgate_server.process.setting import PAST_IT, setting
from headgate_server.rpc.pipeline.call import Call, Handler
from headgate_server.rpc.pipeline.gate import Gate


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadConfig:
    """How much may be in progress at once."""

    concurrent_calls: int = setting(
        2_000, "concurrent-calls", f"Calls in progress, per worker. {PAST_IT}", least=1, most=1_000_000
    )
    """Calls in progress; further ones are refused at once. Streams of health and reflection do not count: whoever
    holds them needs no key, and must not shut out those who have one.
    """
    concurrent_streams: int = setting(
        1_000,
        "concurrent-streams",
        f"Subscriptions open at once, per worker; half of one workspace. {PAST_IT}",
        least=1,
        most=1_000_000,
    )
    """Streams that last until their callers leave. They have a bound of their own, so that subscribers keep nobody from
    sending events. A slow reader may hold 128 KiB and a large event.
    """
    bytes_in_progress: int = 32 * 1024 * 1024
    """Bodies of the calls in progress, inflated; past it calls are refused. A body is there up to three times while it
    is read: as it came, as a field of its message, and as what is decoded.
    """

    @property
    def streams_of_one(self) -> int:
        """The most streams of one workspace, so that none shuts out the others."""
        return max(1, self.concurrent_streams // 2)


class Load:
    """Lets calls in up to two bounds: so many at once, and so many bytes of what they brought. Requests are received
    few at a time.

    Calls and bytes that are past a bound are refused at once; what is alone is never too large.
    """

    def __init__(self, config: LoadConfig):
        self._most_calls = config.concurrent_calls
        self._most_bytes = config.bytes_in_progress
        self._most_streams = config.concurrent_streams
        self._calls = 0
        self._streams = 0
        self._bytes = 0
        self._lock = threading.Lock()
        self._bridge = Gate(_OF_BRIDGE, _OF_BRIDGE - 1, seconds=_LONG)
        self._workspaces = Gate(_OF_WORKSPACES, _OF_WORKSPACES // 2, seconds=_LONG)
        self.public = Gate(_OF_PUBLIC, _OF_PUBLIC, seconds=_SHORT)
        """Receives the requests of callers that need no key."""

    def bounded(self, handler: Handler) -> Handler:
        """Return a handler that counts its calls and their requests, and refuses those past a bound."""

        async def admitted(call: Call) -> bytes:
            if self._calls >= self._most_calls:
                raise Overloaded("Too many calls are in progress; nothing of this one was done.")
            self._calls += 1
            held = _Held()
            call.hold = partial(self._inflated, held)
            if call.receive is not None:
                call.receive = partial(self._received, call, call.receive, held)
            if call.messages is not None:
                call.messages = self._counted(call.messages, held)
            try:
                return await handler(call)
            finally:
                self._calls -= 1
                held.over = True
                self._hold(held, 0)

        return admitted

    def lasting(self, handler: Handler) -> Handler:
        """Return a handler for streams that last, with a bound of their own. Their requests are small, or refused."""

        async def admitted(call: Call) -> bytes:
            if self._streams >= self._most_streams:
                raise Overloaded("Too many streams are open; this one was not begun.")
            self._streams += 1
            if call.receive is not None:
                call.receive = partial(self._received_small, call, call.receive)
            try:
                return await handler(call)
            finally:
                self._streams -= 1

        return admitted

    async def _received_small(self, call: Call, receive: Callable[[], Awaitable[bytes]]) -> bytes:
        """Receive a stream's request in its turn. It does not count, since a stream would hold its share for long."""
        request = await self._in_turn(call, receive)
        check_size(len(request), _LASTING_REQUEST)
        call.size = len(request)
        return request

    async def _received(self, call: Call, receive: Callable[[], Awaitable[bytes]], held: "_Held") -> bytes:
        """Receive a call's request in its turn, and count it."""
        request = await self._in_turn(call, receive)
        call.size = held.came = len(request)
        self._inflated(held, 0)
        return request

    async def _in_turn(self, call: Call, receive: Callable[[], Awaitable[bytes]]) -> bytes:
        workspace = call.principal.workspace.id if call.principal is not None else _NOBODY
        direct = self.public if workspace == _NOBODY else self._workspaces
        gate = self._bridge if call.bridged else direct
        return await gate.receive(workspace, receive)

    def _inflated(self, held: "_Held", size: int) -> None:
        """Count a request that has become `size` bytes more than came. Raises `Overloaded`."""
        if held.over:
            raise Overloaded("The call was given up.")
        size += held.came
        if self._calls > 1 and self._bytes + size - held.size > self._most_bytes:
            raise Overloaded("Too much is in progress; nothing of this call was done.")
        self._hold(held, size)

    async def _counted(self, messages: AsyncIterator[bytes], held: "_Held") -> AsyncIterator[bytes]:
        """Yield a stream's requests; each counts until the handler asks for the next."""
        async for message in messages:
            size = len(message)
            if self._bytes > 0 and self._bytes + size > self._most_bytes:
                raise Overloaded("Too many requests are in progress; nothing was done with this one.")
            self._hold(held, size)
            yield message
            self._hold(held, 0)

    def _hold(self, held: "_Held", size: int) -> None:
        with self._lock:  # bodies are inflated on threads
            size = 0 if held.over else size
            self._bytes += size - held.size
            held.size = size


_NOBODY = 0
"""In the place of a workspace's id, which is positive, where the caller needs no key."""
_OF_BRIDGE = 3
"""Requests from the bridge that are received at once, one less of any one workspace. The bridge has the whole body when
the call begins, so none is slow.
"""
_OF_WORKSPACES = 4
"""Requests with a key that are received at once, half of them of any one workspace, however slow its callers are."""
_OF_PUBLIC = 2
"""Requests of callers that need no key, received at once: those to the health service, which are small."""
_LONG = 60.0
"""Seconds that a request may take to arrive: as long as the bridge gives an HTTP request."""
_SHORT = 5.0
_LASTING_REQUEST = 64 * 1024
"""Bytes of the request of a stream that lasts: filters, as large as headers may be."""


@dataclass(slots=True)
class _Held:
    """The bytes that one call holds now."""

    size: int = 0
    came: int = 0
    """Bytes of the serialized request."""
    over: bool = False
    """Whether the call has ended; the thread that inflates its body may not have."""
