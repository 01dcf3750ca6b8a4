"""Measures what an append spends its time with."""

import time
from enum import StrEnum
from typing import NamedTuple


class Phase(StrEnum):
    """A part of an append."""

    LOCK = "lock"
    """Waiting for a connection and for the locks of the ledgers' heads."""
    LOOK_UP = "look_up"
    """Looking up the identities and request keys."""
    SETTLE = "settle"
    """Deciding and hashing, in this process."""
    WRITE = "write"
    COMMIT = "commit"


class Lap(NamedTuple):
    """A phase, or a piece of it, with its beginning and end in nanoseconds of `time.perf_counter_ns`."""

    phase: Phase
    began: int
    ended: int


class Phases:
    """The laps of one append, in order. An append that is tried again, or that has several workspaces, has several laps
    of a phase. One thread at a time uses it.
    """

    __slots__ = ("_last", "began", "laps")

    def __init__(self) -> None:
        self.laps: list[Lap] = []
        self.began = self._last = time.perf_counter_ns()

    def ended(self, phase: Phase) -> None:
        """Record that a phase ends now. It began when the one before it ended."""
        now = time.perf_counter_ns()
        self.laps.append(Lap(phase, self._last, now))
        self._last = now

    def seconds(self) -> dict[str, float]:
        """Return the seconds of each phase."""
        spent: dict[str, float] = {}
        for phase, began, ended in self.laps:
            spent[phase] = spent.get(phase, 0.0) + (ended - began) / 1e9
        return spent
