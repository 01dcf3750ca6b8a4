"""Large bodies are read few bytes at a time, in order, and a caller that gives up frees its room."""

import asyncio
import itertools
import threading

import pytest

from headgate_server.core.jsonbody import INLINE_BYTES
from headgate_server.ingest.decoding import Decoding
from tests.support.waiting import until

LARGE = INLINE_BYTES + 1


class Body:
    """A body whose reading ends when the test says so."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.end = threading.Event()

    def read(self) -> str:
        """Read it."""
        self.begun.set()
        assert self.end.wait(20)
        return "read"

    async def is_begun(self) -> bool:
        """Whether it is being read."""
        return self.begun.is_set()


async def test_a_small_body_is_read_at_once_whatever_waits() -> None:
    decoded = Decoding(LARGE)
    large = Body()
    task = asyncio.create_task(decoded(LARGE, large.read))
    await until(large.is_begun)
    assert await decoded(INLINE_BYTES, lambda: 1) == 1
    large.end.set()
    assert await task == "read"


async def test_so_many_bytes_at_once_and_in_order() -> None:
    decoded = Decoding(2 * LARGE)
    bodies = [Body() for _ in range(4)]
    sizes = [LARGE, 2 * LARGE, LARGE, 9 * LARGE]
    tasks = [asyncio.create_task(decoded(size, body.read)) for size, body in zip(sizes, bodies, strict=True)]
    await until(bodies[0].is_begun)
    for body, follower in itertools.pairwise(bodies):
        assert not follower.begun.is_set()  # the third would fit beside the first, and waits for its turn
        body.end.set()
        await until(follower.is_begun)
    bodies[-1].end.set()  # this body has more bytes than are read at once, so it is read alone
    assert await asyncio.gather(*tasks) == ["read"] * 4


async def test_who_gives_up_leaves_the_queue_and_its_thread_still_counts() -> None:
    decoded = Decoding(LARGE)
    first, second, third = Body(), Body(), Body()
    tasks = [asyncio.create_task(decoded(LARGE, body.read)) for body in (first, second, third)]
    await until(first.is_begun)
    for task in tasks[:2]:
        task.cancel()
    await asyncio.gather(*tasks[:2], return_exceptions=True)
    assert not third.begun.is_set()
    first.end.set()
    third.end.set()
    assert await tasks[2] == "read"
    assert not second.begun.is_set()


async def test_an_error_is_the_callers_and_makes_room() -> None:
    def failing() -> None:
        raise ValueError("no")

    decoded = Decoding(LARGE)
    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            await decoded(LARGE, failing)
