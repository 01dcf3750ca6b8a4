"""Group commit: what many callers want stored goes to the database in few, large transactions.

There is no timer. While nothing is in flight the first submission is stored at once, alone if it is alone; what
arrives meanwhile forms the next group (`lanes` says what is in it). A workspace whose head somebody else has locked
waits for its lock on its own, so that it delays nobody but itself.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from headgate_server.core.errors import InvalidRequest, Overloaded, Unavailable
from headgate_server.core.model import Decision, Settled, Status, Submission
from headgate_server.core.reasons import Reason
from headgate_server.core.settle import AnswerFailed
from headgate_server.ingest.lanes import Bounds, Lanes, Waiting
from headgate_server.ingest.pace import Pace
from headgate_server.ingest.readiness import Readiness
from headgate_server.process.aside import aside
from headgate_server.process.causes import Causes
from headgate_server.store import Database, DataRefused, Probe

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitterConfig(Bounds):
    """How much is stored at once, how much may wait, and what a group waits for."""

    small_group_events: int = 200
    """Below this a group waits for calls that have already arrived: the fixed cost of a transaction, about that of
    twenty events, would be felt. Above it nothing is gained, and the database is not kept waiting.
    """
    quiet_turns: int = 16
    """Turns of the event loop without a submission after which no call is taken to be on its way. Measured with single
    events of 64 callers: 4 turns make groups of 6, 16 of 26, and 64 gain no more; a lone caller notices none of them.
    """
    parked_lanes: int = 4
    """Workspaces that wait for their locks at once: each takes a connection, and most must be left for the others.
    """


class _Call(Waiting):
    """One caller's submission, and the future that tells the caller what became of it."""

    __slots__ = ("decision",)

    def __init__(self, submission: Submission, decision: asyncio.Future[Decision]):
        super().__init__(submission, time.monotonic())
        self.decision = decision

    @property
    def gone(self) -> bool:
        return self.decision.done()

    def settle(self, decision: Decision) -> None:
        if not self.decision.done():  # a caller may have gone: its events are stored all the same
            self.decision.set_result(decision)

    def fail(self, error: Exception) -> None:
        if not self.decision.done():
            self.decision.set_exception(error)


WRITTEN = frozenset((Status.ACCEPTED, Status.REPLACED))
"""Outcomes that a commit has put on disk."""


def _has_written(decision: Decision) -> bool:
    return isinstance(decision, Settled) and any(outcome.status in WRITTEN for outcome in decision.outcomes)


class Committer:
    """Stores submissions in groups. One per process and store; lives on one event loop."""

    def __init__(
        self,
        database: Database,
        config: CommitterConfig | None = None,
        readiness: Readiness | None = None,
        *,
        stored: Callable[[], None] = lambda: None,
    ):
        """`readiness` is told of every commit, and `stored` is called after each that added to a ledger."""
        self._database = database
        self._readiness = readiness or Readiness(Probe(database))
        self._stored = stored
        self._causes = Causes()
        self._config = config or CommitterConfig()
        self._lanes: Lanes[_Call] = Lanes(self._config)
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
        call = _Call(submission, asyncio.get_running_loop().create_future())
        self.check_room(submission.workspace_id, call.events, call.bytes)
        self._lanes.add(call)
        if self._main is None and self._lanes.ready:
            self._main = asyncio.create_task(self._run())
        return await call.decision

    def check_room(self, workspace_id: int, events: int, size: int) -> None:
        """Raise what `submit` would raise now for a submission of so many events and bytes of content.

        For those who have not read their request yet: in an overload, reading what is then refused would be most of
        the work.
        """
        if self._closing:
            raise Unavailable("The server is shutting down.", reason=Reason.SHUTTING_DOWN)
        if not self._lanes.has_room(workspace_id, events, size):
            raise Overloaded(
                "Too many events are waiting to be stored; nothing of this request was stored.",
                retry_after=self._pace.retry_after(self._lanes.events, events),
            )

    async def close(self) -> None:
        """Take no more, store all that waits, and return when nothing is in flight."""
        self._closing = True
        while tasks := [task for task in (self._main, *self._alone) if task is not None]:
            await asyncio.wait(tasks)

    async def _run(self) -> None:
        """Store group after group on the common lane until nothing waits there."""
        try:
            while self._lanes.ready:
                await self._gather(lambda: self._lanes.events)
                group, late = self._lanes.take(time.monotonic())
                self._give_up(late)
                if group:
                    self._park(await self._append(group, wait=False))
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

    def _park(self, skipped: Sequence[_Call]) -> None:
        """Let the workspaces of skipped submissions wait for their locks, each on its own."""
        for workspace in self._lanes.park(skipped):
            task = asyncio.create_task(self._run_alone(workspace))
            self._alone.add(task)
            task.add_done_callback(self._alone.discard)

    async def _run_alone(self, workspace: int) -> None:
        """Store what waits for one workspace, waiting for its lock, until its lane is empty."""
        lanes = self._lanes
        while not lanes.unpark(workspace):
            await self._gather(lambda: lanes.events_of(workspace))
            try:
                async with asyncio.timeout(self._config.waiting_seconds):
                    await self._parking.acquire()
            except TimeoutError:
                self._give_up(lanes.take_late(time.monotonic(), workspace))
                continue
            try:
                group, late = lanes.take(time.monotonic(), parked=workspace)
                self._give_up(late)
                if group:
                    await self._append(group, wait=True)
            finally:
                self._parking.release()

    def _give_up(self, late: Sequence[_Call]) -> None:
        for call in late:
            call.fail(Unavailable("The store did not get to this request in time; nothing of it was stored."))

    async def _append(self, group: Sequence[_Call], *, wait: bool) -> list[_Call]:
        """Store a group, tell its callers, and return what the store skipped. Raises nothing."""
        started = time.monotonic()
        try:
            decisions = await self._database.append([call.submission for call in group], wait=wait)
        except Exception as error:
            # The callers must learn of every error, and the next group must be tried. Two errors say that nothing was
            # stored and that one caller is the cause: then each caller's submission is tried alone.
            if isinstance(error, (DataRefused, AnswerFailed)) and len(group) > 1:
                return await self._append_each(group, wait=wait)
            if isinstance(error, DataRefused):
                # The driver's own words are not logged: they quote the value.
                log.error("data_refused", workspace_id=group[0].submission.workspace_id)
                error = InvalidRequest("The database refused a value of this request.", reason=Reason.DATA_REFUSED)
            elif not isinstance(error, Unavailable):
                log.exception("append_failed")
            else:
                self._causes.tell("append_failed", error)
                self._readiness.failed()
            self._fail(group, error)
            return []
        # Committed: every caller is told before anything else can go wrong.
        for call, decision in zip(group, decisions, strict=False):
            if decision is not None:
                call.settle(decision)
        skipped = [call for call, decision in zip(group, decisions, strict=False) if decision is None]
        for call, decision in zip(group, decisions, strict=False):
            if decision is not None:
                self._lanes.release(call)
        with aside("pace"):
            self._note(group, decisions, time.monotonic() - started)
        return skipped

    def _note(self, group: Sequence[_Call], decisions: Sequence[Decision | None], seconds: float) -> None:
        """Count what was stored, and how fast."""
        written = zip(group, decisions, strict=False)
        if stored := sum(call.events for call, decision in written if decision is not None):
            self._pace.stored(stored, seconds)
        if any(decision is not None and _has_written(decision) for decision in decisions):
            self._readiness.stored()
            self._stored()

    async def _append_each(self, group: Sequence[_Call], *, wait: bool) -> list[_Call]:
        """Store each submission of a group alone, in order: where one is skipped, so are its workspace's later ones."""
        skipped: list[_Call] = []
        for call in group:
            workspace = call.submission.workspace_id
            if any(one.submission.workspace_id == workspace for one in skipped):
                skipped.append(call)
            else:
                skipped += await self._append([call], wait=wait)
        return skipped

    def _fail(self, group: Sequence[_Call], error: Exception) -> None:
        for call in group:
            self._lanes.release(call)
            call.fail(error)
