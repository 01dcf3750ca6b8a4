"""From threads to event loops."""

import asyncio
import contextlib


def wake(loop: asyncio.AbstractEventLoop, future: "asyncio.Future[None]") -> None:
    """Set a future of an event loop, from any thread."""
    with contextlib.suppress(RuntimeError):  # the loop has ended, and nobody waits any more
        loop.call_soon_threadsafe(_set, future)


def _set(future: "asyncio.Future[None]") -> None:
    """Set a future that is perhaps cancelled."""
    if not future.done():
        future.set_result(None)
