"""Subscriptions: a ledger's events in order, first the stored ones, then each new one.

A subscription is a follower whose reader keeps the cursor. It reads one small page at a time, and the next page only
when the reader has taken the last one. So a slow reader costs one page of memory.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

from headgate_server.background.heads import Heads
from headgate_server.core import ledger
from headgate_server.core.errors import InvalidRequest, NotFound
from headgate_server.core.model import EventPage, EventQuery, Head, Position, StoredEvent
from headgate_server.core.reasons import Reason
from headgate_server.core.types import EventId, WorkspaceId
from headgate_server.process.setting import setting
from headgate_server.store import Ledgers


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriptionConfig:
    """How subscriptions read, and how often they send a heartbeat."""

    heartbeat: float = setting(
        10.0,
        "stream-heartbeat",
        "Seconds without an event after which a subscription sends a heartbeat.",
        least=0.1,
        most=15.0,
    )
    """Proxies close a stream without data after 30 to 60 seconds. One lost heartbeat must not close it."""
    page_events: int = 500
    page_bytes: int = 128 * 1024
    """The memory of a slow reader, or one event if that is larger. It is a page of ordinary events."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Where a subscription begins. If nothing is set, it begins at the ledger's end and yields only new events."""

    after_sequence: int | None = None
    after_id: EventId | None = None
    created_from: int | None = None
    """Inclusive. With one of the others it only leaves out earlier events."""


class CaughtUp(NamedTuple):
    """Every matching event up to this sequence was yielded, and it was the ledger's last."""

    sequence: int


class Heartbeat(NamedTuple):
    """No event was yielded for some time. Every matching event up to `sequence` was yielded; `head` is the sequence of
    the ledger's last event.
    """

    sequence: int
    head: int


Item = StoredEvent | CaughtUp | Heartbeat


class Subscriptions:
    """Makes subscriptions to any ledger."""

    def __init__(
        self,
        ledgers: Ledgers,
        heads: Heads,
        config: SubscriptionConfig | None = None,
        *,
        timer: Callable[[], float] = time.monotonic,
    ):
        self._ledgers = ledgers
        self._heads = heads
        self._config = config or SubscriptionConfig()
        self._timer = timer
        self._reading: dict[tuple[EventQuery, int], asyncio.Task[EventPage]] = {}

    async def follow(self, query: EventQuery, start: Start) -> AsyncGenerator[Item, None]:
        """Yield the events that match the query's filters, in order, each exactly once, without end.

        Yields `CaughtUp` once, when the reader has every stored event, and `Heartbeat` while no events come. Raises
        `InvalidRequest` and `NotFound` if the ledger does not have the start, and `Unavailable`.
        """
        with self._heads.watching(query.workspace_id) as watched:
            watched.saw(await self._ledgers.head(query.workspace_id))
            position = await self._place(query.workspace_id, start, watched.head)
            query = replace(
                query,
                created_from=start.created_from,
                limit=self._config.page_events,
                size=self._config.page_bytes,
            )
            caught_up, spoke = False, self._timer()
            while True:
                head = watched.head
                if position.sequence < head.sequence:
                    page = await self._read(replace(query, after=position.id), head)
                    for event in page.events:
                        yield event
                        spoke = self._timer()
                    position = _reached(position, head, page)
                elif not caught_up:
                    yield CaughtUp(position.sequence)
                    caught_up, spoke = True, self._timer()
                elif await watched.beyond(position.sequence, spoke + self._config.heartbeat - self._timer()):
                    continue
                if self._timer() >= spoke + self._config.heartbeat:
                    yield Heartbeat(position.sequence, watched.head.sequence)
                    spoke = self._timer()

    async def _read(self, query: EventQuery, head: Head) -> EventPage:
        """Read a page once for all subscriptions that need it at the same time: those at the same place that were woken
        by the same event. A page that was begun for an earlier head may lack later events, so it is another page.
        """
        key = (query, head.sequence)
        task = self._reading.get(key)
        if task is None:
            task = self._reading[key] = asyncio.create_task(self._ledgers.events(query))
            task.add_done_callback(lambda _: self._reading.pop(key, None))
        return await asyncio.shield(task)

    async def _place(self, workspace_id: WorkspaceId, start: Start, head: Head) -> Position:
        if start.after_id is not None:
            for event in await self._ledgers.fetch(workspace_id, [start.after_id]):
                return Position(event.sequence, event.id)
            raise NotFound("There is no such event in this workspace.", reason=Reason.EVENT_NOT_FOUND)
        if start.after_sequence is not None:
            return await self._after(workspace_id, start.after_sequence, head)
        if start.created_from is not None:
            return await self._ledgers.place_before(workspace_id, start.created_from)
        return _end(head)

    async def _after(self, workspace_id: WorkspaceId, sequence: int, head: Head) -> Position:
        if sequence > head.sequence:
            raise InvalidRequest(
                f"The ledger ends at sequence {head.sequence}; it has no event {sequence} to begin after.",
                reason=Reason.SEQUENCE_PAST_HEAD,
                field="after_sequence",
            )
        return _end(head) if sequence == head.sequence else await self._ledgers.place(workspace_id, sequence)


def _end(head: Head) -> Position:
    """Return the position after all events up to this head, whatever the id of the last event."""
    return Position(head.sequence, ledger.last_id(head.created_at)) if head.sequence else Position()


def _reached(position: Position, head: Head, page: EventPage) -> Position:
    """Return the position after a page that was read when the head was at least at `head`."""
    if page.events:
        newest = page.events[-1]
        position = Position(newest.sequence, newest.id)
    if page.resume is not None:
        # The page ended before the head. If the last event did not match, its sequence is not known.
        return position._replace(id=page.resume)
    return position if position.sequence >= head.sequence else _end(head)
