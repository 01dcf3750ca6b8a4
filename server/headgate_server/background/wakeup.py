"""How followers learn of commits of their own process; commits of others they find by polling."""

import asyncio
import contextlib


class Wakeups:
    """The bells of one process's followers: each commit rings all of them."""

    def __init__(self) -> None:
        self._bells: list[Wakeup] = []

    def add(self) -> "Wakeup":
        """Return a bell of its own for one more follower."""
        self._bells.append(Wakeup())
        return self._bells[-1]

    def ring(self) -> None:
        """Wake everybody."""
        for bell in self._bells:
            bell.ring()


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
