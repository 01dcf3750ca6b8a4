"""Measures how fast events are stored, and calculates how many may wait, and when a refused caller should retry."""

import time
from collections.abc import Callable

from headgate_server.core.types import WorkspaceId

_FIRST_GUESS = 10_000.0
"""Events a second, until the first group has been timed."""
_WEIGHT = 0.2
"""The weight of the newest group in the averages. About ten groups have an influence."""
_SHORTEST = 0.1
_LONGEST = 10.0
"""Seconds. Longer predictions are unreliable. It also bounds the time to recover after an overload has ended."""
_LOOK_BACK = 1.0
"""Seconds over which admitted events are counted."""
_LEAST_SHARE = 0.2
"""The least share of the store's pace at which refused callers come back. If callers that were not refused take every
place, this is also the number of refusals for each call that is stored. With less, refused callers would wait longer
after the overload has ended.
"""


class Pace:
    """Calculates when refused callers should retry: one after the other, at the rate that is left for them.

    If all got the same time, all would retry at the same time, and most of them would be refused again. In an overload
    most of the work would be refusing requests. The rate that is left is the rate at which events are stored, less the
    rate at which calls were admitted in the last second: callers that send again as soon as they are answered take
    every place that becomes free, and if refused callers came back at the full rate, one call would be refused for
    each one that is stored.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._events, self._seconds = _FIRST_GUESS, 1.0
        """The average group. Its rate is their quotient, so a short group counts for less than a long one."""
        self._stored_until = clock()
        self._next: dict[WorkspaceId, float] = {}
        """The latest time for which a workspace's callers were told to retry. It begins with the one that was refused
        longest ago.
        """
        self._since, self._admitted, self._admission = clock(), 0, 0.0

    @property
    def rate(self) -> float:
        """Events that are stored in a second, while the store is busy."""
        return self._events / self._seconds

    def stored(self, events: int, started: float) -> None:
        """Record that a group of this many events was stored between `started` and now. Time in which several groups
        were stored counts once.
        """
        now = self._clock()
        seconds = max(now - max(started, self._stored_until), 1e-6)
        self._stored_until = now
        self._events += _WEIGHT * (events - self._events)
        self._seconds += _WEIGHT * (seconds - self._seconds)

    def admitted(self, events: int) -> None:
        """Record that a call with this many events found a place."""
        now = self._clock()
        self._roll(now)
        self._admitted += events

    def retry_after(self, workspace: WorkspaceId, waiting: int, events: int) -> float:
        """Return after how many seconds a workspace's caller with `events` events should retry, while `waiting` events
        wait. The callers of each workspace come one after the other, and the workspaces share the rate.
        """
        now, rate = self._clock(), self.rate
        self._roll(now)
        while self._next and next(iter(self._next.values())) <= now:
            self._next.pop(next(iter(self._next)))
        before = self._next.pop(workspace, now)
        left = rate * max(1 - self._admission / rate, _LEAST_SHARE) / (1 + len(self._next))
        # Some callers never retry. The bound keeps them from delaying the others without end.
        at = self._next[workspace] = min(max(before, now + waiting / rate) + events / left, now + _LONGEST)
        return max(at - now, _SHORTEST)

    def _roll(self, now: float) -> None:
        """Begin to count admitted events anew, if they were counted long enough."""
        if (seconds := now - self._since) >= _LOOK_BACK:
            self._since, self._admitted, self._admission = now, 0, self._admitted / seconds
