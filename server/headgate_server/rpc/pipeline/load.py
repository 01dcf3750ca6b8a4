"""The bounds of calls, streams and bytes in progress, over all methods."""

import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from functools import partial

from headgate_server.core.errors import Overloaded
from headgate_server.core.inflate import check_size
from headgate_server.process.metrics import catalogue
from headgate_server.process.metrics.cells import Reading
from headgate_server.process.setting import PAST_IT, setting
from headgate_server.rpc.pipeline.call import Call, Handler
from headgate_server.rpc.pipeline.gate import Gate


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadConfig:
    """The most calls, streams and bytes in progress."""

    concurrent_calls: int = setting(
        2_000, "concurrent-calls", f"Calls in progress, per worker. {PAST_IT}", least=1, most=1_000_000
    )
    """Further calls are refused at once. Streams of health and reflection do not count: their callers need no key, and
    must not use up the calls of callers with a key.
    """
    concurrent_streams: int = setting(
        1_000,
        "concurrent-streams",
        f"Subscriptions open at once, per worker; half of one workspace. {PAST_IT}",
        least=1,
        most=1_000_000,
    )
    """Subscriptions last until their callers end them. They have a bound of their own, so that they do not use up the
    calls of senders. A slow reader may hold 128 KiB and a large event.
    """
    ingest_streams: int = setting(
        16,
        "ingest-streams",
        f"Streams of events open at once, per worker; half of one workspace. {PAST_IT}",
        least=1,
        most=100_000,
    )
    """Each may hold one request of the largest size, which gRPC receives before our code sees its size."""
    bytes_in_progress: int = 32 * 1024 * 1024
    """The bytes of the decompressed bodies of all calls in progress. Further calls are refused. A body can be in memory
    three times while it is read: as received, as a field of its message, and decoded.
    """

    @property
    def streams_of_one(self) -> int:
        """The most streams of one workspace, so that no workspace uses all of them."""
        return max(1, self.concurrent_streams // 2)

    @property
    def ingest_streams_of_one(self) -> int:
        """The most streams of events of one workspace."""
        return max(1, self.ingest_streams // 2)


class Load:
    """Bounds the number of calls in progress and the bytes of their requests. Only a few requests are received at a
    time.

    Calls and bytes past a bound are refused at once. A single call is never refused because of its bytes.
    """

    def __init__(self, config: LoadConfig):
        self._most_calls = config.concurrent_calls
        self._most_bytes = config.bytes_in_progress
        self._most_streams = config.concurrent_streams
        self._most_exchanges = config.ingest_streams
        self._exchanges = 0
        self._calls = 0
        self._streams = 0
        self._bytes = 0
        self._lock = threading.Lock()
        self._bridge = Gate(_OF_BRIDGE, _OF_BRIDGE - 1, seconds=_LONG)
        self._workspaces = Gate(_OF_WORKSPACES, _OF_WORKSPACES // 2, seconds=_LONG)
        self.public = Gate(_OF_PUBLIC, _OF_PUBLIC, seconds=_SHORT)
        """The gate for requests of callers that need no key."""

    def readings(self) -> Iterator[Reading]:
        """Yield what is in progress now, and the bounds, for the metrics."""
        yield catalogue.CALLS_IN_PROGRESS, (), self._calls
        yield catalogue.CALLS_BOUND, (), self._most_calls
        yield catalogue.REQUEST_BYTES, (), self._bytes
        yield catalogue.REQUEST_BYTES_BOUND, (), self._most_bytes

    def bounded(self, handler: Handler) -> Handler:
        """Return a handler that counts its calls and their requests, and refuses those past a bound."""

        async def admitted(call: Call) -> bytes:
            if self._calls >= self._most_calls:
                raise Overloaded("Too many calls are in progress; nothing of this one was done.")
            self._calls += 1
            held = _Held()
            call.hold = partial(self._count, held)
            if call.receive is not None:
                call.receive = partial(self._received, call, call.receive, held)
            if call.messages is not None:
                call.messages = self._count_each(call.messages, held)
            try:
                return await handler(call)
            finally:
                self._calls -= 1
                held.over = True
                self._hold(held, 0)
                # They refer to the call. Without this, all calls would be left to the garbage collector.
                call.receive = call.messages = None

        return admitted

    def lasting(self, handler: Handler) -> Handler:
        """Return a handler for streams that last until the caller ends them. They have a bound of their own. A large
        request is refused.
        """

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

    def exchanging(self, handler: Handler) -> Handler:
        """Return a handler for streams of requests that last until the caller ends them. They have a bound of their
        own. Their handler bounds how much of one stream is in memory.
        """

        async def admitted(call: Call) -> bytes:
            if self._exchanges >= self._most_exchanges:
                raise Overloaded("Too many streams are open; this one was not begun.")
            self._exchanges += 1
            try:
                return await handler(call)
            finally:
                self._exchanges -= 1

        return admitted

    async def _received_small(self, call: Call, receive: Callable[[], Awaitable[bytes]]) -> bytes:
        """Receive a stream's request in its turn. Its bytes are not counted, because a stream would hold them for a
        long time.
        """
        request = await self._in_turn(call, receive)
        check_size(len(request), _LASTING_REQUEST)
        call.size = len(request)
        return request

    async def _received(self, call: Call, receive: Callable[[], Awaitable[bytes]], held: "_Held") -> bytes:
        """Receive a call's request in its turn, and count it."""
        request = await self._in_turn(call, receive)
        call.size = held.received = len(request)
        self._count(held, 0)
        return request

    async def _in_turn(self, call: Call, receive: Callable[[], Awaitable[bytes]]) -> bytes:
        workspace = call.principal.workspace.id if call.principal is not None else _NO_WORKSPACE
        direct = self.public if workspace == _NO_WORKSPACE else self._workspaces
        gate = self._bridge if call.bridged else direct
        return await gate.receive(workspace, receive)

    def _count(self, held: "_Held", size: int) -> None:
        """Count a request that takes `size` bytes more than were received. Raises `Overloaded`."""
        if held.over:
            raise Overloaded("The call has ended.")
        size += held.received
        if self._calls > 1 and self._bytes + size - held.size > self._most_bytes:
            raise Overloaded("Too much is in progress; nothing of this call was done.")
        self._hold(held, size)

    async def _count_each(self, messages: AsyncIterator[bytes], held: "_Held") -> AsyncIterator[bytes]:
        """Yield a stream's requests; each counts until the handler asks for the next."""
        async for message in messages:
            size = len(message)
            if self._bytes > 0 and self._bytes + size > self._most_bytes:
                raise Overloaded("Too many requests are in progress; nothing was done with this one.")
            self._hold(held, size)
            yield message
            self._hold(held, 0)

    def _hold(self, held: "_Held", size: int) -> None:
        with self._lock:  # bodies are decompressed on threads
            size = 0 if held.over else size
            self._bytes += size - held.size
            held.size = size


_NO_WORKSPACE = 0
"""The workspace of a caller that needs no key. Ids of workspaces are positive."""
_OF_BRIDGE = 3
"""Requests that are received from the bridge at once, and one less from the same workspace. The bridge has the whole
body when the call begins, so none is slow.
"""
_OF_WORKSPACES = 4
"""Requests with a key that are received at once. At most half are from the same workspace, because its callers may be
slow.
"""
_OF_PUBLIC = 2
"""Requests without a key that are received at once. They are requests to the health service, which are small."""
_LONG = 60.0
"""The most seconds for a request to arrive. The bridge allows an HTTP request the same time."""
_SHORT = 5.0
"""The most seconds for a request without a key to arrive."""
_LASTING_REQUEST = 64 * 1024
"""The most bytes of a lasting stream's request. It contains filters, so it has the limit of headers."""


@dataclass(slots=True)
class _Held:
    """The bytes that one call holds now."""

    size: int = 0
    received: int = 0
    """Bytes of the serialized request."""
    over: bool = False
    """Whether the call has ended. The thread that decompresses its body may still run."""
