"""Group commit: what many callers want stored goes to the database in few, large transactions.

There is no timer. While nothing is in flight the first submission is stored at once, alone if it is alone; what
arrives meanwhile forms the next group. A workspace whose head somebody else has locked leaves the common lane and
waits for its lock on a lane of its own, so that it delays nobody but itself.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import structlog

from headgate_server.core.errors import InvalidRequest, Overloaded, Unavailable
from headgate_server.core.model import Decision, Draft, Settled, Status, Submission
from headgate_server.core.settle import AnswerFailed
from headgate_server.ingest.pace import Pace
from headgate_server.ingest.readiness import Readiness
from headgate_server.process.aside import aside
from headgate_server.process.causes import Causes
from headgate_server.process.setting import PAST_IT, setting
from headgate_server.store import DataRefused, Store

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitterConfig:
    """How much is stored at once, and how much may wait."""

    group_events: int = 4_000
    """Events of one transaction: beyond this the database gains little, and the latency of all in the group grows.
    """
    group_bytes: int = 16 * 1024 * 1024
    """Content of one transaction, unless a single submission is larger."""
    small_group_events: int = 200
    """Below this a group waits for calls that have already arrived: the fixed cost of a transaction, about that of
    twenty events, would be felt. Above it nothing is gained, and the database is not kept waiting.
    """
    quiet_turns: int = 16
    """Turns of the event loop without a submission after which no call is taken to be on its way. Measured with single
    events of 64 callers: 4 turns make groups of 6, 16 of 26, and 64 gain no more; a lone caller notices none of them.
    """
    waiting_events: int = setting(
        40_000,
        "waiting-events",
        f"Events that may wait to be stored, per worker; of one workspace half as many. {PAST_IT}",
        least=1,
        most=1 << 30,
    )
    """Events that may wait in all; past it calls are refused at once. About a second of work: who waits longer gives
    up anyway.
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
    parked_lanes: int = 4
    """Workspaces that wait for their locks at once: each takes a connection, and most must be left for the others.
    """
    workspace_share: float = 0.5
    """The share of either bound that one workspace may fill, so that the rest is left for the others."""


class _Waiting:
    """One caller's submission, in the queue."""

    __slots__ = ("arrived", "bytes", "decision", "events", "submission")

    def __init__(self, submission: Submission, decision: asyncio.Future[Decision]):
        self.submission = submission
        self.decision = decision
        self.arrived = time.monotonic()
        self.events = max(1, len(submission.slots))
        # Twice: the payload alone, and within the content.
        self.bytes = 2 * sum(len(slot.canonical) for slot in submission.slots if isinstance(slot, Draft))

    def settle(self, decision: Decision) -> None:
        if not self.decision.done():  # a caller may have gone: its events are stored all the same
            self.decision.set_result(decision)

    def fail(self, error: Exception) -> None:
        if not self.decision.done():
            self.decision.set_exception(error)


@dataclass(slots=True)
class _Lane:
    """One workspace's queue."""

    waiting: deque[_Waiting] = field(default_factory=deque)
    events: int = 0
    bytes: int = 0
    """`events` and `bytes` count what is in the store's hands as well: it still occupies memory."""
    parked: bool = False
    """Whether the lane waits for its head's lock on its own, away from the common groups."""


WRITTEN = frozenset((Status.ACCEPTED, Status.REPLACED))
"""Outcomes that a commit has put on disk."""

_NOBODY = _Lane()
"""The lane of a workspace that has nothing waiting."""


def _has_written(decision: Decision) -> bool:
    return isinstance(decision, Settled) and any(outcome.status in WRITTEN for outcome in decision.outcomes)


class Committer:
    """Stores submissions in groups. One per process and store; lives on one event loop."""

    def __init__(self, store: Store, config: CommitterConfig | None = None, readiness: Readiness | None = None):
        """`readiness` is told of every commit."""
        self._store = store
        self._readiness = readiness or Readiness(store)
        self._causes = Causes()
        self._config = config or CommitterConfig()
        self._lanes: dict[int, _Lane] = {}
        self._ready: deque[int] = deque()
        """Workspaces with something to store on the common lane, the longest waiting first."""
        self._events = 0
        self._bytes = 0
        self._closing = False
        self._main: asyncio.Task[None] | None = None
        self._alone: set[asyncio.Task[None]] = set()
        self._parking = asyncio.Semaphore(self._config.parked_lanes)
        self._pace = Pace()

    async def submit(self, submission: Submission) -> Decision:
        """Store a submission and return what became of it, once that is durable.

        A caller that is cancelled while it waits leaves the queue; once its group is being stored, it is stored.
        Raises `Overloaded` at once if too much is waiting, `Unavailable` and `OutcomeUnknown` as the store does,
        `InvalidRequest` if the database refuses a value that validation let through.
        """
        waiting = _Waiting(submission, asyncio.get_running_loop().create_future())
        self._admit(waiting)
        return await waiting.decision

    def check_room(self, workspace_id: int, events: int, size: int) -> None:
        """Raise what `submit` would raise now for a submission of so many events and bytes of content.

        For those who have not read their request yet: in an overload, reading what is then refused would be most of
        the work.
        """
        if self._closing:
            raise Unavailable("The server is shutting down.", reason="SHUTTING_DOWN")
        config = self._config
        lane = self._lanes.get(workspace_id) or _NOBODY
        share = config.workspace_share
        # Whatever its size, a submission is let in where nothing waits: it could never be stored otherwise.
        if self._events and (
            self._events + events > config.waiting_events
            or self._bytes + size > config.waiting_bytes
            or (lane.events and lane.events + events > config.waiting_events * share)
            or (lane.bytes and lane.bytes + size > config.waiting_bytes * share)
        ):
            raise Overloaded(
                "Too many events are waiting to be stored; nothing of this request was stored.",
                retry_after=self._pace.appointment(self._events, events),
            )

    async def close(self) -> None:
        """Take no more, store all that waits, and return when nothing is in flight."""
        self._closing = True
        while tasks := [task for task in (self._main, *self._alone) if task is not None]:
            await asyncio.wait(tasks)

    def _admit(self, waiting: _Waiting) -> None:
        workspace = waiting.submission.workspace_id
        self.check_room(workspace, waiting.events, waiting.bytes)
        lane = self._lanes.get(workspace)
        if lane is None:
            lane = self._lanes[workspace] = _Lane()
        self._count(lane, waiting, 1)
        lane.waiting.append(waiting)
        if not lane.parked and len(lane.waiting) == 1:
            self._ready.append(workspace)
        if self._main is None and self._ready:
            self._main = asyncio.create_task(self._run())

    def _count(self, lane: _Lane, waiting: _Waiting, sign: int) -> None:
        self._events += sign * waiting.events
        self._bytes += sign * waiting.bytes
        lane.events += sign * waiting.events
        lane.bytes += sign * waiting.bytes

    def _drop_if_idle(self, workspace: int, lane: _Lane) -> None:
        if not lane.waiting and not lane.events and not lane.parked:
            self._lanes.pop(workspace, None)

    async def _run(self) -> None:
        """Store group after group on the common lane until nothing waits there."""
        try:
            while self._ready:
                await self._gather(lambda: self._events)
                group = self._take_group()
                if group:
                    await self._store_group(group)
        finally:
            self._main = None

    async def _gather(self, count: Callable[[], int]) -> None:
        """Let the calls that have already reached this process join the group, while it is small; `count` says how
        many events there are.

        A transaction costs as much as some twenty events, and a call that has arrived is some turns of the event loop
        away from the queue. As long as the turns bring submissions there are more to come. Where nobody comes, this
        costs some turns of an idle loop: microseconds.
        """
        config = self._config
        quiet, waiting = 0, count()
        while quiet < config.quiet_turns and waiting < config.small_group_events:
            await asyncio.sleep(0)
            quiet = quiet + 1 if count() <= waiting else 0
            waiting = count()

    def _take_group(self) -> list[_Waiting]:
        """Take a fair share of every ready workspace, in turn, up to the bounds of a group."""
        group: list[_Waiting] = []
        events = self._config.group_events
        size = self._config.group_bytes
        turns = 1 if self._store.one_workspace_per_group else len(self._ready)
        share = max(1, events // turns)
        for _ in range(turns):
            workspace = self._ready.popleft()
            lane = self._lanes[workspace]
            quota = share
            while lane.waiting and quota > 0 and ((events > 0 and size > 0) or not group):
                waiting = lane.waiting.popleft()
                if self._is_dropped(lane, waiting):
                    continue
                group.append(waiting)
                quota -= waiting.events
                events -= waiting.events
                size -= waiting.bytes
            if lane.waiting:
                self._ready.append(workspace)
            else:
                self._drop_if_idle(workspace, lane)
            if group and (events <= 0 or size <= 0):
                break
        return group

    async def _store_group(self, group: Sequence[_Waiting]) -> None:
        skipped = await self._append(group, wait=False)
        for waiting in reversed(skipped):
            self._park(waiting)
        for workspace in {waiting.submission.workspace_id for waiting in skipped}:
            task = asyncio.create_task(self._run_alone(workspace))
            self._alone.add(task)
            task.add_done_callback(self._alone.discard)

    def _park(self, waiting: _Waiting) -> None:
        """Put a skipped submission back to the front of its lane, which from now on waits on its own."""
        workspace = waiting.submission.workspace_id
        lane = self._lanes[workspace]
        if not lane.parked:
            lane.parked = True
            if workspace in self._ready:
                self._ready.remove(workspace)
        lane.waiting.appendleft(waiting)

    async def _run_alone(self, workspace: int) -> None:
        """Store what waits for one workspace, waiting for its lock, until its lane is empty."""
        lane = self._lanes[workspace]
        while lane.waiting:
            await self._gather(lambda: lane.events)
            try:
                async with asyncio.timeout(self._config.waiting_seconds):
                    await self._parking.acquire()
            except TimeoutError:
                while lane.waiting and self._is_dropped(lane, lane.waiting[0]):
                    lane.waiting.popleft()
                continue
            try:
                if group := self._take_alone(lane):
                    await self._append(group, wait=True)
            finally:
                self._parking.release()
        lane.parked = False
        self._drop_if_idle(workspace, lane)

    def _take_alone(self, lane: _Lane) -> list[_Waiting]:
        group: list[_Waiting] = []
        events, size = self._config.group_events, self._config.group_bytes
        while lane.waiting and ((events > 0 and size > 0) or not group):
            waiting = lane.waiting.popleft()
            if self._is_dropped(lane, waiting):
                continue
            group.append(waiting)
            events -= waiting.events
            size -= waiting.bytes
        return group

    def _is_dropped(self, lane: _Lane, waiting: _Waiting) -> bool:
        """Whether a submission is not stored any more: its caller gave up, or has waited too long."""
        if not waiting.decision.done():
            if time.monotonic() - waiting.arrived < self._config.waiting_seconds:
                return False
            waiting.fail(Unavailable("The store did not get to this request in time; nothing of it was stored."))
        self._count(lane, waiting, -1)
        return True

    async def _append(self, group: Sequence[_Waiting], *, wait: bool) -> list[_Waiting]:
        """Store a group, tell its callers, and return what the store skipped. Raises nothing."""
        started = time.monotonic()
        try:
            decisions = await self._store.append([waiting.submission for waiting in group], wait=wait)
        except Exception as error:
            # Whatever it is, the callers must learn of it and the next group must be tried. Only of two errors is it
            # known that nothing was stored and that it is one caller's: then each is tried alone.
            if isinstance(error, (DataRefused, AnswerFailed)) and len(group) > 1:
                return await self._append_each(group, wait=wait)
            if isinstance(error, DataRefused):
                # The driver's own words are not logged: they quote the value.
                log.error("data_refused", workspace_id=group[0].submission.workspace_id)
                error = InvalidRequest("The database refused a value of this request.", reason="DATA_REFUSED")
            elif not isinstance(error, Unavailable):
                log.exception("append_failed")
            else:
                self._causes.tell("append_failed", error)
                self._readiness.failed()
            self._fail(group, error)
            return []
        # Committed: every caller is told before anything else can go wrong.
        for waiting, decision in zip(group, decisions, strict=False):
            if decision is not None:
                waiting.settle(decision)
        skipped = [waiting for waiting, decision in zip(group, decisions, strict=False) if decision is None]
        for waiting, decision in zip(group, decisions, strict=False):
            if decision is not None:
                self._release(waiting)
        with aside("pace"):
            self._note(group, decisions, time.monotonic() - started)
        return skipped

    def _note(self, group: Sequence[_Waiting], decisions: Sequence[Decision | None], seconds: float) -> None:
        """Count what was stored, and how fast."""
        written = zip(group, decisions, strict=False)
        if stored := sum(waiting.events for waiting, decision in written if decision is not None):
            self._pace.stored(stored, seconds)
        if any(decision is not None and _has_written(decision) for decision in decisions):
            self._readiness.stored()

    async def _append_each(self, group: Sequence[_Waiting], *, wait: bool) -> list[_Waiting]:
        """Store each submission of a group alone, in order: where one is skipped, so are its workspace's later ones."""
        skipped: list[_Waiting] = []
        for waiting in group:
            workspace = waiting.submission.workspace_id
            if any(one.submission.workspace_id == workspace for one in skipped):
                skipped.append(waiting)
            else:
                skipped += await self._append([waiting], wait=wait)
        return skipped

    def _fail(self, group: Sequence[_Waiting], error: Exception) -> None:
        for waiting in group:
            self._release(waiting)
            waiting.fail(error)

    def _release(self, waiting: _Waiting) -> None:
        workspace = waiting.submission.workspace_id
        lane = self._lanes[workspace]
        self._count(lane, waiting, -1)
        self._drop_if_idle(workspace, lane)
