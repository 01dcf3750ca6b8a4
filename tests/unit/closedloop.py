"""Callers, places and a store in simulated time: what the pace makes of an overload."""

import heapq
import itertools
import random
from collections import Counter, defaultdict
from collections.abc import Callable
from functools import partial

from headgate_server.ingest.pace import Pace


class Clock:
    """A clock that only changes when it is set."""

    now = 1_000.0

    def __call__(self) -> float:
        return self.now


class Loop:
    """Callers with calls of 100 events, and one server process, in which each workspace has 200 places.

    A caller sends its next call as soon as it is answered, until the time `stop_at`; what was refused before is sent
    until it is stored. Refused callers wait as long as they are told to and up to `jitter` times as long again. Times
    are seconds from the beginning.
    """

    events, places, group = 100, 200, 40

    def __init__(self, rate: float = 20_000.0, *, jitter: float = 1.0, stop_at: float = float("inf")):
        self._rate, self._jitter, self._stop_at = rate, jitter, stop_at
        self._clock = Clock()
        self.pace = Pace(self._clock)
        for _ in range(50):  # the store was in use before
            started = self._clock.now
            self._clock.now += 1_000 / rate
            self.pace.stored(1_000, started)
        self._began = self._clock.now = self._clock.now + 60
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._order, self._random = itertools.count(), random.Random(7)
        self._waiting: list[int] = []
        self._storing: list[int] = []
        self._occupied = Counter[int]()
        self.accepted: list[float] = []
        self.refused: list[float] = []
        self.told: dict[int, list[float]] = defaultdict(list)
        """The times that the callers of each workspace were told to wait."""

    @property
    def now(self) -> float:
        return self._clock.now - self._began

    def run(self, until: float) -> "Loop":
        """Let the time pass, to the end or until nothing is left to do."""
        while self._due and self._due[0][0] <= self._began + until:
            self._clock.now, _, act = heapq.heappop(self._due)
            act()
        return self

    def arrive(self, callers: int, *, workspace: int = 1, at: float = 0.0, returns: bool = True) -> "Loop":
        """Let so many callers make a call at nearly the same time. Some never return after a refusal."""
        for _ in range(callers):
            self._after(at + self._random.random() * 0.05, partial(self._call, workspace, returns))
        return self

    def refusals(self, since: float) -> float:
        """Return the number of refusals for each accepted call."""
        return sum(at >= since for at in self.refused) / sum(at >= since for at in self.accepted)

    def busy(self, since: float, until: float) -> float:
        """Return the share of the store's work that was done in this time."""
        return sum(since <= at < until for at in self.accepted) * self.events / self._rate / (until - since)

    def _after(self, delay: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._due, (self._clock.now + delay, next(self._order), act))

    def _call(self, workspace: int, returns: bool = True) -> None:
        if self._occupied[workspace] >= self.places:
            self.refused.append(self.now)
            told = self.pace.retry_after(workspace, self._occupied.total() * self.events, self.events)
            self.told[workspace].append(told)
            if returns:
                self._after(told * (1 + self._jitter * self._random.random()), partial(self._call, workspace))
            return
        self.pace.admitted(self.events)
        self.accepted.append(self.now)
        self._occupied[workspace] += 1
        self._waiting.append(workspace)
        self._store()

    def _store(self) -> None:
        if self._waiting and not self._storing:
            self._storing, self._waiting = self._waiting[: self.group], self._waiting[self.group :]
            self._after(len(self._storing) * self.events / self._rate, partial(self._stored, self._clock.now))

    def _stored(self, started: float) -> None:
        if len(self._storing) == self.group:
            self.pace.stored(self.group * self.events, started)
        for workspace in self._storing:
            self._occupied[workspace] -= 1
            if self.now < self._stop_at:
                self._after(self._random.random() * 0.03, partial(self._call, workspace))
        self._storing = []
        self._store()
