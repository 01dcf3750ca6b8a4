"""Subscriptions: a ledger's events in order, first those that are stored, then each as it is stored.

A subscription is a follower whose cursor its reader keeps. It reads a small page at a time, so a slow reader costs one
page of memory, and reads on only when the page was taken.
"""

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
    """How subscriptions read and how often they speak."""

    heartbeat: float = setting(
        10.0,
        "stream-heartbeat",
        "Seconds without an event after which a subscription sends a heartbeat.",
        least=0.1,
        most=15.0,
    )
    """Proxies close a stream that is silent for 30 to 60 seconds; one lost heartbeat must not close it."""
    page_events: int = 500
    page_bytes: int = 128 * 1024
    """What a slow reader keeps in memory, or one event if that is larger. A page of ordinary events."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Where a subscription begins. If nothing is set: at the ledger's end, so it yields what is stored from now on."""

    after_sequence: int | None = None
    after_id: EventId | None = None
    created_from: int | None = None
    """Inclusive. With one of the others it only leaves out earlier events."""


class CaughtUp(NamedTuple):
    """Every matching event up to this sequence was yielded, and it was the ledger's last."""

    sequence: int


class Heartbeat(NamedTuple):
    """Nothing was yielded for a while. Every matching event up to `sequence` was; `head` is the ledger's last one."""

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

    async def follow(self, query: EventQuery, start: Start) -> AsyncGenerator[Item, None]:
        """Yield the events that the query's filters let through, in order, none twice and none left out, for ever.

        Yields `CaughtUp` once, when the reader has all that is stored, and `Heartbeat` in silent times. Raises
        `InvalidRequest` and `NotFound` for a start that the ledger does not have, and `Unavailable`.
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
                    page = await self._ledgers.events(replace(query, after=position.id))
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
    """Return the place after all events up to this head, whatever the id of the last one is."""
    return Position(head.sequence, ledger.last_id(head.created_at)) if head.sequence else Position()


def _reached(position: Position, head: Head, page: EventPage) -> Position:
    """Return how far a page came that was read when the head was at least at `head`."""
    if page.events:
        newest = page.events[-1]
        position = Position(newest.sequence, newest.id)
    if page.resume is not None:
        # The page ended earlier. The sequence at which the look ended is not known if that event did not match.
        return position._replace(id=page.resume)
    return position if position.sequence >= head.sequence else _end(head)
