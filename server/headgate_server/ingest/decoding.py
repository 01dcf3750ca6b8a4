"""Reads large bodies: on threads, so that other calls continue, and few bytes at once, so that memory stays bounded."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TypeVar

from headgate_server.core.jsonbody import INLINE_BYTES

_Decoded = TypeVar("_Decoded")

_BYTES_AT_ONCE = 8 * 1024 * 1024
"""One body of the largest default size. While it is read, a list of empty lists takes 25 times its bytes, and an object
of short names 30 times. Two threads of one interpreter read two bodies no faster than one thread.
"""


class Decoding:
    """Reads bodies. Large ones are read in the order of their arrival, at most `bytes_at_once` at the same time. A
    process has one.
    """

    def __init__(self, bytes_at_once: int = _BYTES_AT_ONCE):
        self._most = bytes_at_once
        self._bytes = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def __call__(self, size: int, read: Callable[[], _Decoded]) -> _Decoded:
        """Return the result of `read`, which reads a body of `size` bytes. Small bodies are read at once. Raises what
        `read` raises.
        """
        if size <= INLINE_BYTES:
            return read()
        await self._enter(size)
        work = asyncio.ensure_future(asyncio.to_thread(read))
        # If the caller gives up, the thread continues, and its memory counts until it ends.
        work.add_done_callback(lambda done: self._leave(size, done))
        return await asyncio.shield(work)

    async def _enter(self, size: int) -> None:
        if not self._waiting and self._fits(size):
            self._bytes += size
            return
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((size, place))
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self._bytes -= size
            self._admit()
            raise

    def _fits(self, size: int) -> bool:
        """Whether there is room. A lone body is admitted whatever its size."""
        return not self._bytes or self._bytes + size <= self._most

    def _leave(self, size: int, work: "asyncio.Future[_Decoded]") -> None:
        if not work.cancelled():
            work.exception()  # if the caller gave up, nothing else reads the exception
        self._bytes -= size
        self._admit()

    def _admit(self) -> None:
        while self._waiting:
            size, place = self._waiting[0]
            if not place.done():
                if not self._fits(size):
                    return
                self._bytes += size
                place.set_result(None)
            self._waiting.popleft()
