"""A follower reads every ledger in order, moves its cursor after the work, and lets no ledger delay another."""

import asyncio
from collections.abc import Collection, Sequence
from typing import NamedTuple

import pytest

from headgate_server.background.follower import Following, FollowingConfig
from headgate_server.background.supervisor import BackOff
from headgate_server.background.wakeup import Wakeup
from headgate_server.core.errors import LeaseLost
from headgate_server.core.model import EventPage, EventQuery, Lagging, Lease, Position, StoredEvent
from tests.support.waiting import until

LEASE = Lease("test", "one", 1)
AT_ONCE = BackOff(first_pause=0.0, longest_pause=0.0)
NEVER = BackOff(first_pause=3600.0, longest_pause=3600.0)


class Event(NamedTuple):
    """The fields of an event that a follower reads."""

    sequence: int
    id: bytes


class Books:
    """Ledgers and cursors in memory."""

    def __init__(self) -> None:
        self.ledgers: dict[int, list[Event]] = {}
        self.cursors: dict[int, Position] = {}
        self.looks = 0
        self.overtaken = False

    def store(self, workspace_id: int, count: int = 1) -> None:
        ledger = self.ledgers.setdefault(workspace_id, [])
        for sequence in range(len(ledger) + 1, len(ledger) + 1 + count):
            ledger.append(Event(sequence, sequence.to_bytes(16)))

    async def events(self, query: EventQuery) -> EventPage:
        start = 0 if query.after is None else int.from_bytes(query.after)
        events = self.ledgers[query.workspace_id][start : start + query.limit]
        return EventPage(events, None)  # type: ignore[arg-type]

    async def lagging(self, follower: str, limit: int, *, without: Collection[int] = ()) -> Sequence[Lagging]:
        self.looks += 1
        found = [
            Lagging(workspace, self.cursors.get(workspace, Position()), len(ledger))
            for workspace, ledger in self.ledgers.items()
            if workspace not in without and len(ledger) > self.cursors.get(workspace, Position()).sequence
        ]
        return found[:limit]

    async def move(self, follower: str, workspace_id: int, old: Position, new: Position, lease: Lease) -> None:
        if self.overtaken or self.cursors.get(workspace_id, Position()) != old:
            raise LeaseLost("overtaken")
        self.cursors[workspace_id] = new


class Notes:
    """A follower that records the events that it gets, and fails for some workspaces."""

    name = "notes"

    def __init__(self) -> None:
        self.seen: dict[int, list[int]] = {}
        self.failing: set[int] = set()
        self.attempts = 0

    async def process(self, workspace_id: int, events: Sequence[StoredEvent], lease: Lease) -> None:
        self.attempts += 1
        if workspace_id in self.failing:
            raise OSError("no")
        self.seen.setdefault(workspace_id, []).extend(event.sequence for event in events)


def following(
    books: Books, notes: Notes, wakeup: Wakeup, *, back_off: BackOff = AT_ONCE, config: FollowingConfig | None = None
) -> asyncio.Task[None]:
    work = Following(notes, books, books, wakeup, config=config, back_off=back_off)
    return asyncio.create_task(work(LEASE))


async def ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_every_event_of_every_ledger_is_processed_once_and_in_order() -> None:
    books, notes = Books(), Notes()
    books.store(1, 7)
    books.store(2, 3)
    task = following(books, notes, Wakeup(), config=FollowingConfig(page_events=2))

    async def caught_up() -> bool:
        return {workspace: position.sequence for workspace, position in books.cursors.items()} == {1: 7, 2: 3}

    await until(caught_up)
    books.store(2, 2)

    async def went_on() -> bool:
        return books.cursors[2].sequence == 5

    await until(went_on)
    assert notes.seen == {1: [1, 2, 3, 4, 5, 6, 7], 2: [1, 2, 3, 4, 5]}
    await ended(task)


async def test_a_commit_wakes_a_follower_that_would_look_much_later() -> None:
    books, notes, wakeup = Books(), Notes(), Wakeup()
    rarely = FollowingConfig(shortest_poll=3600.0, longest_poll=3600.0)
    task = following(books, notes, wakeup, config=rarely)

    async def looked() -> bool:
        return books.looks == 1

    await until(looked)
    books.store(1)
    wakeup.ring()

    async def processed() -> bool:
        return notes.seen == {1: [1]}

    await until(processed)
    await ended(task)


async def test_a_ledger_whose_processing_fails_holds_up_no_other_even_where_one_look_returns_one_ledger() -> None:
    books, notes = Books(), Notes()
    notes.failing = {1}
    books.store(1, 2)
    books.store(2, 2)
    task = following(books, notes, Wakeup(), back_off=NEVER, config=FollowingConfig(ledgers=1))

    async def processed() -> bool:
        return notes.seen == {2: [1, 2]}

    await until(processed)
    assert 1 not in books.cursors
    assert notes.attempts == 2
    await ended(task)


async def test_what_failed_is_processed_again_and_then_goes_on() -> None:
    books, notes = Books(), Notes()
    notes.failing = {1}
    books.store(1, 2)
    task = following(books, notes, Wakeup())

    async def tried() -> bool:
        return notes.attempts >= 3

    await until(tried)
    notes.failing = set()

    async def processed() -> bool:
        return books.cursors.get(1, Position()).sequence == 2

    await until(processed)
    assert notes.seen == {1: [1, 2]}
    await ended(task)


async def test_a_follower_that_was_overtaken_stops() -> None:
    books, notes = Books(), Notes()
    books.store(1)
    books.overtaken = True
    with pytest.raises(LeaseLost):
        await asyncio.wait_for(following(books, notes, Wakeup()), 5)
    assert not books.cursors


async def test_a_bell_that_was_rung_before_is_heard_once() -> None:
    wakeup = Wakeup()
    wakeup.ring()
    wakeup.ring()
    assert await wakeup.wait(5)
    assert not await wakeup.wait(0.01)
