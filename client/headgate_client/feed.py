"""What both kinds of buffer share: a queue, perhaps a spool, and what is told about events. Not safe for threads."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from google.protobuf.message import Message

from headgate.v1.ingest_service_pb2 import BatchIngestResponse
from headgate_client.core.errors import Dropped, HeadgateError, NotSent, Problem, SpoolError
from headgate_client.core.events import Event, Prepared, decoded
from headgate_client.core.model import Result
from headgate_client.core.queue import OVERHEAD, Item, Limits, Queue, Settled
from headgate_client.core.requests import batch_request, results_of
from headgate_client.core.retry import Retry
from headgate_client.core.scripts import BATCH_INGEST, Call, error_of
from headgate_client.spool import Spool
from headgate_client.ticket import Ticket

log = logging.getLogger("headgate_client")

_PAGES = 10
"""Batches that are read from the spool at once."""

UNREADABLE_SECONDS = 5.0
"""The wait before a spool that could not be read is read again."""

Rows = list[tuple[int, bytes, str]]
"""Events in a spool: row, event and key."""


class Failure(NamedTuple):
    """An event that is not stored, and what its ticket raises."""

    event: Event
    error: HeadgateError


OnFailure = Callable[[Failure], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a buffer works."""

    limits: Limits
    retry: Retry
    attempt_timeout: float
    close_timeout: float
    spool: Spool | None = None
    on_failure: OnFailure | None = None


class Feed:
    """Events from `put` to their end."""

    def __init__(self, settings: Settings):
        self._settings = settings
        self._limits = settings.limits
        self._spool = settings.spool
        self._begin()
        self.open()

    def _begin(self) -> None:
        self.queue = Queue(self._limits, self._settings.retry, keep_denied=self._spool is not None)
        self._tickets: dict[int, Ticket] = {}
        self._opened = False

    def open(self) -> None:
        """Open the spool, if there is one. Raises `SpoolError`."""
        if self._spool is not None and not self._opened:
            self._spool.open()
            self.queue.recover(*self._spool.backlog(OVERHEAD))
        self._opened = True

    def reserve(self, event: Prepared, ticket: Ticket, now: float) -> Item:
        """Keep room for an event that is about to be written to the spool, and return it. `write` and `place` follow.

        Raises `QueueFull` if there is none, and `SpoolError` if the spool cannot be opened.
        """
        item = Item(event.encoded, event.key, now, ticket)
        self.open()
        self.queue.reserve(item.size)
        return item

    def write(self, items: Sequence[Item]) -> None:
        """Write events to the spool. Raises `SpoolError` if they cannot be written; then none is."""
        assert self._spool is not None  # noqa: S101 - the caller has asked
        for item, row in zip(items, self._spool.add_all([(item.key, item.encoded) for item in items]), strict=True):
            item.row = row

    def place(self, item: Item) -> None:
        """Take an event that has its room, and is in the spool, behind all others."""
        self.queue.unreserve(item.size)
        self._queue_spooled(item)

    def put(self, event: Prepared, ticket: Ticket, now: float) -> list[Settled]:
        """Take an event. Return the events that were dropped for it.

        Raises `QueueFull` if there is no room, and `SpoolError` if it cannot be written. It is not taken then.
        """
        item = Item(event.encoded, event.key, now, ticket)
        self.open()
        drops = self._limits.when_full == "drop_oldest"
        # No event is dropped for one that is not taken then.
        self.queue.check_room(item.size, dropping=drops)
        if self._spool is not None:
            item.row = self._spool.add(item.encoded, item.key)
        dropped = self.queue.make_room(item.size) if drops else ()
        if self._spool is None:
            self.queue.put(item)
        else:
            self._queue_spooled(item)
        return [Settled(old, Dropped("The queue was full.")) for old in dropped]

    def _queue_spooled(self, item: Item) -> None:
        assert self._spool is not None  # noqa: S101 - the caller has asked
        if self.queue.absent:
            self._tickets[item.row] = item.token
            self.queue.put_absent(item.size)
        else:
            self._spool.skip(item.row)
            self.queue.put(item)

    def next(self, now: float) -> "list[Item] | float | None":
        """Return the batch to send now, or the seconds to wait; None: until something changes."""
        if self.wants_more:
            try:
                self.loaded(self.read(self.queue.absent), now)
            except SpoolError:
                log.exception("the spool cannot be read")
                return UNREADABLE_SECONDS
        return self.queue.next(now)

    @property
    def wants_more(self) -> bool:
        """Whether events should be read from the spool now."""
        return self._spool is not None and self.queue.wants_more

    def read(self, most: int) -> Rows:
        """Read the next events from the spool. `most` is the number that the queue knows of: an event that is written
        meanwhile is behind them. Raises `SpoolError` if it cannot be read.
        """
        assert self._spool is not None  # noqa: S101 - the caller has asked
        return self._spool.load(min(most, self._limits.max_size * _PAGES))

    def loaded(self, rows: Rows, now: float) -> None:
        """Take events that were read from the spool."""
        self.queue.load([Item(encoded, key, now, self._tickets.pop(row, None), row) for row, encoded, key in rows])

    def call(self, batch: Sequence[Item]) -> Call:
        """Return the call that sends a batch."""
        request = batch_request(item.encoded for item in batch)
        return Call(BATCH_INGEST, request, BatchIngestResponse, self._settings.attempt_timeout)

    def take(self, batch: Sequence[Item], answer: Message | Problem, now: float) -> list[Settled]:
        """Take the answer to a batch, and return what became of its events."""
        if isinstance(answer, BatchIngestResponse):
            try:
                results: Sequence[Result] = results_of(answer, [item.key for item in batch])
            except ValueError as error:
                answer = Problem("INTERNAL", str(error))
            else:
                return self.queue.answered(results, now)
        if not isinstance(answer, Problem):
            answer = Problem("INTERNAL", "The answer is of another kind.")
        return self.queue.failed(answer, now)

    def tell(self, settled: Sequence[Settled]) -> None:
        """Tell tickets and the callback what became of events. A shell with a lock does not hold it meanwhile."""
        for item, outcome in settled:
            error = outcome if isinstance(outcome, HeadgateError) else error_of(outcome)
            if error is not None:
                self._report(item, error)
            if item.token is not None:
                item.token.resolve(outcome)

    def _report(self, item: Item, error: HeadgateError) -> None:
        if self._settings.on_failure is None:
            log.warning("an event is not stored: %s", error)
            return
        try:
            self._settings.on_failure(Failure(decoded(item.encoded), error))
        except (Exception, SystemExit):
            # `sys.exit` in a thread would end the thread, and nobody would send events any more.
            log.exception("on_failure raised an error")

    def remove(self, settled: Sequence[Settled]) -> None:
        """Remove events from the spool, after `tell`. If that fails, they are sent once more, as duplicates."""
        rows = [item.row for item, _ in settled if item.row]
        if self._spool is not None and rows:
            try:
                self._spool.remove(rows)
            except SpoolError:
                log.exception("events were sent and could not be removed from the spool")

    def leave(self) -> list[Settled]:
        """Give up. Return the events without an answer, for `tell`. Those in a spool stay there; `release` it."""
        left = self.queue.take_left()
        if self._spool is None:
            return [Settled(item, NotSent([decoded(item.encoded)])) for item in left]
        tickets = [item.token for item in left if item.token is not None] + list(self._tickets.values())
        self._tickets.clear()
        for ticket in tickets:
            ticket.resolve(NotSent((), spooled=True))
        return []

    def release(self) -> None:
        """Leave the spool to the next process."""
        if self._spool is not None:
            self._spool.close()

    def before_fork(self) -> None:
        """Close the spool's file: a child must not have it open."""
        if self._spool is not None:
            self._spool.before_fork()

    def after_fork_in_child(self) -> None:
        """The events are the parent's. The child begins with none."""
        tickets = [item.token for item in self.queue.take_left()] + list(self._tickets.values())
        if self._spool is not None:
            self._spool.after_fork_in_child()
        self._begin()
        for ticket in tickets:
            if ticket is not None:
                ticket.forget()
