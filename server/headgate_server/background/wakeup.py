"""Wakes followers after commits of their own process. They find commits of other processes by polling."""

import asyncio
import contextlib


class Wakeups:
    """The wake-ups of one process's followers. Each commit triggers all of them."""

    def __init__(self) -> None:
        self._bells: list[Wakeup] = []

    def add(self) -> "Wakeup":
        """Return the wake-up of one more follower."""
        self._bells.append(Wakeup())
        return self._bells[-1]

    def ring(self) -> None:
        """Wake all followers."""
        for bell in self._bells:
            bell.ring()


class Wakeup:
    """One follower's wake-up: commits trigger it, and the follower waits for it."""

    def __init__(self) -> None:
        self._rung = asyncio.Event()

    def ring(self) -> None:
        """Wake the follower, or let its next wait return at once."""
        self._rung.set()

    async def wait(self, seconds: float) -> bool:
        """Return True as soon as `ring` was called since the last return, False after `seconds`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._rung.wait()
        rung = self._rung.is_set()
        self._rung.clear()
        return rung
