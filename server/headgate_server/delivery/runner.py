"""The delivery to one destination, as a task: started, told of events, stopped."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from headgate_server.core.destinations import Assignment, Watched
from headgate_server.delivery.attempt import Sender
from headgate_server.delivery.channel import Channel, ChannelConfig, Gone
from headgate_server.delivery.journal import Journal
from headgate_server.delivery.pages import Pages
from headgate_server.delivery.retries import Retries
from headgate_server.delivery.walk import Walk
from headgate_server.process.metrics import Metrics
from headgate_server.store import Deliveries, Ledgers

SenderOf = Callable[[Assignment], Awaitable[Sender]]
"""Makes the sender of a destination."""

_ABORT_SECONDS = 1.0
"""How long a delivery may take to record what it did, once its requests were given up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """What every delivery needs."""

    deliveries: Deliveries
    ledgers: Ledgers
    pages: Pages
    journal: Journal
    sender_of: SenderOf
    metrics: Metrics
    config: ChannelConfig


class Runner:
    """Delivers to one destination, as it is at one revision, until it is stopped or ends by itself: because the
    destination was disabled or removed, or because of an error.
    """

    def __init__(self, tools: Tools, watched: Watched):
        self.revision = watched.revision
        self._tools = tools
        self._watched = watched
        self._head = watched.head
        self._channel: Channel | None = None
        self._stopped = False
        self._task = asyncio.create_task(self._run(), name=f"deliver {watched.destination_id}")

    @property
    def ended(self) -> bool:
        """Whether it has ended."""
        return self._task.done()

    def error(self) -> BaseException | None:
        """Return the error that ended it; None: it ended in order."""
        return None if self._task.cancelled() else self._task.exception()

    def tell(self, head: int) -> int:
        """Say how far the ledger goes, and return how many events that is beyond the last time."""
        new = max(0, head - self._head)
        if new:
            self._head = head
            if self._channel is not None:
                self._channel.ring()
        return new

    async def stop(self, grace: float) -> None:
        """Let requests that are under way end within so many seconds, give the others up, and return when all that was
        done is recorded.
        """
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
        # What an operator changes after this is found at the next look.
        self.revision = assignment.destination.revision
        retrying = await tools.deliveries.retrying(assignment.destination)
        sender = await tools.sender_of(assignment)
        try:
            self._channel = channel = Channel(
                assignment.destination, sender, tools.journal, tools.metrics, retrying=retrying, config=tools.config
            )
            if self._stopped:
                return
            await _first_error([work() for work in self._works(assignment, channel)])
        except Gone:
            return
        finally:
            await sender.close()

    def _works(self, assignment: Assignment, channel: Channel) -> Sequence[Callable[[], Awaitable[None]]]:
        tools, destination = self._tools, assignment.destination
        walk = Walk(channel, tools.pages, destination.cursor, lambda: self._head, ahead=assignment.ahead)
        walk.wait_for_failure(assignment.now)
        works: list[Callable[[], Awaitable[None]]] = [
            walk,
            Retries(channel, tools.deliveries, tools.ledgers, lambda: walk.position.sequence),
        ]
        if (replay := destination.replay) is not None:
            works.append(Walk(channel, tools.pages, replay.position, lambda: replay.until, of_replay=True))
        return works


async def _first_error(works: Sequence[Awaitable[None]]) -> None:
    """Return when all have ended. Raises the first error, once the others have been cancelled and have ended."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in tasks:
        if not task.cancelled():
            task.result()
