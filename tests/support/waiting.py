"""Waits for a state by polling, and holds an asynchronous context open outside an event loop."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import TypeVar

_T = TypeVar("_T")


async def until(state: Callable[[], Awaitable[_T]], *, seconds: float = 20.0) -> _T:
    """Poll until the answer is true, and return it. Fails after so many seconds."""
    deadline = time.monotonic() + seconds
    while not (answer := await state()):
        assert time.monotonic() < deadline, f"not within {seconds} s"
        await asyncio.sleep(0.02)
    return answer


def until_true(state: Callable[[], _T], *, seconds: float = 20.0) -> _T:
    """Do the same without an event loop."""
    deadline = time.monotonic() + seconds
    while not (answer := state()):
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.02)
    return answer


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
