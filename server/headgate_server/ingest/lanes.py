"""The fair queue before the store: one lane for each workspace, shares, parking and bounds. No clock, no event loop.

Lanes that are ready take turns, so that a busy workspace does not delay a quiet one. A lane is parked while its
workspace's head is locked by somebody else: it is not among the ready ones then, and delays nobody but itself.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

from headgate_server.core.model import Draft, Submission
from headgate_server.process.setting import PAST_IT, setting


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How much is stored at once, and how much may wait."""

    group_events: int = 4_000
    """Events of one transaction: beyond this the database gains little, and the latency of all in the group grows.
    """
    group_bytes: int = 16 * 1024 * 1024
    """Content of one transaction, unless a single submission is larger."""
    waiting_events: int = setting(
        40_000,
        "waiting-events",
        f"Events that may wait to be stored, per worker; of one workspace half as many. {PAST_IT}",
        least=1,
        most=1 << 30,
    )
    """Events that may wait in all; past it calls are refused at once. About a second of work: a caller that waits
    longer gives up anyway.
    """
    waiting_bytes: int = setting(
        64 * 1024 * 1024,
        "waiting-bytes",
        f"Bytes of content that may wait to be stored, per worker; of one workspace half as many. {PAST_IT}",
        least=1,
        most=1 << 40,
    )
    """Content that may wait in all; what is still being read does not count here, but in `rpc/server.py`."""
    waiting_seconds: float = 5.0
    """How long a submission may wait for what is stored before it: several times as long as it takes to store all that
    may wait. Where the store hangs, who waits hears of it together with those whose turn it was.
    """
    workspace_share: float = 0.5
    """The share of either bound that one workspace may fill, so that the rest is left for the others."""


class Waiting:
    """A submission in the queue. `arrived` is a time of the clock that `Lanes.take` is given."""

    __slots__ = ("arrived", "bytes", "events", "submission")

    def __init__(self, submission: Submission, arrived: float):
        self.submission = submission
        self.arrived = arrived
        self.events = max(1, len(submission.slots))
        # Twice: the payload alone, and within the content.
        self.bytes = 2 * sum(len(slot.canonical) for slot in submission.slots if isinstance(slot, Draft))

    @property
    def gone(self) -> bool:
        """Whether its caller gave up: it is not stored then."""
        return False


W = TypeVar("W", bound=Waiting)


class Taken(NamedTuple, Generic[W]):
    """What was taken from the queue."""

    group: list[W]
    """What is to be stored in one transaction; to be released when that is over."""
    late: list[W]
    """What has waited too long, and is released already."""


@dataclass(slots=True)
class _Lane(Generic[W]):
    """One workspace's queue."""

    waiting: deque[W] = field(default_factory=deque)
    events: int = 0
    bytes: int = 0
    """`events` and `bytes` count what is in the store's hands as well: it still occupies memory."""
    parked: bool = False


class Lanes(Generic[W]):
    """What waits, by workspace, and what is in the store's hands."""

    def __init__(self, bounds: Bounds):
        self._bounds = bounds
        self._lanes: dict[int, _Lane[W]] = {}
        self._ready: deque[int] = deque()
        """Workspaces whose lanes are not parked and not empty, the longest waiting first."""
        self.events = 0
        self._bytes = 0

    @property
    def ready(self) -> bool:
        """Whether there is something to take that is not parked."""
        return bool(self._ready)

    @property
    def idle(self) -> bool:
        """Whether nothing waits, is in the store's hands, or is parked."""
        return not self._lanes and not self.events and not self._bytes

    def has_room(self, workspace: int, events: int, size: int) -> bool:
        """Whether a submission of so many events and bytes of content may be added now."""
        # A submission of any size is let in where nothing waits: it could never be stored otherwise.
        if not self.events:
            return True
        bounds = self._bounds
        if self.events + events > bounds.waiting_events or self._bytes + size > bounds.waiting_bytes:
            return False
        lane = self._lanes.get(workspace)
        if lane is None:
            return True
        share = bounds.workspace_share
        return not (
            (lane.events and lane.events + events > bounds.waiting_events * share)
            or (lane.bytes and lane.bytes + size > bounds.waiting_bytes * share)
        )

    def add(self, waiting: W) -> None:
        """Put a submission at the end of its workspace's lane."""
        workspace = waiting.submission.workspace_id
        lane = self._lanes.get(workspace)
        if lane is None:
            lane = self._lanes[workspace] = _Lane()
        self._count(lane, waiting, 1)
        lane.waiting.append(waiting)
        if not lane.parked and len(lane.waiting) == 1:
            self._ready.append(workspace)

    def take(self, now: float, *, parked: int | None = None) -> Taken[W]:
        """Take a fair share of every ready lane, in turn, up to the bounds of a group; or of the one `parked` lane.

        A submission is never split: it may exceed the bounds.
        """
        turns = list(self._ready) if parked is None else [parked]
        events, size = self._bounds.group_events, self._bounds.group_bytes
        share = max(1, events // max(1, len(turns)))
        taken: Taken[W] = Taken([], [])
        for workspace in turns:
            lane, quota = self._lanes[workspace], share
            if parked is None:
                self._ready.popleft()
            while lane.waiting and quota > 0 and ((events > 0 and size > 0) or not taken.group):
                waiting = lane.waiting.popleft()
                if self._is_dropped(lane, waiting, now, taken.late):
                    continue
                taken.group.append(waiting)
                quota -= waiting.events
                events -= waiting.events
                size -= waiting.bytes
            if lane.waiting and parked is None:
                self._ready.append(workspace)
            self._forget_if_idle(workspace, lane)
            if taken.group and (events <= 0 or size <= 0):
                break
        return taken

    def take_late(self, now: float, parked: int) -> list[W]:
        """Take from a parked lane what has waited too long, up to the first that has not."""
        lane, late = self._lanes[parked], list[W]()
        while lane.waiting and self._is_dropped(lane, lane.waiting[0], now, late):
            lane.waiting.popleft()
        return late

    def park(self, skipped: Sequence[W]) -> list[int]:
        """Put back to the front, in their order, submissions that were taken and not stored; return the workspaces
        whose lanes are parked now.
        """
        for waiting in reversed(skipped):
            workspace = waiting.submission.workspace_id
            lane = self._lanes[workspace]
            if not lane.parked:
                lane.parked = True
                if lane.waiting:
                    self._ready.remove(workspace)
            lane.waiting.appendleft(waiting)
        return list(dict.fromkeys(waiting.submission.workspace_id for waiting in skipped))

    def unpark(self, parked: int) -> bool:
        """Let a lane be one of the others again if nothing waits on it; return whether that is so."""
        lane = self._lanes[parked]
        if lane.waiting:
            return False
        lane.parked = False
        self._forget_if_idle(parked, lane)
        return True

    def events_of(self, workspace: int) -> int:
        """Return how many events of a workspace wait or are in the store's hands."""
        return self._lanes[workspace].events

    def release(self, waiting: W) -> None:
        """Note that a submission is out of the store's hands."""
        workspace = waiting.submission.workspace_id
        lane = self._lanes[workspace]
        self._count(lane, waiting, -1)
        self._forget_if_idle(workspace, lane)

    def _is_dropped(self, lane: _Lane[W], waiting: W, now: float, late: list[W]) -> bool:
        """Whether a submission is not stored any more; if it has waited too long, it is added to `late`."""
        if not waiting.gone:
            if now - waiting.arrived < self._bounds.waiting_seconds:
                return False
            late.append(waiting)
        self._count(lane, waiting, -1)
        return True

    def _count(self, lane: _Lane[W], waiting: W, sign: int) -> None:
        self.events += sign * waiting.events
        self._bytes += sign * waiting.bytes
        lane.events += sign * waiting.events
        lane.bytes += sign * waiting.bytes

    def _forget_if_idle(self, workspace: int, lane: _Lane[W]) -> None:
        if not lane.waiting and not lane.events and not lane.parked:
            self._lanes.pop(workspace, None)
