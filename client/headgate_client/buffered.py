"""A buffer whose events a thread sends."""

import threading
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from types import TracebackType
from typing import Any, Self

from google.protobuf.message import Message

from headgate_client import exits, fork
from headgate_client.clock import Clock
from headgate_client.core.errors import Closed, NotSent, Problem
from headgate_client.core.events import Event, Prepared, decoded, prepare
from headgate_client.core.queue import Item, Settled, Stats, size_of
from headgate_client.feed import Feed, Settings
from headgate_client.ticket import Ticket
from headgate_client.transport import Transport

_CALLBACK_SECONDS = 1.0
"""The longest that `close` waits for `on_failure` beyond its own timeout."""


class Buffered:
    """Takes events one by one, and sends them in batches. Safe for threads. Use as `with`, or call `close`."""

    def __init__(self, transport: Transport, settings: Settings, clock: Clock):
        self._transport = transport
        self._settings = settings
        self._blocks = settings.limits.when_full == "block"
        self._clock = clock
        self._changed = threading.Condition(threading.RLock())
        self._feed = Feed(settings)
        self._sender: threading.Thread | None = None
        self._telling = 0
        self._closed = False
        self._stopped = False
        fork.register_queue(self)
        exits.register(self)
        exits.prepare()
        if len(self._feed.queue):
            with self._changed:
                self._start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close. Raises `NotSent` if events are left, unless another error is on its way."""
        left = self.close()
        if left and kind is None:
            raise NotSent(left)

    def emit(
        self,
        type: str,  # noqa: A002 - the field's name
        data: Mapping[str, Any] | bytes | None = None,
        *,
        source: str = "",
        subject: str = "",
        occurred_at: datetime | str | None = None,
        key: str | None = None,
    ) -> Ticket:
        """Take an event, and return its ticket.

        Raises `InvalidEvent` if it cannot be sent, `QueueFull`, `Closed` or `SpoolError`. Then it is not taken.
        """
        event = prepare(Event(type=type, data=data, source=source, subject=subject, occurred_at=occurred_at, key=key))
        ticket = Ticket(event.key)
        self._feed.queue.check_size(size_of(event.encoded))
        while (dropped := self._put(event, ticket)) is None:
            self._wait_for_room(size_of(event.encoded))
        self._feed.tell(dropped)
        return ticket

    def _put(self, event: Prepared, ticket: Ticket) -> list[Settled] | None:
        """Put an event into the queue, and return those that were dropped for it; None if it must wait for room."""
        exits.enter()
        try:
            with self._changed:
                if self._closed:
                    raise Closed("The buffer is closed.")
                self._feed.open()
                if len(self._feed.queue):
                    self._start()  # events that another process left behind make room only if they are sent
                if self._blocks and not self._is_sender() and not self._feed.queue.has_room(size_of(event.encoded)):
                    return None
                dropped = self._feed.put(event, ticket, self._clock.now())
                self._feed.remove(dropped)
                self._start()
                if self._feed.queue.has_news():
                    self._changed.notify_all()
                return dropped
        finally:
            exits.leave()

    def _wait_for_room(self, size: int) -> None:
        with self._changed:
            while not self._closed and not self._feed.queue.has_room(size):
                self._clock.wait(self._changed, None)

    def flush(self, timeout: float | None = None) -> int:
        """Send everything that was emitted before now, and wait for the answers at most so many seconds. Return the
        number of events that have none yet.
        """
        if self._is_sender():
            raise RuntimeError("on_failure cannot wait for the thread that calls it")
        with self._changed:
            last = self._feed.queue.hurry()
            self._changed.notify_all()
            end = None if timeout is None else self._clock.now() + timeout
            while (self._feed.queue.earliest() <= last or self._telling) and not self._stopped:
                left = None if end is None else end - self._clock.now()
                if left is not None and left <= 0:
                    break
                self._clock.wait(self._changed, left)
            return self._feed.queue.missing(last) + self._telling

    def close(self, timeout: float | None = None) -> list[Event]:
        """Take no more events, send those that wait, and return the events that have no answer after so many seconds.

        A wait for a retry ends at once. Where there is a spool, the events that are left stay in it, and none is
        returned. `timeout` None: the buffer's `close_timeout`.
        """
        end = self._clock.now() + (self._settings.close_timeout if timeout is None else timeout)
        with self._changed:
            if not self._closed:
                self._closed = True
                self._feed.queue.close()
                self._changed.notify_all()
            if not self._is_sender():
                self._wait_for_sender(end)
            if self._stopped:
                return []
            self._stopped = True
            self._changed.notify_all()
            left = self._feed.leave()
            self._feed.release()
        self._feed.tell(left)
        exits.unregister(self)
        return [decoded(item.encoded) for item, _ in left]

    def _wait_for_sender(self, end: float) -> None:
        while self._sender is not None and (left := end - self._clock.now()) > 0:
            if self._feed.queue.retry_in(self._clock.now()) > left:
                break
            self._clock.wait(self._changed, left)
        last = max(end, self._clock.now() + _CALLBACK_SECONDS)
        while self._telling and (left := last - self._clock.now()) > 0:
            self._clock.wait(self._changed, left)

    def close_at_exit(self) -> None:
        """Close at the end of the process, and report the events that are left."""
        if left := len(self.close()):
            exits.report(left)

    @property
    def closed(self) -> bool:
        """Whether it takes no more events."""
        return self._closed

    @property
    def stats(self) -> Stats:
        """The counts until now."""
        with self._changed:
            return self._feed.queue.stats()

    @property
    def last_problem(self) -> Problem | None:
        """Why the last call failed. None: it did not."""
        return self._feed.queue.last_problem

    # The sender.

    def _is_sender(self) -> bool:
        return self._sender is threading.current_thread()

    def _start(self) -> None:
        """Start the thread with the first event: a process that forks before it has none."""
        if self._sender is None:
            exits.prepare()
            self._sender = threading.Thread(target=self._run, name="headgate-sender", daemon=True)
            self._sender.start()

    def _run(self) -> None:
        settled: list[Settled] = []
        while (batch := self._next(wait=not settled)) is not None or settled:
            answer = None if batch is None else partial(self._taken, batch, self._begun(batch))
            # Tickets and callbacks are told while the service stores the next batch.
            self._finish(settled)
            settled = [] if answer is None else answer()
        with self._changed:
            self._sender = None
            self._changed.notify_all()

    def _next(self, *, wait: bool) -> list[Item] | None:
        """Return the next batch. None: there is none yet, or with `wait`, the sender ends."""
        with self._changed:
            while not self._stopped:
                step = self._feed.next(self._clock.now())
                if isinstance(step, list):
                    return step
                if not wait or (self._closed and not len(self._feed.queue)):
                    break
                self._clock.wait(self._changed, step)
            return None

    def _taken(self, batch: list[Item], answer: Callable[[], Message | Problem]) -> list[Settled]:
        """Wait for the answer to a batch, and return what became of its events."""
        said = self._answer(answer)
        with self._changed:
            if self._stopped:
                return []
            settled = self._feed.take(batch, said, self._clock.now())
            self._telling += len(settled)
            if not settled:
                self._changed.notify_all()
            return settled

    def _begun(self, batch: list[Item]) -> Callable[[], Message | Problem]:
        try:
            return self._transport.begin(self._feed.call(batch))
        except Exception as error:
            problem = _problem_of(error)
            return lambda: problem

    def _answer(self, answer: Callable[[], Message | Problem]) -> Message | Problem:
        try:
            return answer()
        except Exception as error:
            return _problem_of(error)

    def _finish(self, settled: list[Settled]) -> None:
        if not settled:
            return
        try:
            self._feed.tell(settled)
        finally:
            with self._changed:
                self._feed.remove(settled)
                self._telling -= len(settled)
                self._changed.notify_all()

    # Forks. The three are called by `fork.py`.

    def before_fork(self) -> None:
        """Hold the queue still."""
        self._changed.acquire()
        self._feed.before_fork()

    def after_fork_in_parent(self) -> None:
        """Go on."""
        self._changed.release()

    def after_fork_in_child(self) -> None:
        """Begin anew: the events and the sender are the parent's."""
        self._changed = threading.Condition(threading.RLock())
        self._sender = None
        self._telling = 0
        self._feed.after_fork_in_child()
        if not self._closed:
            exits.register(self)


def _problem_of(error: Exception) -> Problem:
    """gRPC raises more than its own errors while a process ends."""
    return Problem("UNKNOWN", f"{type(error).__name__}: {error}")
