"""A way through a ledger, page by page: that of a destination's cursor, and that of a replay."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from itertools import takewhile

from headgate_server.core.destinations import Failure, FailureState, Move, Ordering, SetAside
from headgate_server.core.model import Position, StoredEvent
from headgate_server.delivery.attempt import Attempt, Verdict
from headgate_server.delivery.channel import Channel
from headgate_server.delivery.pages import Page, Pages

_LONG_REST = 60.0
"""Seconds between two looks of a walk that is woken whenever there is something."""


class Walk:
    """Delivers what a destination wants, from a place on, and moves the place.

    `position` is how far it has come; what is stored lies behind it only while nothing matches.
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
        """`end` returns the last sequence that there is to deliver. `ahead` are failures beyond the place."""
        self.position = position
        self._channel = channel
        self._pages = pages
        self._end = end
        self._of_replay = of_replay
        self._ordered = channel.destination.ordering is Ordering.ORDERED
        self._max_events = getattr(channel.destination.target, "max_events", channel.config.page_events)
        self._stored = position
        self._stored_at = channel.now()
        self._ahead = {failure.sequence: failure for failure in ahead}
        self._waiting_until = 0.0
        self._attempts = 0
        # Enough for every connection to be busy until the next page comes.
        self._page_events = max(channel.config.page_events, 2 * channel.config.requests * self._max_events)
        self._following: tuple[Position, asyncio.Task[Page]] | None = None

    def wait_for_failure(self, now: int) -> None:
        """Wait for the next attempt of the event that stops an ordered destination, as it was stored. `now` is the
        database's clock, in microseconds.
        """
        stopped = [one for one in self._ahead.values() if one.state is FailureState.RETRYING]
        if self._ordered and stopped:
            due = min(one.next_attempt_at or 0 for one in stopped)
            self._waiting_until = self._channel.now() + max(0, due - now) / 1_000_000

    async def __call__(self) -> None:
        """Walk until the channel is stopped; a replay also ends at its end. Raises what `Channel.record` raises."""
        try:
            await self._walk()
        finally:
            self._forget_following()

    async def _walk(self) -> None:
        channel = self._channel
        while not channel.stopping:
            if self.position.sequence >= self._end():
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
        """Wait for events; before, store the place if it has not been stored for long."""
        behind = self._stored.sequence < self.position.sequence
        due = self._stored_at + self._channel.config.skip_seconds - self._channel.now()
        if behind and due <= 0:
            await self._store()
        else:
            await self._channel.rest(due if behind else _LONG_REST)

    async def _step(self) -> None:
        channel = self._channel
        page = self._within(await self._page())
        if page.reached.sequence <= self.position.sequence:
            # The head was seen before its events can be: they are there at the next look.
            await channel.rest(0.02)
        elif not page.events:
            self.position = page.reached
            if channel.now() - self._stored_at >= channel.config.skip_seconds:
                await self._store()
        else:
            await (self._deliver_ordered(page) if self._ordered else self._deliver_parallel(page))

    async def _page(self) -> Page:
        """Return the next page, and begin to read the one after it, for the time in which this one is delivered."""
        following, self._following = self._following, None
        if following is not None and following[0] == self.position:
            page = await following[1]
        else:
            if following is not None:
                following[1].cancel()
            page = await self._read(self.position)
        if page.events and page.reached.sequence < self._end():
            reading = asyncio.create_task(self._read(page.reached))
            # It may not be asked for any more; its error is then nobody's.
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
        """Return a page without what the operator skipped, and without what lies beyond a replay's end."""
        end = self._end() if self._of_replay else page.reached.sequence
        events = [event for event in page.events if event.sequence <= end and not self._is_skipped(event.sequence)]
        return Page(events, page.reached if page.reached.sequence <= end else Position(end, page.reached.id))

    def _is_skipped(self, sequence: int) -> bool:
        failure = self._ahead.get(sequence)
        return failure is not None and failure.state is FailureState.SKIPPED and not self._of_replay

    async def _deliver_parallel(self, page: Page) -> None:
        """Deliver a page, several requests at once; set aside what fails."""
        channel = self._channel
        chunks = [*self._chunks(page.events)]
        found = await channel.attempts((chunk, 1) for chunk in chunks)
        if not found:
            return
        known = [*takewhile(lambda one: one is not None, found)]
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
        """Deliver a page, one request after the other, up to the first that fails."""
        channel = self._channel
        chunks = [*self._chunks(page.events)]
        until = channel.now() + channel.config.page_seconds
        found: list[Attempt | None] = []
        for chunk in chunks:
            number = self._attempts_of(chunk[0]) + 1
            attempt = await channel.attempt(chunk, number)
            found.append(attempt)
            if attempt is None or attempt.verdict is not Verdict.DELIVERED:
                break
            self._attempts = 0
            if channel.stopping or channel.now() >= until:
                break
        await self._end_ordered(page, chunks, found)

    async def _end_ordered(
        self, page: Page, chunks: Sequence[Sequence[StoredEvent]], found: Sequence[Attempt | None]
    ) -> None:
        """Report what was delivered in order, and the failure that stopped it."""
        channel = self._channel
        count = sum(one is not None and one.verdict is Verdict.DELIVERED for one in found)
        delivered = [event for chunk in chunks[:count] for event in chunk]
        reached = page.reached if count == len(chunks) else _last(chunks, count, self.position)
        failed = []
        last = found[-1]
        if count < len(found) and last is not None:
            first = chunks[count][0]
            attempts = self._attempts_of(first) + 1
            aside = channel.set_aside(first, attempts, last, for_ever=True)
            self._attempts = attempts
            self._waiting_until = channel.now() + (aside.delay or 0.0)
            failed = [] if self._of_replay else [aside]
        await self._report(found, delivered, failed, reached)
        for one in failed:
            self._ahead[one.sequence] = _as_failure(one)

    def _attempts_of(self, first: StoredEvent) -> int:
        """Return how often the first event of a request was tried."""
        failure = self._ahead.get(first.sequence)
        return failure.attempts if failure is not None and not self._of_replay else self._attempts

    async def _report(
        self,
        attempts: Sequence[Attempt | None],
        delivered: Sequence[StoredEvent],
        failed: Sequence[SetAside],
        reached: Position,
    ) -> None:
        move = Move(self._stored, reached, self._of_replay) if reached.sequence > self._stored.sequence else None
        settled = [event.sequence for event in delivered if event.sequence in self._ahead or self._of_replay]
        report = self._channel.report(*attempts)._replace(
            move=move, set_aside=failed, settled=settled, delivered=len(delivered)
        )
        await self._channel.record(report)
        self._reached(reached)
        for sequence in settled:
            self._ahead.pop(sequence, None)

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
