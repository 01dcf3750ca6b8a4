"""Waits for a state by polling, and holds an asynchronous context open outside an event loop."""

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from pathlib import Path
from typing import TypeVar

_T = TypeVar("_T")

GUARD = 60.0
"""Seconds. It ends a test that waits for what never comes, and is no promise of the service. A test may wait for a
process that starts or ends, so it is as long as the time that those have (up.py, service.py).
"""


async def until(state: Callable[[], Awaitable[_T]], *, seconds: float = GUARD) -> _T:
    """Poll until the answer is true, and return it. Fails after so many seconds."""
    deadline = time.monotonic() + seconds
    while not (answer := await state()):
        assert time.monotonic() < deadline, f"not within {seconds} s"
        await asyncio.sleep(0.02)
    return answer


def until_true(state: Callable[[], _T], *, seconds: float = GUARD) -> _T:
    """Do the same without an event loop."""
    deadline = time.monotonic() + seconds
    while not (answer := state()):
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.02)
    return answer


def listens(path: Path) -> bool:
    """Whether a Unix socket is there and takes connections. It is there before it does."""
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(path)) == 0


@contextmanager
def held(state: AbstractAsyncContextManager[_T]) -> Iterator[_T]:
    """Hold an asynchronous context open for the length of a block, without an event loop."""
    with asyncio.Runner() as runner:
        value = runner.run(_entered(state))
        try:
            yield value
        finally:
            runner.run(_left(state))


async def _entered(state: AbstractAsyncContextManager[_T]) -> _T:
    return await state.__aenter__()


async def _left(state: AbstractAsyncContextManager[_T]) -> None:
    await state.__aexit__(None, None, None)
