"""Waiting for a state that nobody announces."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

_T = TypeVar("_T")


async def until(state: Callable[[], Awaitable[_T]], *, seconds: float = 20.0) -> _T:
    """Ask again and again until the answer is true, and return it; fails after so many seconds."""
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
