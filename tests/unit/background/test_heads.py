"""One query of the heads serves all watchers: only while there are any, at once after a commit, and after errors
too.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from headgate_server.background.heads import Heads, HeadsConfig
from headgate_server.background.wakeup import Wakeup
from tests.support.waiting import until
from tests.unit.background.books import Books

NEVER = HeadsConfig(shortest_poll=3600.0, longest_poll=3600.0, between=0.0)
OFTEN = HeadsConfig(shortest_poll=0.001, longest_poll=0.002, between=0.0)


@contextlib.asynccontextmanager
async def _running(books: Books, bell: Wakeup, config: HeadsConfig = NEVER) -> AsyncIterator[Heads]:
    heads = Heads(books.as_ledgers(), bell, config)
    task = asyncio.ensure_future(heads())
    try:
        yield heads
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_commit_is_seen_at_once() -> None:
    books, bell = Books(), Wakeup()
    async with _running(books, bell) as heads:
        with heads.watching(1) as watched:
            await books.looked.wait()
            books.store(1, "a")
            bell.ring()
            assert await watched.beyond(0, 20)
            assert watched.head.sequence == 1
            assert not await watched.beyond(1, 0.01)


async def test_what_another_process_stored_is_found_by_looking() -> None:
    books = Books()
    async with _running(books, Wakeup(), OFTEN) as heads:
        with heads.watching(1) as watched:
            books.store(1, "a")
            assert await watched.beyond(0, 20)


async def test_one_look_serves_all_watchers_of_all_ledgers() -> None:
    books, bell = Books(), Wakeup()
    async with _running(books, bell) as heads:
        with contextlib.ExitStack() as stack:
            watched = [stack.enter_context(heads.watching(number % 5)) for number in range(500)]
            waiting = [asyncio.create_task(each.beyond(0, 20)) for each in watched]
            await books.looked.wait()
            before = len(books.looks)
            for workspace in range(5):
                books.store(workspace, "a")
            bell.ring()
            assert all(await asyncio.gather(*waiting))
            assert len(books.looks) - before <= 2
            assert books.looks[-1] == set(range(5))


async def test_nobody_looks_while_nobody_watches() -> None:
    books, bell = Books(), Wakeup()
    async with _running(books, bell, OFTEN) as heads:
        with heads.watching(1), heads.watching(1):
            await books.looked.wait()
        with heads.watching(2):
            books.looked.clear()
            await books.looked.wait()
            assert books.looks[-1] == {2}

        async def ceased() -> bool:
            count = len(books.looks)
            await asyncio.sleep(OFTEN.longest_poll * 5)  # a look that was begun ends; none follows
            return len(books.looks) == count

        await until(ceased)


async def test_a_store_that_cannot_be_read_is_asked_again() -> None:
    books = Books()
    books.fails = True
    async with _running(books, Wakeup(), OFTEN) as heads:
        with heads.watching(1) as watched:
            books.store(1, "a")

            async def tried() -> bool:
                return len(books.looks) > 2

            await until(tried)
            books.fails = False
            assert await watched.beyond(0, 20)
