"""Group commit: the submissions of many callers are stored in few, large transactions.

There is no timer. If no transaction is in progress, the first submission is stored at once, even if it is the only one.
Submissions that arrive during a transaction form the next group (`lanes` selects them). The group grows until the store
has its turn to write, or the locks of the heads. If another process has locked a workspace's head, that workspace waits
for the lock separately and delays no other workspace.

If the database has its workspaces on several nodes, each workspace's submissions are groups of their own, and several
groups are stored at a time.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import structlog

from headgate_server.core.errors import InvalidRequest, Overloaded, Unavailable
from headgate_server.core.model import Decision, Settled, Status, Submission
from headgate_server.core.reasons import Reason
from headgate_server.core.settle import AnswerFailed
from headgate_server.core.types import WorkspaceId
from headgate_server.ingest.growing import Growing
from headgate_server.ingest.lanes import Bounds, Lanes, Waiting
from headgate_server.ingest.pace import Pace
from headgate_server.ingest.readiness import Part, Readiness
from headgate_server.process.aside import aside
from headgate_server.process.causes import Causes, cause_of, where
from headgate_server.process.metrics import Metrics, catalogue
from headgate_server.process.metrics.cells import Reading
from headgate_server.store import Database, DataRefused, Probe
from headgate_server.store.phases import Phases

if TYPE_CHECKING:
    from opentelemetry.trace import Span

    from headgate_server.process.tracing.spans import Tracing

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitterConfig(Bounds):
    """How much is stored at once, how much may wait, and how long a small group waits for more calls."""

    small_group_events: int = 200
    """A group with fewer events waits for calls that have already arrived, because the fixed cost of a transaction,
    that of about twenty events, would be noticeable. A larger group gains nothing from waiting and is stored at once.
    """
    quiet_turns: int = 16
    """After this many turns of the event loop without a submission no more calls are expected. Measured with single
    events of 64 callers: 4 turns make groups of 6, 16 make groups of 26, and 64 gain no more. A lone caller notices no
    delay.
    """
    parked_lanes: int = 4
    """Workspaces that may wait for their locks at the same time. Each takes a connection, and most connections must
    stay free for the other workspaces.
    """
    workspaces_at_once: int = 12
    """Workspaces that are stored at the same time, where each has groups of its own. A node that does not answer holds
    up its own workspaces; the others need connections meanwhile.
    """


class _Call(Waiting):
    """One caller's submission, and the future with which the caller waits for the decision."""

    __slots__ = ("decision", "span")

    def __init__(self, submission: Submission, decision: asyncio.Future[Decision]):
        super().__init__(submission, time.monotonic())
        self.decision = decision
        self.span: Span | None = None
        """The span of the call, if it is traced."""

    @property
    def gone(self) -> bool:
        return self.decision.done()

    def settle(self, decision: Decision) -> None:
        if not self.decision.done():  # the caller may have given up; its events are stored nevertheless
            self.decision.set_result(decision)

    def fail(self, error: Exception) -> None:
        if not self.decision.done():
            self.decision.set_exception(error)


_MOST_LAPS = 64
"""The most phases of a commit that have a span; a commit of many workspaces on SQLite has three for each."""

_TELLING = 4
"""Groups tell the pace if they and what waits are at least a quarter of a full group."""
_IN_TIME = 0.8
"""The share of the time that a call may wait in which everything that waits should be stored, at the measured pace."""

WRITTEN = frozenset((Status.ACCEPTED, Status.REPLACED))
"""The outcomes for which a commit has written an event."""


def _has_written(decision: Decision) -> bool:
    return isinstance(decision, Settled) and any(outcome.status in WRITTEN for outcome in decision.outcomes)


class Committer:
    """Stores submissions in groups. A process has one for its store, on one event loop."""

    def __init__(
        self,
        database: Database,
        config: CommitterConfig | None = None,
        readiness: Readiness | None = None,
        *,
        stored: Callable[[], None] = lambda: None,
        metrics: Metrics | None = None,
        tracing: "Tracing | None" = None,
    ):
        """`readiness` is notified of every commit. `stored` is called after each commit that added to a ledger."""
        self._tracing = tracing
        self._metrics = metrics or Metrics()
        self._metrics.add_source(self._waiting)
        self._database = database
        self._readiness = readiness or Readiness(Probe(database))
        self._stored = stored
        self._causes = Causes()
        self._config = config or CommitterConfig()
        self._lanes: Lanes[_Call] = Lanes(self._config)
        self._closing = False
        self._main: asyncio.Task[None] | None = None
        self._growing: Growing[_Call] | None = None
        self._growing_alone: dict[WorkspaceId, Growing[_Call]] = {}
        """The groups of parked lanes."""
        self._others_join = database.others_join
        self._alone: set[asyncio.Task[None]] = set()
        self._each_alone = database.one_workspace_per_group
        at_once = self._config.workspaces_at_once if self._each_alone else self._config.parked_lanes
        self._parking = asyncio.Semaphore(at_once)
        self._pace = Pace()

    async def submit(self, submission: Submission) -> Decision:
        """Store a submission and return the decision when it is durable.

        If the caller is cancelled while the submission waits, the submission is dropped; if its group is already being
        stored, it is stored. Raises `Overloaded` at once if too much is waiting, `Unavailable` and `OutcomeUnknown` if
        the store does, and `InvalidRequest` if the database refuses a value that validation did not refuse.
        """
        call = _Call(submission, asyncio.get_running_loop().create_future())
        if self._tracing is not None:
            call.span = self._tracing.here()
        self.check_room(submission.workspace_id, call.events, call.bytes)
        self._lanes.add(call)
        self._pace.admitted(call.events)
        if self._each_alone:
            self._start_alone(self._lanes.park_ready())
        self._grow(submission.workspace_id)
        if self._main is None and self._lanes.ready:
            self._main = asyncio.create_task(self._run())
        return await call.decision

    def _grow(self, workspace: WorkspaceId) -> None:
        """Let a call of this workspace, which is in the queue now, join the group that it may join."""
        growing, lane_of = self._growing_alone.get(workspace), None if self._others_join else workspace
        if growing is not None:
            growing.grow(partial(self._more, growing, workspace))
        elif self._growing is not None and (self._others_join or workspace in self._growing.workspaces):
            self._growing.grow(partial(self._more, self._growing, lane_of))

    def _more(self, growing: Growing[_Call], lane_of: WorkspaceId | None) -> Sequence[_Call]:
        """Take calls that fit into the growing group."""
        more, late = self._lanes.take(
            time.monotonic(), lane_of=lane_of, taken_events=growing.events, taken_bytes=growing.bytes
        )
        self._give_up(late)
        return more

    def check_room(self, workspace_id: WorkspaceId, events: int, size: int) -> None:
        """Raise what `submit` would raise now for a submission with this many events and bytes of content.

        A caller uses this before it reads its request. In an overload, most of the work would be reading requests that
        are then refused.
        """
        if self._closing:
            raise Unavailable("The server is shutting down.", reason=Reason.SHUTTING_DOWN)
        if not self._lanes.has_room(workspace_id, events, size):
            raise Overloaded(
                "Too many events are waiting to be stored; nothing of this request was stored.",
                retry_after=self._pace.retry_after(workspace_id, self._lanes.events, events),
            )

    def part(self) -> Part:
        """Return the queue's state."""
        lanes, config = self._lanes, self._config
        full = lanes.events >= lanes.most_events or lanes.bytes >= config.waiting_bytes
        return Part("queue", "full" if full else "open", f"{lanes.events} of {lanes.most_events} events wait.")

    def _waiting(self) -> Iterator[Reading]:
        """Yield what waits now, and the bounds."""
        lanes, config = self._lanes, self._config
        yield catalogue.WAITING_EVENTS, (), lanes.events
        yield catalogue.WAITING_EVENTS_BOUND, (), lanes.most_events
        yield catalogue.WAITING_BYTES, (), lanes.bytes
        yield catalogue.WAITING_BYTES_BOUND, (), config.waiting_bytes
        yield catalogue.WAITING_SECONDS, (), lanes.oldest(time.monotonic())
        yield catalogue.WAITING_SECONDS_BOUND, (), config.waiting_seconds

    async def close(self) -> None:
        """Refuse new submissions, store those that wait, and return when no transaction is in progress."""
        self._closing = True
        while tasks := [task for task in (self._main, *self._alone) if task is not None]:
            await asyncio.wait(tasks)

    async def _run(self) -> None:
        """Store one group after another until no ready lane has a submission."""
        try:
            while self._lanes.ready:
                await self._gather(lambda: self._lanes.events)
                group, late = self._lanes.take(time.monotonic())
                self._give_up(late)
                if group:
                    self._growing = Growing(group)
                    self._park(await self._store(self._growing, wait=False))
        finally:
            self._main = self._growing = None

    async def _gather(self, count: Callable[[], int]) -> None:
        """While the group is small, wait for the calls that have already reached this process. `count` returns how many
        events the group has.

        A transaction costs as much as about twenty events. A call that has arrived needs some turns of the event loop
        until it is in the queue. As long as the turns bring submissions, more are expected. If none come, this costs
        some turns of an idle loop: microseconds.
        """
        config = self._config
        quiet, waiting = 0, count()
        while quiet < config.quiet_turns and waiting < config.small_group_events:
            await asyncio.sleep(0)
            quiet = quiet + 1 if count() <= waiting else 0
            waiting = count()

    def _park(self, skipped: Sequence[_Call]) -> None:
        """Let the workspaces of skipped submissions wait for their locks, each in a task of its own."""
        self._start_alone(self._lanes.park(skipped))

    def _start_alone(self, workspaces: Sequence[WorkspaceId]) -> None:
        for workspace in workspaces:
            task = asyncio.create_task(self._run_alone(workspace))
            self._alone.add(task)
            task.add_done_callback(self._alone.discard)

    async def _run_alone(self, workspace: WorkspaceId) -> None:
        """Store the submissions of one workspace, with a wait for its lock, until its lane is empty and no calls are on
        their way to it. Otherwise these would first be tried without a wait, in vain while the other process is busy.
        """
        lanes = self._lanes
        while True:
            await self._gather(lambda: lanes.events_of(workspace))
            if lanes.unpark(workspace):
                return
            try:
                async with asyncio.timeout(self._config.waiting_seconds):
                    await self._parking.acquire()
            except TimeoutError:
                self._give_up(lanes.take_late(time.monotonic(), workspace))
                continue
            try:
                group, late = lanes.take(time.monotonic(), lane_of=workspace)
                self._give_up(late)
                if group:
                    self._growing_alone[workspace] = growing = Growing(group)
                    await self._store(growing, wait=True)
            finally:
                self._growing_alone.pop(workspace, None)
                self._parking.release()

    def _give_up(self, late: Sequence[_Call]) -> None:
        for call in late:
            call.fail(Unavailable("The store could not begin this request in time; nothing of it was stored."))

    async def _append(self, group: Sequence[_Call], *, wait: bool) -> list[_Call]:
        """Store a group, notify its callers, and return the submissions that the store skipped. Raises nothing."""
        return await self._store(Growing(group), wait=wait)

    async def _store(self, growing: Growing[_Call], *, wait: bool) -> list[_Call]:
        """As `_append`, with a group that may grow until the store begins. If the store fails before, the calls that
        joined return to the queue.
        """
        started, phases = time.monotonic(), Phases()
        group, begin = growing.calls, growing.begin
        try:
            decisions = await self._database.append(growing.submissions, wait=wait, begin=begin, phases=phases)
        except Exception as error:
            self._lanes.put_back(growing.withdraw())
            # The callers must learn of every error, and the next group must be tried. Two errors mean that nothing was
            # stored and that one submission is the cause: then each submission is tried alone.
            if isinstance(error, (DataRefused, AnswerFailed)) and len(group) > 1:
                return await self._append_each(group, wait=wait)
            with aside("metrics"):
                self._metrics.group_failed(type(error).__name__)
                self._trace(group, phases, error)
            if isinstance(error, DataRefused):
                # The driver's own message is not logged, because it quotes the value.
                log.error("data_refused", workspace_id=group[0].submission.workspace_id)
                error = InvalidRequest("The database refused a value of this request.", reason=Reason.DATA_REFUSED)
            elif not isinstance(error, Unavailable):
                # A bug. Its message may quote an event, so neither this line nor those of the callers have it.
                log.error("append_failed", **cause_of(error), where=where(error))
                error.cause_logged = True  # type: ignore[attr-defined]
            else:
                self._causes.tell("append_failed", error)
                self._readiness.failed()
            self._fail(group, error)
            return []
        # The group is committed. Every caller is notified before anything else can fail.
        for call, decision in zip(group, decisions, strict=False):
            if decision is not None:
                call.settle(decision)
        skipped = [call for call, decision in zip(group, decisions, strict=False) if decision is None]
        for call, decision in zip(group, decisions, strict=False):
            if decision is not None:
                self._lanes.release(call)
        with aside("pace"):
            self._note(group, decisions, started, phases)
        return skipped

    def _note(
        self, group: Sequence[_Call], decisions: Sequence[Decision | None], started: float, phases: Phases
    ) -> None:
        """Record how many events were stored, and how fast."""
        written = zip(group, decisions, strict=False)
        if stored := sum(call.events for call, decision in written if decision is not None):
            self._follow_pace(stored, started)
            self._metrics.group(stored, phases.seconds())
            self._trace(group, phases)
        if any(decision is not None and _has_written(decision) for decision in decisions):
            self._readiness.stored()
            self._stored()

    def _follow_pace(self, stored: int, started: float) -> None:
        """Measure the pace by a group, unless it is small because few events have come: it would look slow. Then let no
        more events wait than can be stored in time. A caller that is refused at once learns when to come back; one that
        waits too long would have waited in vain.
        """
        config, lanes = self._config, self._lanes
        if _TELLING * (stored + lanes.events) >= min(config.group_events, lanes.most_events):
            self._pace.stored(stored, started)
            lanes.in_time = max(1, round(self._pace.rate * config.waiting_seconds * _IN_TIME))

    def _trace(self, group: Sequence[_Call], phases: Phases, error: Exception | None = None) -> None:
        """Trace a group commit that has ended."""
        if self._tracing is None:
            return
        from headgate_server.process.tracing.spans import Timed

        epoch = time.time_ns() - time.perf_counter_ns()
        attributes: dict[str, str | int] = {
            "headgate.events": sum(call.events for call in group),
            "headgate.calls": len(group),
        }
        if error is not None:
            attributes |= {f"headgate.{name}": value for name, value in cause_of(error).items()}
        parts = [Timed(phase.value, epoch + began, epoch + ended) for phase, began, ended in phases.laps[:_MOST_LAPS]]
        spans = [call.span for call in group]
        self._tracing.commit(spans, epoch + phases.began, attributes, parts, failed=error is not None)

    async def _append_each(self, group: Sequence[_Call], *, wait: bool) -> list[_Call]:
        """Store each submission of a group alone, in order. After a skipped one the later ones of its workspace are
        skipped too.
        """
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
