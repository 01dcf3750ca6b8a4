"""How many requests are received at once.

gRPC holds at most one window (64 KiB) of a request until somebody asks for it; then it takes in the whole message. So
requests are asked for late, when the caller is known, and few at a time.
"""

import asyncio
from collections.abc import Awaitable, Callable
from weakref import WeakValueDictionary

from headgate_server.core.errors import Overloaded, TooSlow


class Gate:
    """Lets requests in, `at_once` of all callers and `of_one` of any one of them, in the order in which they came."""

    def __init__(self, at_once: int, of_one: int, *, seconds: float):
        """`seconds` is how long a request may wait and arrive, together."""
        self._all = asyncio.Semaphore(at_once)
        self._of_one = of_one
        self._seconds = seconds
        self._callers: WeakValueDictionary[int, asyncio.Semaphore] = WeakValueDictionary()

    async def receive(self, caller: int, request: Callable[[], Awaitable[bytes]]) -> bytes:
        """Return the request of a caller, who has any number that no other caller has.

        Raises `Overloaded` if its turn did not come in time, and `TooSlow` if the request did not arrive in time.
        """
        # A caller waits for its own turn first, so that no caller fills the queue of all.
        own = self._callers.get(caller)
        if own is None:
            own = self._callers[caller] = asyncio.Semaphore(self._of_one)
        waits = True
        try:
            async with asyncio.timeout(self._seconds), own, self._all:
                waits = False
                return await request()
        except TimeoutError:
            if waits:
                raise Overloaded("Too many requests arrive at once; nothing of this one was done.") from None
            raise TooSlow(f"The request did not arrive within {self._seconds:g} s.") from None
