"""The spool's file for an event loop: a thread uses it, and the loop does not wait for the disk."""

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from headgate_client.core.errors import SpoolError

T = TypeVar("T")


class Disk:
    """One thread that does one piece of work after another. The loop takes the results in the same order.

    The loop itself uses the file within `with disk`. It waits for the thread then, and knows all that is on disk.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        """Held while the file is used."""
        self._thread: ThreadPoolExecutor | None = None
        self._results: deque[Callable[[], None]] = deque()

    def __enter__(self) -> None:
        self.lock.acquire()
        self.settle()

    def __exit__(self, *_: object) -> None:
        self.lock.release()

    def begin(self, work: Callable[[], T], take: Callable[[T | SpoolError], None]) -> None:
        """Do work on the thread, and call `take` with its result in the event loop that runs."""
        run = partial(self._run, work, take, asyncio.get_running_loop())
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "headgate-spool")
        try:
            self._thread.submit(run)
        except RuntimeError:
            run()  # Python ends, and starts no work on threads any more.

    def _run(
        self, work: Callable[[], T], take: Callable[[T | SpoolError], None], loop: asyncio.AbstractEventLoop
    ) -> None:
        with self.lock:
            result: T | SpoolError
            try:
                result = work()
            except SpoolError as error:
                result = error
            except Exception as error:
                result = SpoolError(f"the spool failed: {error!r}")
            self._results.append(partial(take, result))
        with contextlib.suppress(RuntimeError):  # the loop has ended; `join` takes the result
            loop.call_soon_threadsafe(self.settle)

    async def done(self, work: Callable[[], T], take: Callable[[T], None] = lambda result: None) -> None:
        """Do work on the thread, call `take` with its result, and return. Raises `SpoolError`.

        If the caller is cancelled, the work is done, and its result taken, all the same.
        """
        told: asyncio.Future[SpoolError | None] = asyncio.get_running_loop().create_future()

        def taken(result: T | SpoolError) -> None:
            error = result if isinstance(result, SpoolError) else None
            if not isinstance(result, SpoolError):
                take(result)
            tell(told, error)

        self.begin(work, taken)
        if error := await told:
            raise error

    def settle(self) -> None:
        """Take the results that are there."""
        while self._results:
            self._results.popleft()()

    def join(self) -> None:
        """Wait until all work is done, and take the results. The next work begins another thread."""
        if self._thread is not None:
            self._thread.shutdown()
            self._thread = None
        self.settle()


def tell(future: "asyncio.Future[T]", result: T) -> None:
    """Set a future that is perhaps cancelled, or of a loop that has ended."""
    with contextlib.suppress(RuntimeError):
        if not future.done():
            future.set_result(result)
