"""The delivery to one destination as a task. It can be started, woken for new events, and stopped."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headgate_server.core.destinations import Assignment, Watched
from headgate_server.core.model import Position
from headgate_server.delivery.attempt import Sender
from headgate_server.delivery.channel import Channel, ChannelConfig, Gone
from headgate_server.delivery.journal import Journal
from headgate_server.delivery.pages import Pages
from headgate_server.delivery.retries import Retries
from headgate_server.delivery.walk import Walk
from headgate_server.process.metrics import Metrics
from headgate_server.store import Deliveries, Ledgers
from headgate_server.store.matching import Window

if TYPE_CHECKING:
    from headgate_server.process.tracing.spans import Tracing

SenderOf = Callable[[Assignment], Awaitable[Sender]]
"""Creates the sender of a destination."""

_ABORT_SECONDS = 1.0
"""The time for a delivery to record its results after its requests were cancelled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """The objects that all deliveries share."""

    deliveries: Deliveries
    ledgers: Ledgers
    pages: Pages
    journal: Journal
    sender_of: SenderOf
    metrics: Metrics
    config: ChannelConfig
    tracing: "Tracing | None" = None


class Runner:
    """Delivers to one destination at one revision, until it is stopped. It ends by itself if the destination is
    disabled or removed, or after an error.
    """

    def __init__(self, tools: Tools, watched: Watched):
        self.revision = watched.revision
        self._tools = tools
        self._watched = watched
        self._head = watched.head
        self._channel: Channel | None = None
        self._walk: Walk | None = None
        self._stopped = False
        self._task = asyncio.create_task(self._run(), name=f"deliver {watched.destination_id}")

    @property
    def ended(self) -> bool:
        """Whether it has ended."""
        return self._task.done()

    def error(self) -> BaseException | None:
        """Return the error that ended it, None if there was none."""
        return None if self._task.cancelled() else self._task.exception()

    def tell(self, head: int) -> int:
        """Set the sequence of the ledger's head. Return the number of new events. If there are some, the ledger's
        notifier must be told about this delivery.
        """
        new = max(0, head - self._head)
        self._head += new
        if self._walk is not None and self._walk.waits_with_due_place:
            self.wake()
        return new

    @property
    def waits_at(self) -> Position | None:
        """As `Waiter` says."""
        return None if self._walk is None else self._walk.waits_at

    def skips(self, window: Window) -> bool:
        """As `Waiter` says."""
        return self._walk is not None and self._walk.skips(window)

    def wake(self) -> None:
        """As `Waiter` says."""
        if self._channel is not None:
            self._channel.ring()

    async def stop(self, grace: float) -> None:
        """Wait so many seconds for requests in progress, and cancel the rest. Return when all results are recorded."""
        self._stopped = True
        if self._channel is None:
            self._task.cancel()
        else:
            self._channel.stop()
        await asyncio.wait((self._task,), timeout=grace)
        if self._channel is not None and not self._task.done():
            self._channel.abort()
            await asyncio.wait((self._task,), timeout=_ABORT_SECONDS)
        self._task.cancel()
        await asyncio.wait((self._task,))

    async def _run(self) -> None:
        tools, watched = self._tools, self._watched
        assignment = await tools.deliveries.assignment(watched.workspace_id, watched.destination_id)
        if assignment is None:
            return
        # A later change has a greater revision, so the next look finds it.
        self.revision = assignment.destination.revision
        retrying = await tools.deliveries.retrying(assignment.destination)
        sender = await tools.sender_of(assignment)
        try:
            self._channel = channel = Channel(
                assignment.destination,
                sender,
                tools.journal,
                tools.metrics,
                retrying=retrying,
                config=tools.config,
                tracing=tools.tracing,
            )
            if self._stopped:
                return
            await _first_error([job() for job in self._jobs(assignment, channel)])
        except Gone:
            return
        finally:
            await sender.close()

    def _jobs(self, assignment: Assignment, channel: Channel) -> Sequence[Callable[[], Awaitable[None]]]:
        tools, destination = self._tools, assignment.destination
        self._walk = walk = Walk(channel, tools.pages, destination.cursor, lambda: self._head, ahead=assignment.ahead)
        walk.wait_for_failure(assignment.now)
        jobs: list[Callable[[], Awaitable[None]]] = [
            walk,
            Retries(channel, tools.deliveries, tools.ledgers, lambda: walk.position.sequence),
        ]
        if (replay := destination.replay) is not None:
            jobs.append(Walk(channel, tools.pages, replay.position, lambda: replay.until, of_replay=True))
        return jobs


async def _first_error(jobs: Sequence[Awaitable[None]]) -> None:
    """Run jobs until all have ended. An error cancels the other jobs and is raised when they have ended."""
    tasks = [asyncio.ensure_future(job) for job in jobs]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in tasks:
        if not task.cancelled():
            task.result()
