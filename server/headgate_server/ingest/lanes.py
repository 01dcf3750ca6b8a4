"""The fair queue before the store: one lane for each workspace, shares, parking and bounds. No clock, no event loop.

Ready lanes take turns, so that a busy workspace does not delay a quiet one. While another process has locked a
workspace's head, the workspace's lane is parked: it is not ready then, and delays no other lane.
"""

import contextlib
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

from headgate_server.core.model import Draft, Submission
from headgate_server.core.types import WorkspaceId
from headgate_server.process.setting import PAST_IT, setting


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How much is stored at once, and how much may wait."""

    group_events: int = 4_000
    """Events of one transaction. With more the throughput hardly grows, but the latency of the whole group does."""
    group_bytes: int = 16 * 1024 * 1024
    """Content of one transaction, unless a single submission is larger."""
    waiting_events: int = setting(
        40_000,
        "waiting-events",
        f"Events that may wait to be stored, per worker; of one workspace half as many. {PAST_IT}",
        least=1,
        most=1 << 30,
    )
    """Events of all workspaces that may wait. Past this bound calls are refused at once. It is about a second of work;
    a caller that waits longer usually gives up. If the store is so slow that it would take longer than
    `waiting_seconds`, fewer may wait (`Lanes.in_time`).
    """
    waiting_bytes: int = setting(
        64 * 1024 * 1024,
        "waiting-bytes",
        f"Bytes of content that may wait to be stored, per worker; of one workspace half as many. {PAST_IT}",
        least=1,
        most=1 << 40,
    )
    """Bytes of content of all workspaces that may wait. Bodies that are still being read count in `rpc/server.py`."""
    waiting_seconds: float = 5.0
    """How long a submission may wait for its turn: several times the time to store everything that may wait. If the
    store hangs, waiting callers get an error at the same time as the callers whose turn it is.
    """
    workspace_share: float = 0.5
    """The share of both bounds that one workspace may use, so that the rest is left for the others."""


class Waiting:
    """A submission in the queue. `arrived` is a time of the same clock as the argument `now` of `Lanes.take`."""

    __slots__ = ("arrived", "bytes", "events", "submission")

    def __init__(self, submission: Submission, arrived: float):
        self.submission = submission
        self.arrived = arrived
        self.events = max(1, len(submission.slots))
        # Doubled, because a draft has the payload twice: alone, and within the content.
        self.bytes = 2 * sum(len(slot.canonical) for slot in submission.slots if isinstance(slot, Draft))

    @property
    def gone(self) -> bool:
        """Whether its caller gave up. It is not stored then."""
        return False


_TIMES_FREE = 3

W = TypeVar("W", bound=Waiting)


class Taken(NamedTuple, Generic[W]):
    """The submissions that were taken from the queue."""

    group: list[W]
    """Submissions to store in one transaction. The caller releases them after it."""
    late: list[W]
    """Submissions that have waited too long. They are already released."""


@dataclass(slots=True)
class _Lane(Generic[W]):
    """One workspace's queue."""

    waiting: deque[W] = field(default_factory=deque)
    events: int = 0
    bytes: int = 0
    """`events` and `bytes` also count the submissions that are being stored, because they still occupy memory."""
    parked: bool = False


class Lanes(Generic[W]):
    """The submissions that wait, by workspace, and the counts of those that are being stored."""

    def __init__(self, bounds: Bounds):
        self._bounds = bounds
        self._lanes: dict[WorkspaceId, _Lane[W]] = {}
        self._ready: deque[WorkspaceId] = deque()
        """Workspaces whose lanes are neither parked nor empty. The lane that has waited longest comes first."""
        self.events = 0
        self.bytes = 0
        self.in_time = 1 << 40
        """How many events can be stored before a call has waited too long, once the pace was measured."""

    @property
    def most_events(self) -> int:
        """How many events may wait now."""
        return min(self.in_time, self._bounds.waiting_events)

    @property
    def ready(self) -> bool:
        """Whether a lane that is not parked has a submission."""
        return bool(self._ready)

    @property
    def idle(self) -> bool:
        """Whether nothing waits, is being stored, or is parked."""
        return not self._lanes and not self.events and not self.bytes

    def oldest(self, now: float) -> float:
        """Return how long the submission at the front of a lane has waited that has waited longest, 0 if none waits.
        Any thread may call it.
        """
        longest = 0.0
        for lane in tuple(self._lanes.values()):
            with contextlib.suppress(IndexError):  # its last submission may be taken now
                longest = max(longest, now - lane.waiting[0].arrived)
        return longest

    def has_room(self, workspace: WorkspaceId, events: int, size: int) -> bool:
        """Whether a submission with this many events and bytes of content may be added now."""
        # If nothing waits, a submission of any size is admitted. Otherwise a very large one could never be stored.
        if not self.events:
            return True
        bounds = self._bounds
        if self.events + events > self.most_events or self.bytes + size > bounds.waiting_bytes:
            return False
        lane = self._lanes.get(workspace)
        if lane is None:
            return True
        return not (
            (lane.events and lane.events + events > self._most_of_one())
            or (lane.bytes and lane.bytes + size > bounds.waiting_bytes * bounds.workspace_share)
        )

    def _most_of_one(self) -> float:
        """Return how many events one workspace may have: its share, and of those that can be stored in time no more
        than three times as many as are still free. So one leaves a quarter to the others, and any number can share.
        """
        return min(
            self._bounds.waiting_events * self._bounds.workspace_share, _TIMES_FREE * (self.in_time - self.events)
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

    def take(
        self, now: float, *, lane_of: WorkspaceId | None = None, taken_events: int = 0, taken_bytes: int = 0
    ) -> Taken[W]:
        """Take a fair share from every ready lane, in turn, up to the bounds of a group. With `lane_of`, take from that
        workspace's lane alone, even if it is parked. The group may have events and bytes already.

        A submission is never split, so one may exceed the bounds.
        """
        turns = list(self._ready) if lane_of is None else [lane_of]
        events, size = self._bounds.group_events - taken_events, self._bounds.group_bytes - taken_bytes
        if taken_events and (events <= 0 or size <= 0):
            return Taken([], [])
        share = max(1, events // max(1, len(turns)))
        taken: Taken[W] = Taken([], [])
        for workspace in turns:
            lane, quota = self._lanes[workspace], share
            was_ready = bool(lane.waiting) and not lane.parked
            if lane_of is None:
                self._ready.popleft()
            while lane.waiting and quota > 0 and ((events > 0 and size > 0) or not taken.group):
                waiting = lane.waiting.popleft()
                if self._is_dropped(lane, waiting, now, taken.late):
                    continue
                taken.group.append(waiting)
                quota -= waiting.events
                events -= waiting.events
                size -= waiting.bytes
            if lane_of is None and lane.waiting:
                self._ready.append(workspace)
            elif lane_of is not None and was_ready and not lane.waiting:
                self._ready.remove(workspace)
            self._forget_if_idle(workspace, lane)
            if taken.group and (events <= 0 or size <= 0):
                break
        return taken

    def take_late(self, now: float, parked: WorkspaceId) -> list[W]:
        """Take the submissions at the front of a parked lane that have waited too long."""
        lane, late = self._lanes[parked], list[W]()
        while lane.waiting and self._is_dropped(lane, lane.waiting[0], now, late):
            lane.waiting.popleft()
        return late

    def park(self, skipped: Sequence[W]) -> list[WorkspaceId]:
        """Put submissions that were taken but not stored back to the front, in their order. Return the workspaces whose
        lanes are parked now.
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

    def put_back(self, taken: Sequence[W]) -> None:
        """Put submissions that were taken but not stored back to the front, in their order."""
        for waiting in reversed(taken):
            workspace = waiting.submission.workspace_id
            lane = self._lanes[workspace]
            if not lane.parked and not lane.waiting:
                self._ready.appendleft(workspace)
            lane.waiting.appendleft(waiting)

    def park_ready(self) -> list[WorkspaceId]:
        """Park every ready lane, and return their workspaces."""
        parked = list(self._ready)
        self._ready.clear()
        for workspace in parked:
            self._lanes[workspace].parked = True
        return parked

    def unpark(self, parked: WorkspaceId) -> bool:
        """End the parking of a lane if it is empty. Return whether it is."""
        lane = self._lanes[parked]
        if lane.waiting:
            return False
        lane.parked = False
        self._forget_if_idle(parked, lane)
        return True

    def events_of(self, workspace: WorkspaceId) -> int:
        """Return how many events of a workspace wait or are being stored."""
        return self._lanes[workspace].events

    def release(self, waiting: W) -> None:
        """Record that a submission is no longer being stored."""
        workspace = waiting.submission.workspace_id
        lane = self._lanes[workspace]
        self._count(lane, waiting, -1)
        self._forget_if_idle(workspace, lane)

    def _is_dropped(self, lane: _Lane[W], waiting: W, now: float, late: list[W]) -> bool:
        """Whether a submission is dropped: its caller gave up, or it has waited too long and is added to `late`."""
        if not waiting.gone:
            if now - waiting.arrived < self._bounds.waiting_seconds:
                return False
            late.append(waiting)
        self._count(lane, waiting, -1)
        return True

    def _count(self, lane: _Lane[W], waiting: W, sign: int) -> None:
        self.events += sign * waiting.events
        self.bytes += sign * waiting.bytes
        lane.events += sign * waiting.events
        lane.bytes += sign * waiting.bytes

    def _forget_if_idle(self, workspace: WorkspaceId, lane: _Lane[W]) -> None:
        if not lane.waiting and not lane.events and not lane.parked:
            self._lanes.pop(workspace, None)
