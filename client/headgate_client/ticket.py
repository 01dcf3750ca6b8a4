"""What `emit` returns: asks for an event's result, from a thread or from an event loop."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Generator
from functools import partial
from typing import Any

from headgate_client.core.errors import Forked, HeadgateError
from headgate_client.core.model import Result
from headgate_client.core.scripts import stored_or_raise
from headgate_client.waking import wake

_lock = threading.RLock()


def before_fork() -> None:
    """Hold all tickets still."""
    _lock.acquire()


def after_fork_in_parent() -> None:
    """Let tickets change again."""
    _lock.release()


def after_fork_in_child() -> None:
    """The same in the child, with a lock of its own."""
    global _lock
    _lock = threading.RLock()


class Ticket:
    """The result of one emitted event, now or later. `await ticket` and `ticket.result()` give the same."""

    __slots__ = ("_outcome", "_waiters", "key")

    def __init__(self, key: str):
        self.key = key
        """The idempotency key under which the event is sent."""
        self._outcome: Result | HeadgateError | None = None
        self._waiters: list[Callable[[], None]] = []

    def done(self) -> bool:
        """Whether it is known what became of the event."""
        return self._outcome is not None

    def result(self, timeout: float | None = None) -> Result:
        """Wait for the event's result, and return it.

        Raises `EventRejected` or `EventConflict` if the event is not stored, what `CallError` says if its call was
        refused, `Dropped`, `NotSent` or `Forked` if nobody sends it, and `TimeoutError` after so many seconds.
        """
        self._wait(timeout)
        return self._result()

    def exception(self, timeout: float | None = None) -> HeadgateError | None:
        """Wait for the event's result, and return what `result` would raise; None if the event is stored."""
        self._wait(timeout)
        try:
            self._result()
        except HeadgateError as error:
            return error
        return None

    def __await__(self) -> Generator[Any, None, Result]:
        if self._outcome is None:
            loop = asyncio.get_running_loop()
            future: asyncio.Future[None] = loop.create_future()
            waiter = partial(wake, loop, future)
            self._when_done(waiter)
            try:
                yield from future
            except BaseException:
                self._waits_no_more(waiter)
                raise
        return self._result()

    def _result(self) -> Result:
        assert self._outcome is not None  # noqa: S101 - the caller has waited
        if isinstance(self._outcome, HeadgateError):
            raise self._outcome
        return stored_or_raise(self._outcome)

    def _wait(self, timeout: float | None) -> None:
        if self._outcome is not None:
            return
        done = threading.Event()
        self._when_done(done.set)
        if not done.wait(timeout):
            self._waits_no_more(done.set)
            raise TimeoutError("The event has no result yet.")

    def _when_done(self, call: Callable[[], None]) -> None:
        with _lock:
            if self._outcome is None:
                self._waiters.append(call)
                return
        call()

    def _waits_no_more(self, call: Callable[[], None]) -> None:
        with _lock, contextlib.suppress(ValueError):  # it has its result just now
            self._waiters.remove(call)

    def resolve(self, outcome: Result | HeadgateError) -> None:
        """Set what became of the event. Only the first call counts."""
        with _lock:
            if self._outcome is not None:
                return
            self._outcome = outcome
            waiters, self._waiters = self._waiters, []
        for call in waiters:
            call()

    def forget(self) -> None:
        """Tell the copy in a child process that the parent sends the event."""
        self.resolve(Forked("The event was emitted before the process forked; the parent process sends it."))


class LoopTicket(Ticket):
    """A ticket whose event is sent by an event loop, which must not wait for itself."""

    __slots__ = ()

    def _wait(self, timeout: float | None) -> None:
        if self._outcome is None and timeout != 0:
            raise RuntimeError("The event has no result yet: use `await ticket`.")
        super()._wait(timeout)
