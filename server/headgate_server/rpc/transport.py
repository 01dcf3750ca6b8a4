"""gRPC's own settings for connections and calls, and how the server ends without cancelling calls."""

import asyncio
from collections.abc import Sequence
from typing import Any

import grpc.aio

from headgate_server.core.errors import InvalidRequest, OutcomeUnknown
from headgate_server.core.reasons import Reason
from headgate_server.rpc.pipeline.call import Call, Handler
from headgate_server.rpc.pipeline.interceptors import fail

_MAX_METADATA = 64 * 1024
"""The most bytes of headers of a call: Envoy's default is 60 KiB."""

_MAX_PENDING_CALLS = 20_000
"""The most calls that have arrived and wait for the event loop. By default gRPC cancels at random from 1,000 on
and always from 3,000 on, without a status or a log line. With this setting our code refuses them with
RESOURCE_EXHAUSTED.
"""

_PING_MILLISECONDS = 250
"""The shortest time between two pings. By default gRPC closes a connection (GOAWAY, too_many_pings) without a call that
is pinged more often than every 5 minutes. Envoy pings every second, clients behind firewalls every 10 to 60 s.
"""


_HANDSHAKE_MILLISECONDS = 15_000
"""By default a connection that begins no TLS is kept for 2 minutes. Envoy's listener has the same bound."""


def server_options(body_limit: int) -> Sequence[tuple[str, int]]:
    """Return the options of a `grpc.aio.server` that takes bodies of so many bytes."""
    return (
        # A second process on the port must fail, not share it (decision 7).
        ("grpc.so_reuseport", 0),
        # Above the body limit, and above Envoy's limit with its framing, so that our code words the refusal of a large
        # body.
        ("grpc.max_receive_message_length", body_limit + 2 * 1024 * 1024),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_metadata_size", _MAX_METADATA),
        ("grpc.absolute_max_metadata_size", 2 * _MAX_METADATA),
        ("grpc.server.max_pending_requests", _MAX_PENDING_CALLS),
        ("grpc.server.max_pending_requests_hard_limit", _MAX_PENDING_CALLS),
        ("grpc.server_handshake_timeout_ms", _HANDSHAKE_MILLISECONDS),
        # A stream that nobody reads may fill one window. With probes of the bandwidth gRPC makes it megabytes.
        ("grpc.http2.bdp_probe", 0),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", _PING_MILLISECONDS),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", _PING_MILLISECONDS),
    )


async def received(context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
    """Return the one request of a call. Raises `InvalidRequest` if the caller sends none."""
    request = await context.read()
    if request is grpc.aio.EOF:
        # The caller sent none, or gRPC ended the call, since the request is too large or the caller is gone. In that
        # case gRPC cancels this task now.
        await asyncio.sleep(_CANCELLED_WITHIN)
        raise InvalidRequest("The call has no request.", reason=Reason.MALFORMED_REQUEST)
    return bytes(request)


_CANCELLED_WITHIN = 0.1
"""Seconds."""

_QUIET_SECONDS = 0.1
"""Seconds. Without a new call for this time, gRPC's queue is empty: the event loop takes hundreds of calls in it."""
_ERROR_SECONDS = 0.5
"""Calls in progress end with UNAVAILABLE this many seconds before the grace ends, so that callers still get the error.
"""
_LONGEST_SECONDS = 5.0
"""The longest wait for a quiet time: callers that send new calls without waiting for answers are never quiet."""
_TURN_AWAY_SECONDS = 3.0
"""The longest time in which callers that ask for the server's health go elsewhere. Envoy asks every two seconds."""
_LAST_READ_SECONDS = 2.0
"""Seconds in which readers of streams can read the last messages. After that the streams are cut off as soon as no
other call is in progress.
"""


class Farewell:
    """Ends a server without cancelling a call.

    When a server shuts down, gRPC cancels calls that it has not looked at yet, and calls that arrive before the clients
    have read its GOAWAY. So the server first serves, without health, until no more calls come: Envoy sends them
    elsewhere then. If it had GOAWAY first, it would open a connection for its next call, and the server would close it
    with the port. Callers that ask for no health still come. For them the server then accepts calls until no more come,
    and holds all answers until the shutdown has begun. A client reads GOAWAY before these answers, and sends its next
    call elsewhere.
    """

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()
        self._begun = False
        self._cut_off = False
        self._announced = asyncio.Event()
        self._arrived = 0
        self._streams = 0

    def keeping_back(self, handler: Handler) -> Handler:
        """Return the handler with a gate: once the end has begun, its answers and errors wait for the shutdown."""

        async def kept_back(call: Call) -> bytes:
            self._arrived += 1
            task = asyncio.current_task()
            assert task is not None  # noqa: S101 - this is a coroutine
            self._running.add(task)
            try:
                return await handler(call)
            except asyncio.CancelledError:
                if not self._cut_off:
                    raise
                fail(
                    call, OutcomeUnknown("The server shut down before it could answer.", reason=Reason.OUTCOME_UNKNOWN)
                )
                return b""
            finally:
                self._running.discard(task)
                if self._begun:
                    await self._announced.wait()

        return kept_back

    def watch(self, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
        """Count a lasting stream until all of it is sent. `stop` does not wait for a caller that does not read."""
        self._streams += 1
        context.add_done_callback(self._sent)

    def _sent(self, _: object) -> None:
        self._streams -= 1

    async def turn_away(self, grace: float) -> float:
        """Serve until no more calls come. Return what is left of the grace, in seconds."""
        return grace - await self._quiet(min(_TURN_AWAY_SECONDS, grace / 2))

    async def _quiet(self, most: float) -> float:
        """Return when no call has arrived for a moment, at most after so many seconds. Return how many it took."""
        clock = asyncio.get_running_loop().time
        started, seen = clock(), -1
        while seen != self._arrived and clock() < started + most:
            seen = self._arrived
            await asyncio.sleep(_QUIET_SECONDS)
        return clock() - started

    def begin(self) -> None:
        """Hold back answers from now on, until `stop` has told the clients that the server ends."""
        self._begun = True

    async def stop(self, server: grpc.aio.Server, grace: float) -> None:
        """Shut down, and return when all calls have ended. Calls in progress after `grace` seconds end with
        UNAVAILABLE. gRPC would end them with CANCELLED, which tells the bridge that no server has seen the call.
        """
        self.begin()
        clock = asyncio.get_running_loop().time
        end = clock() + grace
        await self._quiet(min(_LONGEST_SECONDS, grace / 2))
        ending = asyncio.create_task(server.stop(max(0.0, end - clock())))
        await asyncio.sleep(0)  # GOAWAY is written in the task's first turn
        self._announced.set()
        await self._read(server, ending, end - _ERROR_SECONDS)
        self._cut_off = True
        for task in self._running:
            task.cancel()
        await ending

    async def _read(self, server: grpc.aio.Server, ending: "asyncio.Task[None]", until: float) -> None:
        """Wait until all answers are read, at most until the time `until`. Lasting streams have ended already. If only
        they are left, their callers do not read, and the server ends without them.
        """
        clock = asyncio.get_running_loop().time
        await asyncio.wait((ending,), timeout=max(0.0, min(_LAST_READ_SECONDS, until - clock())))
        while not ending.done() and clock() < until:
            if self._streams and not self._running:
                await server.stop(None)
            await asyncio.wait((ending,), timeout=_QUIET_SECONDS)
