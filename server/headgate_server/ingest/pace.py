"""Measures how fast events are stored, and calculates when a refused caller should retry."""

import time
from collections.abc import Callable

_FIRST_GUESS = 10_000.0
"""Events a second, until the first group has been timed."""
_WEIGHT = 0.2
"""The weight of the newest group in the average. About ten groups have an influence."""
_SHORTEST = 0.1
_LONGEST = 10.0
"""Seconds. Longer predictions are unreliable."""


class Pace:
    """Calculates when refused callers should retry: one after the other, at the rate at which events are stored.

    If all got the same time, all would retry at the same time, and most of them would be refused again. In an overload
    most of the work would be refusing requests.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._rate = _FIRST_GUESS
        self._next = 0.0

    def stored(self, events: int, seconds: float) -> None:
        """Record that a group of this many events took this many seconds."""
        self._rate += _WEIGHT * (events / max(seconds, 1e-6) - self._rate)

    def retry_after(self, waiting: int, events: int) -> float:
        """Return after how many seconds a caller with `events` events should retry, while `waiting` events wait."""
        now = self._clock()
        self._next = max(self._next, now + waiting / self._rate) + events / self._rate
        # Some callers never retry. The bound keeps them from delaying the others without end.
        self._next = min(self._next, now + _LONGEST)
        return max(self._next - now, _SHORTEST)
