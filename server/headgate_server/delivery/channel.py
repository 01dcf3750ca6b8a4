"""The connection to one destination. Its walk, its replay and its retries share it."""

import asyncio
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from headgate_server.background.wakeup import Wakeup
from headgate_server.core.destinations import Destination, JetStream, Report, SetAside
from headgate_server.core.model import StoredEvent
from headgate_server.delivery import schedule
from headgate_server.delivery.attempt import Attempt, Sender, Verdict, printable
from headgate_server.delivery.journal import Journal
from headgate_server.process.metrics import Metrics

if TYPE_CHECKING:
    from headgate_server.process.tracing.spans import Tracing

log = structlog.get_logger(__name__)

_MICROSECONDS = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelConfig:
    """The settings of the delivery to one destination. Times are in seconds."""

    requests: int = 8
    """The most requests of one destination at once. They keep a receiver busy that takes 100 ms, and do not overload
    it.
    """
    page_events: int = 500
    """The most events between two moves of the cursor. After a crash at most so many are repeated."""
    page_seconds: float = 1.0
    """After this time no further request of a page starts, so that a slow receiver's cursor moves too."""
    most_retrying: int = 1_000
    """The most set-aside events that wait for their next attempt. At this bound the destination waits, so that a
    receiver that is down for a day does not fill the table.
    """
    failures_in_row: int = 8
    """After so many failed attempts in a row, requests are sent one at a time until one succeeds."""
    longest_pause: float = 10.0
    """The longest time between two of these requests."""
    skip_seconds: float = 1.0
    """While no event matches, the cursor moves once in so many seconds, because a move costs a transaction."""


class Gone(Exception):
    """The destination was removed, or another process moved its cursor."""


class Channel:
    """Sends to one destination, counts the attempts, and reports them. Used on one event loop only."""

    def __init__(
        self,
        destination: Destination,
        sender: Sender,
        journal: Journal,
        metrics: Metrics,
        *,
        retrying: int,
        config: ChannelConfig | None = None,
        tracing: "Tracing | None" = None,
        timer: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ):
        """`retrying` is the number of set-aside events that wait for their next attempt."""
        self.destination = destination
        self.config = config or ChannelConfig()
        self.retrying = retrying
        self.stopping = False
        """Whether no further request may start."""
        self._sender = sender
        self._journal = journal
        self._metrics = metrics
        self._tracing = tracing
        self._kind = "jetstream" if isinstance(destination.target, JetStream) else "webhook"
        self._timer = timer
        self._chance = chance
        self._not_before = 0.0
        self._failures = 0
        self._sending: set[asyncio.Future[Attempt]] = set()
        # Walk, replay and retries share one bound, because they share the receiver. A request must not wait for a
        # connection while its timeout runs.
        self._slots = asyncio.Semaphore(self.config.requests)
        self._bell = Wakeup()
        self._aside_bell = Wakeup()

    @property
    def full(self) -> bool:
        """Whether no further events may be set aside."""
        return self.retrying >= self.config.most_retrying

    @property
    def width(self) -> int:
        """The most requests at once."""
        return 1 if self._failures >= self.config.failures_in_row else self.config.requests

    def now(self) -> float:
        """Return the process's monotonic time in seconds."""
        return self._timer()

    def ring(self) -> None:
        """Wake the walks, because there are events."""
        self._bell.ring()

    def ring_aside(self) -> None:
        """Wake the retries, because an event was set aside."""
        self._aside_bell.ring()

    async def rest(self, seconds: float) -> None:
        """Return after so many seconds, or when there are events."""
        if not self.stopping:
            await self._bell.wait(seconds)

    async def rest_aside(self, seconds: float) -> None:
        """Return after so many seconds, or when an event was set aside."""
        if not self.stopping:
            await self._aside_bell.wait(seconds)

    def stop(self) -> None:
        """Start no further request. Requests in progress continue."""
        self.stopping = True
        self.ring()
        self.ring_aside()

    def abort(self) -> None:
        """Cancel the requests in progress. It is not known whether they delivered."""
        self.stop()
        for sending in self._sending:
            sending.cancel()

    def pause(self) -> float:
        """Return the seconds in which no request may start: the receiver asked for it, or it always fails."""
        return max(0.0, self._not_before - self._timer())

    async def attempt(self, events: Sequence[StoredEvent], number: int) -> Attempt | None:
        """Try to deliver events in one request. `number` is 1 for the first attempt. Return None if the request was
        cancelled, or if the channel stopped before it started.
        """
        async with self._slots:
            return None if self.stopping else await self._attempt(events, number)

    async def _attempt(self, events: Sequence[StoredEvent], number: int) -> Attempt | None:
        sending = asyncio.ensure_future(self._send(events, number))
        self._sending.add(sending)
        try:
            await asyncio.wait((sending,))
        finally:
            self._sending.discard(sending)
            sending.cancel()
        if sending.cancelled():
            return None
        attempt = sending.result()
        self._note(attempt, events, number)
        return attempt

    async def attempts(
        self, requests: Iterator[tuple[Sequence[StoredEvent], int]], *, retries: bool = False
    ) -> list[Attempt | None]:
        """Try requests in order, several at once, until none is left or no further one may start. Return an entry for
        each that was started. Only retries continue while the destination is full.
        """
        results: list[Attempt | None] = []
        until = self._timer() + self.config.page_seconds
        places_left = self.config.most_retrying - self.retrying

        async def work() -> None:
            nonlocal places_left
            while self._goes_on(until) and (retries or places_left > 0):
                request = next(requests, None)
                if request is None:
                    return
                place = len(results)
                results.append(None)
                attempt = results[place] = await self.attempt(*request)
                if attempt is None or attempt.verdict is not Verdict.DELIVERED:
                    places_left -= len(request[0])

        await asyncio.gather(*(work() for _ in range(self.width)))
        return results

    def set_aside(self, event: StoredEvent, attempts: int, attempt: Attempt, *, for_ever: bool = False) -> SetAside:
        """Return the row of a failed attempt, with the time of the next attempt from the schedule."""
        delay = schedule.wait(attempts, random=self._chance(), retry_after=attempt.retry_after, for_ever=for_ever)
        return SetAside(event.sequence, event.id, attempts, delay, attempt.status, attempt.detail)

    async def record(self, report: Report) -> None:
        """Record a report. Raises `Gone`, and the errors of `Journal.record`."""
        failing = await self._journal.record(report)
        if failing is None:
            raise Gone
        if report.disable is not None:
            self._disabled(report.disable)
        elif report.error is not None and schedule.is_dead(0, int(failing * _MICROSECONDS)):
            why = f"All attempts failed for {schedule.FAILING_DAYS} days."
            await self._journal.record(self.report(disable=why))
            self._disabled(why)

    def report(
        self,
        *attempts: Attempt | None,
        disable: str | None = None,
    ) -> Report:
        """Return a report about this destination, with the errors of the attempts."""
        failed = [one for one in attempts if one is not None and one.verdict is not Verdict.DELIVERED]
        gone = [one for one in failed if one.verdict is Verdict.GONE]
        if gone and disable is None:
            disable = "The receiver answered 410 Gone."
        return Report(
            self.destination.workspace_id,
            self.destination.id,
            failed_attempts=len(failed),
            error=_error_text(failed[-1]) if failed else None,
            disable=disable,
        )

    def _goes_on(self, until: float) -> bool:
        return not self.stopping and self._timer() < until and self.pause() == 0

    async def _send(self, events: Sequence[StoredEvent], number: int) -> Attempt:
        if self._tracing is None:
            return await self._send_untraced(events, number)
        attributes = {
            "headgate.destination": self.destination.id,
            "headgate.sequence": events[0].sequence,
            "headgate.events": len(events),
            "headgate.attempt": number,
        }
        with self._tracing.delivery(self._kind, attributes) as span:
            attempt = await self._send_untraced(events, number)
            span.set_attribute("headgate.result", attempt.verdict.value)
            if attempt.status is not None:
                span.set_attribute("http.response.status_code", attempt.status)
            if attempt.verdict is not Verdict.DELIVERED:
                self._tracing.failed(span)
            return attempt

    async def _send_untraced(self, events: Sequence[StoredEvent], number: int) -> Attempt:
        started = self._timer()
        try:
            return await self._sender.send(events, number)
        except Exception as error:
            # A sender must not raise. If a bug raises, it counts as a failed attempt and is logged.
            log.exception("sender_failed", destination=self.destination.id)
            words = f"a bug of the service: {type(error).__name__}"
            return Attempt(Verdict.FAILED, None, words, None, self._timer() - started)

    def _note(self, attempt: Attempt, events: Sequence[StoredEvent], number: int) -> None:
        self._metrics.delivery_attempt(self._kind, attempt.verdict.value, len(events), attempt.seconds)
        if attempt.verdict is Verdict.DELIVERED:
            self._failures = 0
            return
        self._failures += 1
        self._wait(attempt)
        if attempt.verdict is Verdict.GONE:
            self.stop()
        log.warning(
            "delivery_failed",
            destination=self.destination.id,
            status=attempt.status,
            answer=attempt.detail,
            sequence=events[0].sequence,
            events=len(events),
            attempt=number,
            seconds=round(attempt.seconds, 3),
        )

    def _wait(self, attempt: Attempt) -> None:
        """Set the time before which no request may start."""
        config = self.config
        seconds = attempt.retry_after or 0.0
        if (over := self._failures - config.failures_in_row) >= 0:
            seconds = max(seconds, min(0.25 * 2.0 ** min(over, 16), config.longest_pause))
        self._not_before = max(self._not_before, self._timer() + seconds) if seconds else self._not_before

    def _disabled(self, why: str) -> None:
        self.stop()
        self._metrics.destination_disabled()
        log.warning("destination_disabled", destination=self.destination.id, why=why)


def _error_text(attempt: Attempt) -> str:
    return printable(f"{attempt.status}: {attempt.detail}" if attempt.status is not None else attempt.detail)
