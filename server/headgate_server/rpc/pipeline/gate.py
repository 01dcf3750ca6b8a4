"""The bound of requests that are received at once.

gRPC holds at most one window (64 KiB) of a request until the server reads it. Then gRPC receives the whole message. So
the server reads a request only after the caller is authenticated, and reads few at a time.
"""

import asyncio
from collections.abc import Awaitable, Callable

from headgate_server.core.errors import Overloaded, TooSlow


class Gate:
    """Receives at most `at_once` requests at a time, and at most `of_one` of the same caller. Requests wait in the
    order of their arrival.
    """

    def __init__(self, at_once: int, of_one: int, *, seconds: float):
        """`seconds` is the longest time for waiting and receiving together."""
        self._all = asyncio.Semaphore(at_once)
        self._of_one = of_one
        self._seconds = seconds
        self._callers: dict[int, _Caller] = {}

    async def receive(self, caller: int, request: Callable[[], Awaitable[bytes]]) -> bytes:
        """Return the request of a caller. `caller` is a number that is different for each caller.

        Raises `Overloaded` if it waits too long for its turn, and `TooSlow` if the request does not arrive in time.
        """
        # A request waits for its caller's own turn first, so that one caller does not fill the common queue.
        own = self._callers.get(caller)
        if own is None:
            own = self._callers[caller] = _Caller(self._of_one)
        own.requests += 1
        waits = True
        try:
            async with asyncio.timeout(self._seconds), own.turn, self._all:
                waits = False
                return await request()
        except TimeoutError:
            if waits:
                raise Overloaded("Too many requests arrive at once; nothing of this one was done.") from None
            raise TooSlow(f"The request did not arrive within {self._seconds:g} s.") from None
        finally:
            own.requests -= 1
            if not own.requests:
                del self._callers[caller]


class _Caller:
    """A caller that has requests: their number, and their turns."""

    __slots__ = ("requests", "turn")

    def __init__(self, at_once: int):
        self.requests = 0
        self.turn = asyncio.Semaphore(at_once)
