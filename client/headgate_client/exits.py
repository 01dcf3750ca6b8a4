"""The end of the process: open queues are flushed within a bounded time, and what is left is reported.

At a normal exit, an exception and `sys.exit` this is done by `atexit`. SIGTERM, if nobody handles it, becomes
`SystemExit` in the main thread, so that blocks are left and `atexit` runs. `os._exit` and SIGKILL leave no time: only a
spool survives them.
"""

import asyncio
import atexit
import os
import signal
import sys
import threading
from types import FrameType
from typing import Protocol

TERMINATED = 128 + signal.SIGTERM
"""The exit code after SIGTERM: the one that shells show for it."""


class Closable(Protocol):
    """A queue."""

    def close_at_exit(self) -> None:
        """Flush within a bounded time, and report what is left."""


_open: dict[Closable, None] = {}
_main = threading.main_thread().ident
_depth = 0
_pending = False
_ending = False
_registered = False
_prepared = -1
"""The process whose end is noticed. A child of `multiprocessing` ends without `atexit`, and needs a finalizer."""


def register(queue: Closable) -> None:
    """Close the queue at the end of the process, if it is open then."""
    global _registered
    if not _registered:
        atexit.register(_close_all)
        _registered = True
    _open[queue] = None


def prepare() -> None:
    """Make sure that the end of this process is noticed. A queue calls it before it sends anything."""
    global _prepared
    if _prepared == os.getpid():
        return
    _prepared = os.getpid()
    _hook_multiprocessing()
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _terminate)


def unregister(queue: Closable) -> None:
    """Forget a queue that is closed."""
    _open.pop(queue, None)


def _hook_multiprocessing() -> None:
    util = sys.modules.get("multiprocessing.util")
    process = sys.modules.get("multiprocessing.process")
    if util is not None and process is not None and process.parent_process() is not None:
        util.Finalize(None, _close_all, exitpriority=100)


def enter() -> None:
    """Begin a change that must not be left half-way: a SIGTERM waits until `leave`."""
    global _depth
    if threading.get_ident() == _main:
        _depth += 1


def leave() -> None:
    """End such a change."""
    global _depth
    if threading.get_ident() == _main:
        _depth -= 1
        if _pending and not _depth:
            _end()


def after_fork_in_child() -> None:
    """The child has no queue of its parent's to close, and its main thread is the one that forked."""
    global _depth, _ending, _main, _pending
    _main = threading.main_thread().ident
    _open.clear()
    _ending = False
    _depth = 0
    _pending = False


def _terminate(number: int, frame: FrameType | None) -> None:
    global _pending
    loop = asyncio._get_running_loop()
    if loop is not None:
        # An error in the middle of an event loop's own work makes it forget a task. Between two callbacks it is safe.
        loop.call_soon_threadsafe(_end)
    elif _depth:
        _pending = True
    else:
        _end()


def _end() -> None:
    global _pending
    _pending = False
    raise SystemExit(TERMINATED)


def is_ending() -> bool:
    """Whether the process ends. Some versions of Python start no thread then."""
    return _ending


def _close_all() -> None:
    global _ending
    _ending = True
    for queue in tuple(_open):
        try:
            queue.close_at_exit()
        except Exception as error:
            print(f"headgate: a buffer could not be closed: {error!r}", file=sys.stderr)
    _open.clear()


def report(count: int) -> None:
    """Say on standard error how many events are left. Loggers may be gone by now."""
    many = f"{count} events were" if count != 1 else "1 event was"
    print(f"headgate: {many} not sent before the process ended.", file=sys.stderr)
