"""How followers learn of commits of their own process; commits of others they find by polling."""

import asyncio
import contextlib


class Wakeup:
    """One follower's bell: rung by commits, waited for by the follower."""

    def __init__(self) -> None:
        self._rung = asyncio.Event()

    def ring(self) -> None:
        """Wake who waits, or who waits next."""
        self._rung.set()

    async def wait(self, seconds: float) -> bool:
        """Return True as soon as the bell was rung since the last return, False after so many seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._rung.wait()
        rung = self._rung.is_set()
        self._rung.clear()
        return rung
