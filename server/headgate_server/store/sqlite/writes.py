"""The thread that writes: one piece of work after the other, each in a turn of this process (`turns`).

The wait for a turn has no time limit of its own. If a turn does not come within `PATIENCE`, its holder is frozen, or
writes for very long. Then the waiting thread is left behind, and another thread writes without turns, which is correct
but not fair: SQLite's lock decides. When the turn comes at last, the old thread passes it on, and turns are taken
again.
"""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, NamedTuple, TypeVar

from headgate_server.store.sqlite.turns import Turns

T = TypeVar("T")

PATIENCE = 2.0
"""Seconds to wait for a turn. A group takes less than a tenth of a second, so this is the time of many turns. A call
must be answered within 20 seconds, also if it then waits for SQLite's lock.
"""

_TURN_SECONDS = 0.02
"""Work that waits already is done in the same turn for so long. A lone small transaction would cost a whole round."""


class _Job(NamedTuple):
    """Work to do, and the future of its result on a loop."""

    work: Callable[[], Any]
    result: "asyncio.Future[Any]"
    loop: asyncio.AbstractEventLoop

    def do(self) -> None:
        """Do the work and pass the result on, unless nobody waits for it any more."""
        if self.result.cancelled():
            return
        try:
            done, error = self.work(), None
        except BaseException as raised:
            done, error = None, raised
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self.loop.call_soon_threadsafe(self._tell, done, error)

    def _tell(self, done: Any, error: BaseException | None) -> None:
        if self.result.done():
            return  # its caller was cancelled
        if error is None:
            self.result.set_result(done)
        else:
            self.result.set_exception(error)


class _Waiting(NamedTuple):
    """A thread that waits for a turn to do a job, since a time of `time.monotonic`."""

    thread: threading.Thread
    job: _Job
    since: float


class Writes:
    """Does work in the writing thread. It is used on one event loop."""

    def __init__(self, turns: Turns):
        self._turns = turns
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._lock = threading.Lock()
        """Held to read and to change the three attributes that follow."""
        self._waiting: _Waiting | None = None
        self._left: threading.Thread | None = None
        """The thread that was left behind, while it still waits."""
        self._closed = False
        self._thread = self._started(None)

    async def run(self, work: Callable[[], T]) -> T:
        """Return the result of `work`, which runs in the writing thread. Raises what it raises."""
        loop = asyncio.get_running_loop()
        job = _Job(work, loop.create_future(), loop)
        self._jobs.put(job)
        watch = loop.call_later(PATIENCE, self._watch, job)
        try:
            result: T = await job.result
            return result
        finally:
            watch.cancel()

    def close(self) -> None:
        """Do all work that waits, and return when it is done. Blocks."""
        self._jobs.put(None)
        while self._thread.is_alive():
            # A thread that is left behind is replaced by another one, so look again. The callers of the work may be
            # gone, and with them the timers that look.
            self._thread.join(0.05)
            self._pass()
        with self._lock:
            if self._left is None and not self._closed:
                self._turns.close()
            self._closed = True

    def _started(self, job: _Job | None) -> threading.Thread:
        # A daemon: a thread that waits for a frozen process must not keep this one from ending.
        thread = threading.Thread(target=self._work, args=(job,), name="headgate-sqlite-write", daemon=True)
        thread.start()
        return thread

    def _watch(self, job: _Job) -> None:
        """While a job is not done, look whether its turn has been waited for too long."""
        if not job.result.done():
            job.loop.call_later(max(self._pass(), 0.1), self._watch, job)

    def _pass(self) -> float:
        """If the turn has been waited for too long, go on without it. Return in how many seconds to look again."""
        with self._lock:
            if self._waiting is None:
                return PATIENCE
            left = self._waiting.since + PATIENCE - time.monotonic()
            if left > 0:
                return left
            self._left, first = self._waiting.thread, self._waiting.job
            self._waiting = None
            self._thread = self._started(first)
            return PATIENCE

    def _work(self, job: _Job | None) -> None:
        """Do jobs until the store is closed, or until this thread is left behind."""
        job = job or self._jobs.get()
        while job is not None:
            turn = self._turn(job)
            if turn is None:
                return
            until = time.monotonic() + _TURN_SECONDS
            try:
                job.do()
                while turn and not self._jobs.empty() and time.monotonic() < until:
                    job = self._jobs.get()
                    if job is None:
                        return
                    job.do()
            finally:
                if turn:
                    self._end()
            del job  # or the last job's memory is kept while the thread waits for the next one
            job = self._jobs.get()

    def _turn(self, job: _Job) -> bool | None:
        """Wait for a turn to do a job. Return True if it came, False if another thread still waits for it, so that this
        one must write without it, and None if this thread was left behind meanwhile.
        """
        with self._lock:
            if self._left is not None:
                return False
            with contextlib.suppress(OSError):
                if self._turns.try_take():
                    return True
            self._waiting = _Waiting(threading.current_thread(), job, time.monotonic())
        taken = self._taken()
        with self._lock:
            if self._waiting is not None and self._waiting.job is job:
                self._waiting = None
                return taken
            self._left = None
            if taken:
                self._end()
            if self._closed:
                self._turns.close()
            return None

    def _taken(self) -> bool:
        """Wait for the turn. Return False if the operating system has no locks left (ENOLCK): without a turn the write
        is correct too, and the thread must not end.
        """
        try:
            self._turns.take()
        except OSError:
            return False
        return True

    def _end(self) -> None:
        """End the turn. If the operating system fails, the next turn of this process ends it."""
        with contextlib.suppress(OSError):
            self._turns.end()
