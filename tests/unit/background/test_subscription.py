"""A subscription yields stored and new events, from any start, each exactly once."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import pytest

from headgate_server.background.heads import Heads, HeadsConfig
from headgate_server.background.subscription import CaughtUp, Heartbeat, Item, Start, SubscriptionConfig, Subscriptions
from headgate_server.background.wakeup import Wakeup
from headgate_server.core import ledger
from headgate_server.core.errors import InvalidRequest, NotFound, Unavailable
from headgate_server.core.model import EventQuery
from tests.support.waiting import GUARD, until
from tests.unit.background.books import Books

SMALL = SubscriptionConfig(heartbeat=3600.0, page_events=2)
BEATING = SubscriptionConfig(heartbeat=0.0, page_events=2)


class Reader:
    """A subscription to workspace 1, and its ledger."""

    def __init__(self, books: Books, bell: Wakeup, subscriptions: Subscriptions):
        self.books = books
        self._bell = bell
        self._subscriptions = subscriptions
        self._stream: AsyncGenerator[Item, None] | None = None

    def begin(self, start: Start | None = None, **filters: Any) -> None:
        """Subscribe."""
        query = EventQuery(workspace_id=1, limit=1, **filters)
        self._stream = self._subscriptions.follow(query, start or Start())

    def also(self, start: Start | None = None) -> AsyncGenerator[Item, None]:
        """Return one more subscription."""
        return self._subscriptions.follow(EventQuery(workspace_id=1, limit=1), start or Start())

    async def asked(self, pages: int) -> None:
        """Return once so many pages were asked for."""

        async def are_asked() -> bool:
            return len(self.books.queries) >= pages

        await until(are_asked)

    async def next(self) -> Item | int:
        """Return what comes next; the sequence of an event."""
        assert self._stream is not None
        item = await asyncio.wait_for(anext(self._stream), GUARD)
        return item if isinstance(item, CaughtUp | Heartbeat) else item.sequence

    async def take(self, count: int) -> list[Item | int]:
        """Return so many."""
        return [await self.next() for _ in range(count)]

    def store(self, *types: str) -> None:
        """Store events, and ring as a commit does."""
        self.books.store(1, *types)
        self._bell.ring()


@contextlib.asynccontextmanager
async def _reading(config: SubscriptionConfig = SMALL) -> AsyncIterator[Reader]:
    books, bell = Books(), Wakeup()
    heads = Heads(books.as_ledgers(), bell, HeadsConfig(shortest_poll=3600, longest_poll=3600, between=0.0))
    task = asyncio.ensure_future(heads())
    reader = Reader(books, bell, Subscriptions(books.as_ledgers(), heads, config))
    try:
        yield reader
    finally:
        if reader._stream is not None:
            await reader._stream.aclose()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_all_that_is_stored_then_what_comes() -> None:
    async with _reading() as reader:
        reader.store(*"aaaaa")
        reader.begin(Start(after_sequence=0))
        assert await reader.take(6) == [1, 2, 3, 4, 5, CaughtUp(5)]
        reader.store("a")
        assert await reader.next() == 6
        reader.store(*"aaa")
        assert await reader.take(3) == [7, 8, 9]


async def test_without_a_start_only_what_comes() -> None:
    async with _reading() as reader:
        reader.begin()
        assert await reader.next() == CaughtUp(0)
        reader.store("a", "a")
        assert await reader.take(2) == [1, 2]
        reader.begin()
        assert await reader.next() == CaughtUp(2)
        reader.store("a")
        assert await reader.next() == 3


@pytest.mark.parametrize(
    ("start", "first"),
    [
        (Start(after_sequence=0), 1),
        (Start(after_sequence=3), 4),
        (Start(after_sequence=5), CaughtUp(5)),
        (Start(after_id=ledger.event_id(4, (4).to_bytes(8))), 5),
        (Start(created_from=2), 2),
        (Start(created_from=2, after_sequence=3), 4),
        (Start(created_from=5, after_sequence=1), 5),
    ],
)
async def test_starts(start: Start, first: Any) -> None:
    async with _reading() as reader:
        reader.store(*"aaaaa")
        reader.begin(start)
        assert await reader.next() == first


async def test_a_start_in_the_future_leaves_out_what_comes_before() -> None:
    async with _reading() as reader:
        reader.store("a")
        reader.begin(Start(created_from=4))
        assert await reader.next() == CaughtUp(1)
        reader.store("a", "a", "a")
        assert await reader.next() == 4


async def test_starts_that_the_ledger_does_not_have() -> None:
    async with _reading() as reader:
        reader.store("a")
        reader.begin(Start(after_sequence=2))
        with pytest.raises(InvalidRequest, match="ends at sequence 1"):
            await reader.next()
        reader.begin(Start(after_id=bytes(16)))
        with pytest.raises(NotFound):
            await reader.next()


async def test_filters_and_a_reader_who_is_told_how_far_it_is() -> None:
    async with _reading() as reader:
        reader.books.scan = 3
        reader.store(*"abbbbbbba")
        reader.begin(Start(after_sequence=0), type="a")
        assert await reader.take(3) == [1, 9, CaughtUp(9)]
        reader.store("b")
        reader.store("b", "a")
        assert await reader.next() == 12
        # What did not match is not looked at again.
        reader.begin(Start(after_sequence=0), type="c")
        assert await reader.next() == CaughtUp(12)
        reader.store("c")
        assert await reader.next() == 13
        after = reader.books.queries[-1].after
        assert after is not None
        assert after > reader.books.ledgers[1][11].id


async def test_heartbeats_say_how_far_the_reader_and_the_ledger_are() -> None:
    async with _reading(BEATING) as reader:
        reader.store("a", "b")
        reader.begin(Start(after_sequence=0), type="a")
        assert await reader.next() == 1
        seen = await reader.take(5)
        assert CaughtUp(2) in seen
        assert seen[-1] == Heartbeat(2, 2)


async def test_a_long_look_without_a_match_is_not_silent() -> None:
    async with _reading(BEATING) as reader:
        reader.books.scan = 1
        reader.store(*"bbbb")
        reader.begin(Start(after_sequence=0), type="a")
        assert await reader.take(3) == [Heartbeat(0, 4)] * 3


async def test_a_page_is_read_when_the_one_before_was_taken() -> None:
    async with _reading() as reader:
        reader.store(*"aaaaaaaa")
        reader.begin(Start(after_sequence=0))
        assert await reader.take(2) == [1, 2]
        assert len(reader.books.queries) == 1
        assert reader.books.queries[0].size == SMALL.page_bytes
        assert await reader.next() == 3
        assert len(reader.books.queries) == 2


async def test_a_store_that_is_away_ends_a_subscription() -> None:
    async with _reading() as reader:
        reader.store("a")
        reader.books.fails = True
        reader.begin(Start(after_sequence=0))
        with pytest.raises(Unavailable):
            await reader.next()


async def test_readers_at_one_place_share_a_page() -> None:
    async with _reading() as reader:
        streams = [reader.also() for _ in range(50)]
        assert [await anext(stream) for stream in streams] == [CaughtUp(0)] * 50
        waiting = [asyncio.ensure_future(anext(stream)) for stream in streams]
        await asyncio.sleep(0)
        reader.store("a")
        assert {event.sequence for event in await asyncio.gather(*waiting)} == {1}  # type: ignore[union-attr]
        assert len(reader.books.queries) == 1
        for stream in streams:
            await stream.aclose()


async def test_a_page_that_was_read_for_an_earlier_head_is_not_shared() -> None:
    """It lacks what came since."""
    async with _reading() as reader:
        reader.store("a")
        reader.books.open.clear()
        early, late = (reader.also(Start(after_sequence=0)) for _ in range(2))
        first = asyncio.ensure_future(anext(early))
        await reader.asked(1)
        reader.store("a")
        second = asyncio.ensure_future(anext(late))
        await reader.asked(2)
        reader.books.open.set()
        for stream, one in ((early, first), (late, second)):
            found = [await one, await anext(stream)]
            assert [event.sequence for event in found] == [1, 2]  # type: ignore[union-attr]
            await stream.aclose()


async def test_a_reader_who_leaves_takes_the_page_from_nobody() -> None:
    async with _reading() as reader:
        reader.store("a")
        reader.books.open.clear()
        leaving, staying = (reader.also(Start(after_sequence=0)) for _ in range(2))
        gone, waits = asyncio.ensure_future(anext(leaving)), asyncio.ensure_future(anext(staying))
        await reader.asked(1)
        gone.cancel()
        reader.books.open.set()
        assert (await waits).sequence == 1  # type: ignore[union-attr]
        assert len(reader.books.queries) == 1
        await staying.aclose()
