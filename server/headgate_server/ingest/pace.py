"""How fast events are stored, and when a caller that was refused should come again."""

import time
from collections.abc import Callable

_FIRST_GUESS = 10_000.0
"""Events a second, until a group was timed."""
_WEIGHT = 0.2
"""Of the newest group in the average: some ten groups are remembered."""
_SHORTEST = 0.1
_LONGEST = 10.0
"""Seconds. Longer predictions are unreliable."""


class Pace:
    """Says when refused callers should come again: one after the other, at the rate at which events are stored.

    If all were told the same time, all would come at the same time, and most of them would be refused again: in an
    overload the refusing would then be most of the work.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._rate = _FIRST_GUESS
        self._next = 0.0

    def stored(self, events: int, seconds: float) -> None:
        """Note that a group of so many events took so long."""
        self._rate += _WEIGHT * (events / max(seconds, 1e-6) - self._rate)

    def retry_after(self, waiting: int, events: int) -> float:
        """Return after how many seconds a caller with so many events should come, while so many wait before it."""
        now = self._clock()
        self._next = max(self._next, now + waiting / self._rate) + events / self._rate
        # Some callers never come back. The bound keeps them from pushing the others away without end.
        self._next = min(self._next, now + _LONGEST)
        return max(self._next - now, _SHORTEST)
