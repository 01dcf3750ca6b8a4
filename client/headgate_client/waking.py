"""From threads to event loops, and from the end of a client to what waits."""

import asyncio
import contextlib


def wake(loop: asyncio.AbstractEventLoop, future: "asyncio.Future[None]") -> None:
    """Set a future of an event loop, from any thread."""
    with contextlib.suppress(RuntimeError):  # the loop has ended, and nobody waits any more
        loop.call_soon_threadsafe(_set, future)


class Ending:
    """Pauses of coroutines, which the end of their client cuts short. Each is in the loop that runs then."""

    def __init__(self) -> None:
        self.has_come = False
        self._pauses: set[asyncio.Future[None]] = set()

    async def pause(self, seconds: float) -> None:
        """Wait so many seconds, or until the end has come."""
        if self.has_come:
            return
        pause: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pauses.add(pause)
        try:
            await asyncio.wait((pause,), timeout=seconds)
        finally:
            self._pauses.discard(pause)

    def come(self) -> None:
        """Let the end come: pauses end now, and no later one waits."""
        self.has_come = True
        for pause in tuple(self._pauses):
            wake(pause.get_loop(), pause)


def _set(future: "asyncio.Future[None]") -> None:
    """Set a future that is perhaps cancelled."""
    if not future.done():
        future.set_result(None)
