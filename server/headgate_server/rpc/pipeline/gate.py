"""The bound of requests that are received at once.

gRPC holds at most one window (64 KiB) of a request until the server reads it. Then gRPC receives the whole message. So
the server reads a request only after the caller is authenticated, and reads few at a time.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from headgate_server.core.errors import Overloaded, TooSlow


class Gate:
    """Receives at most `at_once` requests at a time, and at most `of_one` of the same caller. Requests wait in the
    order of their arrival.
    """

    def __init__(self, at_once: int, of_one: int, *, seconds: float):
        """`seconds` is the longest time for waiting and receiving together."""
        self._all = asyncio.Semaphore(at_once)
        self._of_one = of_one
        self._limit = _TimeLimit(seconds)
        self._callers: dict[int, _Caller] = {}

    async def receive(self, caller: int, request: Callable[[], Awaitable[bytes]]) -> bytes:
        """Return the request of a caller. `caller` is a number that is different for each caller.

        Raises `Overloaded` if it waits too long for its turn, and `TooSlow` if the request does not arrive in time.
        """
        # A request waits for its caller's own turn first, so that one caller does not fill the common queue.
        own = self._callers.get(caller)
        if own is None:
            own = self._callers[caller] = _Caller(self._of_one)
        own.requests += 1
        waits = True
        task = self._limit.begin()
        try:
            async with own.turn, self._all:
                waits = False
                return await request()
        except asyncio.CancelledError:
            if not self._limit.is_over(task):
                raise
            if waits:
                raise Overloaded("Too many requests arrive at once; nothing of this one was done.") from None
            raise TooSlow(f"The request did not arrive within {self._limit.seconds:g} s.") from None
        finally:
            self._limit.end(task)
            own.requests -= 1
            if not own.requests:
                del self._callers[caller]


class _TimeLimit:
    """The same limit of time for many tasks, with one timer. `asyncio.timeout` starts and stops a timer for each task,
    which takes longer than all else here.
    """

    def __init__(self, seconds: float):
        self.seconds = seconds
        self._ends: dict[asyncio.Task[Any], float] = {}
        """When each task's time is over. The first one's is over first."""
        self._over: set[asyncio.Task[Any]] = set()
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> "asyncio.Task[Any]":
        """Begin the time of the current task, and return the task."""
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None  # noqa: S101 - this is used in coroutines
        self._ends[task] = loop.time() + self.seconds
        if self._timer is None:
            self._timer = loop.call_later(self.seconds, self._check)
        return task

    def is_over(self, task: "asyncio.Task[Any]") -> bool:
        """Whether a task is cancelled only because its time is over. Then it is not cancelled any more."""
        return task in self._over and task.uncancel() == 0

    def end(self, task: "asyncio.Task[Any]") -> None:
        """End the time of a task."""
        self._ends.pop(task, None)
        self._over.discard(task)

    def _check(self) -> None:
        """Cancel the tasks whose time is over, and wait for the next one's."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        while self._ends and self._ends[first := next(iter(self._ends))] <= now:
            del self._ends[first]
            self._over.add(first)
            first.cancel()
        self._timer = None
        if self._ends:
            self._timer = loop.call_later(next(iter(self._ends.values())) - now, self._check)


class _Caller:
    """A caller that has requests: their number, and their turns."""

    __slots__ = ("requests", "turn")

    def __init__(self, at_once: int):
        self.requests = 0
        self.turn = asyncio.Semaphore(at_once)
