"""A walk through a ledger, page by page. A destination has one for its cursor, and one for a replay."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from itertools import takewhile

from headgate_server.core.destinations import Failure, FailureState, Move, Ordering, SetAside
from headgate_server.core.model import Position, StoredEvent
from headgate_server.delivery.attempt import Attempt, Verdict
from headgate_server.delivery.channel import Channel
from headgate_server.delivery.pages import EVERYTHING, Page, Pages
from headgate_server.store.matching import Window

_LONG_REST = 60.0
"""The most seconds that a walk waits. It is woken earlier if there are events."""


class Walk:
    """Delivers the matching events after a place, and moves the place.

    `position` is the place that it has reached. The stored place is behind it only while no event matches.
    """

    def __init__(
        self,
        channel: Channel,
        pages: Pages,
        position: Position,
        end: Callable[[], int],
        *,
        ahead: Sequence[Failure] = (),
        of_replay: bool = False,
    ):
        """`end` returns the sequence of the last event to deliver. `ahead` are the failures beyond the place."""
        self.position = position
        self._channel = channel
        self._pages = pages
        self._end = end
        self._of_replay = of_replay
        self._ordered = channel.destination.ordering is Ordering.ORDERED
        self._max_events = getattr(channel.destination.target, "max_events", channel.config.page_events)
        self._stored = position
        self._stored_at = channel.now()
        self._failures_ahead = {failure.sequence: failure for failure in ahead}
        self._waiting_until = 0.0
        self._attempts = 0
        # Enough to keep every connection busy until the next page is read.
        self._page_events = max(channel.config.page_events, 2 * channel.config.requests * self._max_events)
        self._following: tuple[Position, asyncio.Task[Page]] | None = None
        self._waits = False

    def wait_for_failure(self, now: int) -> None:
        """Wait until the stored time of the next attempt, if a failed event stops an ordered destination. `now` is the
        database's clock in microseconds.
        """
        stopped = [one for one in self._failures_ahead.values() if one.state is FailureState.RETRYING]
        if self._ordered and stopped:
            due = min(one.next_attempt_at or 0 for one in stopped)
            self._waiting_until = self._channel.now() + max(0, due - now) / 1_000_000

    @property
    def waits_at(self) -> Position | None:
        """Where it waits for events although there are some. None means that it does not wait, or that all match."""
        waits = self._waits and self.position.sequence < self._end()
        return self.position if waits and self._channel.destination.filter != EVERYTHING else None

    @property
    def waits_with_due_place(self) -> bool:
        """Whether it waits for events and must be woken to store its place."""
        return self._waits and self._is_due

    def skips(self, window: Window) -> bool:
        """Move to the end of a window that begins at or before `waits_at`, if no event of it matches. Return whether it
        has moved.
        """
        if window.has(self._channel.destination.filter):
            return False
        self.position = window.end
        return True

    async def __call__(self) -> None:
        """Deliver until the channel is stopped. A replay also stops at its end. Raises the errors of `record`."""
        try:
            await self._walk()
        finally:
            self._forget_following()

    async def _walk(self) -> None:
        channel = self._channel
        while not channel.stopping:
            if self._is_due:
                await self._store()
            elif self.position.sequence >= self._end():
                if self._of_replay:
                    break
                await self._rest()
            elif (pause := max(channel.pause(), self._waiting_until - channel.now())) > 0:
                await channel.rest(pause)
            elif channel.full and not self._ordered:
                await channel.rest(1.0)
            else:
                await self._step()
        await self._store()

    async def _rest(self) -> None:
        """Wait for events, or until the place must be stored."""
        self._waits = True
        try:
            await self._channel.rest(_LONG_REST)
        finally:
            self._waits = False

    @property
    def _is_due(self) -> bool:
        """Whether the place must be stored: it has moved, and was not stored in this period of `skip_seconds`. Periods
        begin at the same time for all destinations, so that one transaction stores their places.
        """
        if self._stored.sequence >= self.position.sequence:
            return False
        period = self._channel.config.skip_seconds
        return self._channel.now() // period > self._stored_at // period

    async def _step(self) -> None:
        channel = self._channel
        page = self._within(await self._page())
        if page.reached.sequence <= self.position.sequence:
            # The head is visible before its events are. The next look finds them.
            await channel.rest(0.02)
        elif not page.events:
            self.position = page.reached
        else:
            await (self._deliver_ordered(page) if self._ordered else self._deliver_parallel(page))

    async def _page(self) -> Page:
        """Return the next page, and start to read the one after it while this one is delivered."""
        following, self._following = self._following, None
        if following is not None and following[0] == self.position:
            page = await following[1]
        else:
            if following is not None:
                following[1].cancel()
            page = await self._read(self.position)
        if page.events and page.reached.sequence < self._end():
            reading = asyncio.create_task(self._read(page.reached))
            # If the page is not used, its error is ignored.
            reading.add_done_callback(lambda done: done.cancelled() or done.exception())
            self._following = page.reached, reading
        return page

    async def _read(self, after: Position) -> Page:
        destination = self._channel.destination
        return await self._pages.next(destination.workspace_id, after, destination.filter, self._page_events)

    def _forget_following(self) -> None:
        if self._following is not None:
            self._following[1].cancel()
            self._following = None

    def _within(self, page: Page) -> Page:
        """Return a page without events that the operator skipped, and without events beyond a replay's end."""
        end = self._end() if self._of_replay else page.reached.sequence
        events = [event for event in page.events if event.sequence <= end and not self._is_skipped(event.sequence)]
        return Page(events, page.reached if page.reached.sequence <= end else Position(end, page.reached.id))

    def _is_skipped(self, sequence: int) -> bool:
        failure = self._failures_ahead.get(sequence)
        return failure is not None and failure.state is FailureState.SKIPPED and not self._of_replay

    async def _deliver_parallel(self, page: Page) -> None:
        """Deliver a page with several requests at once. Set failed events aside."""
        channel = self._channel
        chunks = [*self._chunks(page.events)]
        attempts = await channel.attempts((chunk, 1) for chunk in chunks)
        if not attempts:
            return
        known = [*takewhile(lambda one: one is not None, attempts)]
        reached = page.reached if len(known) == len(chunks) else _last(chunks, len(known), self.position)
        failed: list[SetAside] = []
        delivered: list[StoredEvent] = []
        for chunk, attempt in zip(chunks, known, strict=False):
            if attempt is not None and attempt.verdict is Verdict.DELIVERED:
                delivered += chunk
            elif attempt is not None:
                failed += [channel.set_aside(event, 1, attempt) for event in chunk]
        await self._report(known, delivered, failed, reached)
        channel.retrying += sum(one.delay is not None for one in failed)
        if failed:
            channel.ring_aside()

    async def _deliver_ordered(self, page: Page) -> None:
        """Deliver a page request by request, up to the first failure."""
        channel = self._channel
        chunks = [*self._chunks(page.events)]
        until = channel.now() + channel.config.page_seconds
        attempts: list[Attempt | None] = []
        for chunk in chunks:
            number = self._attempts_of(chunk[0]) + 1
            attempt = await channel.attempt(chunk, number)
            attempts.append(attempt)
            if attempt is None or attempt.verdict is not Verdict.DELIVERED:
                break
            self._attempts = 0
            if channel.stopping or channel.now() >= until:
                break
        await self._end_ordered(page, chunks, attempts)

    async def _end_ordered(
        self, page: Page, chunks: Sequence[Sequence[StoredEvent]], attempts: Sequence[Attempt | None]
    ) -> None:
        """Report the events that were delivered in order, and the failure after them."""
        channel = self._channel
        count = sum(one is not None and one.verdict is Verdict.DELIVERED for one in attempts)
        delivered = [event for chunk in chunks[:count] for event in chunk]
        reached = page.reached if count == len(chunks) else _last(chunks, count, self.position)
        failed = []
        last = attempts[-1]
        if count < len(attempts) and last is not None:
            first = chunks[count][0]
            number = self._attempts_of(first) + 1
            aside = channel.set_aside(first, number, last, for_ever=True)
            self._attempts = number
            self._waiting_until = channel.now() + (aside.delay or 0.0)
            failed = [] if self._of_replay else [aside]
        await self._report(attempts, delivered, failed, reached)
        for one in failed:
            self._failures_ahead[one.sequence] = _as_failure(one)

    def _attempts_of(self, first: StoredEvent) -> int:
        """Return the number of attempts of the first event of a request."""
        failure = self._failures_ahead.get(first.sequence)
        return failure.attempts if failure is not None and not self._of_replay else self._attempts

    async def _report(
        self,
        attempts: Sequence[Attempt | None],
        delivered: Sequence[StoredEvent],
        failed: Sequence[SetAside],
        reached: Position,
    ) -> None:
        move = Move(self._stored, reached, self._of_replay) if reached.sequence > self._stored.sequence else None
        settled = [event.sequence for event in delivered if event.sequence in self._failures_ahead or self._of_replay]
        report = self._channel.report(*attempts)._replace(
            move=move, set_aside=failed, settled=settled, delivered=len(delivered)
        )
        await self._channel.record(report)
        self._reached(reached)
        for sequence in settled:
            self._failures_ahead.pop(sequence, None)

    async def _store(self) -> None:
        """Store the place."""
        if self._stored.sequence < self.position.sequence:
            move = Move(self._stored, self.position, self._of_replay)
            await self._channel.record(self._channel.report()._replace(move=move))
        self._reached(self.position)

    def _reached(self, place: Position) -> None:
        self.position = self._stored = place
        self._stored_at = self._channel.now()

    def _chunks(self, events: Sequence[StoredEvent]) -> Iterator[Sequence[StoredEvent]]:
        for start in range(0, len(events), self._max_events):
            yield events[start : start + self._max_events]


def _last(chunks: Sequence[Sequence[StoredEvent]], count: int, before: Position) -> Position:
    """Return the place of the last event of the first `count` requests."""
    if not count:
        return before
    event = chunks[count - 1][-1]
    return Position(event.sequence, event.id)


def _as_failure(one: SetAside) -> Failure:
    return Failure(one.sequence, one.event_id, FailureState.RETRYING, one.attempts, 0, 0, 0, one.status, one.error)
