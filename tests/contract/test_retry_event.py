"""The retry of one event at every destination that did not get it."""

import asyncio

import pytest

from headgate_server.core.destinations import EventFilter, Failure, Fate, Move, Report, SetAside
from headgate_server.core.model import EventQuery, Lease, Position, StoredEvent
from headgate_server.store import Store
from headgate_server.store.destinations import copy
from tests.contract.test_destinations import filled, leased
from tests.support.destinations import made

GIVEN_UP, WAITING = None, 3_600.0
"""The delay until the next attempt."""


class Field:
    """A workspace with two events, and destinations that failed to get them."""

    def __init__(self, store: Store, workspace: int, lease: Lease, places: list[Position]):
        self._store = store
        self._workspace = workspace
        self.lease = lease
        self._places = places

    async def fails(self, name: str, delay: float | None, *sequences: int) -> str:
        """Make a destination that has everything but these events, and return its id."""
        one = (await made(self._store, self._workspace, name)).destination
        rows = [SetAside(each, self._places[each].id or b"", 10, delay, 500, "no") for each in sequences]
        report = Report(self._workspace, one.id, Move(self._places[0], self._places[-1]), set_aside=rows)
        assert await self._store.deliveries.record([report], self.lease) != [None]
        return one.id

    async def event(self, sequence: int) -> StoredEvent:
        found = await self._store.ledgers.events(EventQuery(workspace_id=self._workspace, limit=10, newest_first=False))
        return found.events[sequence - 1]

    async def fate(self, sequence: int) -> Fate:
        (fate,) = await self._store.deliveries.fates(self._workspace, [await self.event(sequence)])
        return fate

    async def retry(self, sequence: int) -> int:
        return await self._store.destinations.retry_event(self._workspace, await self.event(sequence))

    async def failures(self, destination_id: str) -> list[Failure]:
        return list(await self._store.destinations.failures(self._workspace, destination_id, 10))

    async def attempts(self, destination_id: str) -> list[tuple[int, str, int]]:
        """Return sequence, state and attempts of each failure of a destination."""
        return [(one.sequence, one.state, one.attempts) for one in await self.failures(destination_id)]

    async def revision(self, destination_id: str) -> int:
        return (await self._store.destinations.get(self._workspace, destination_id)).destination.revision


@pytest.fixture
async def field(store: Store, workspace: int) -> Field:
    places = await filled(store, workspace, 2)
    return Field(store, workspace, await leased(store), places)


async def test_it_is_tried_again_wherever_it_did_not_arrive(store: Store, workspace: int, field: Field) -> None:
    failed = await field.fails("failed", GIVEN_UP, 1, 2)
    waiting = await field.fails("waiting", WAITING, 1)
    skipped = await field.fails("skipped", WAITING, 1)
    delivered = await field.fails("delivered", WAITING)
    await store.destinations.skip(workspace, skipped, 1)
    before = {name: await field.revision(name) for name in (failed, waiting, skipped, delivered)}
    assert await field.fate(1) is Fate.FAILED

    assert await field.retry(1) == 3

    assert await field.fate(1) is Fate.PENDING
    assert await field.attempts(failed) == [(1, "retrying", 0), (2, "failed", 10)]
    assert await field.attempts(waiting) == await field.attempts(skipped) == [(1, "retrying", 0)]
    for name in (failed, waiting, skipped):
        one = (await store.destinations.get(workspace, name)).destination
        assert one.cursor.sequence == 2
        assert one.revision == before[name] + 1
        due, _ = await store.deliveries.due(one, 2, 10)
        assert [each.sequence for each in due] == [1]
    assert await field.revision(delivered) == before[delivered]


async def test_an_event_that_has_not_failed_is_left_alone(store: Store, workspace: int, field: Field) -> None:
    assert await field.retry(1) == 0
    waiting = await field.fails("waiting", WAITING, 1)
    pending = (await made(store, workspace, "pending")).destination.id
    before = await field.failures(waiting)
    assert await field.fate(1) is Fate.PENDING
    assert await field.retry(1) == 0
    assert await field.retry(2) == 0
    assert await field.failures(waiting) == before
    assert [await field.revision(name) for name in (waiting, pending)] == [1, 1]


async def test_a_destination_that_the_event_is_not_meant_for_counts_for_nothing(
    store: Store, workspace: int, field: Field
) -> None:
    failed = await field.fails("failed", GIVEN_UP, 1)
    other = EventFilter(("other",))
    await store.destinations.update(workspace, failed, lambda old: copy(old, filter=other))
    assert await field.fate(1) is Fate.NONE
    assert await field.retry(1) == 0
    assert await field.attempts(failed) == [(1, "failed", 10)]
    meant = await field.fails("meant", GIVEN_UP, 1)
    assert await field.retry(1) == 1
    assert await field.attempts(failed) == [(1, "failed", 10)]
    assert await field.attempts(meant) == [(1, "retrying", 0)]


async def test_another_workspace_is_not_touched(store: Store, workspace: int, field: Field) -> None:
    theirs = (await store.directory.create_workspace("other")).id
    places = await filled(store, theirs, 2)
    other = Field(store, theirs, field.lease, places)
    failed = await other.fails("failed", GIVEN_UP, 1)
    await field.fails("failed", GIVEN_UP, 1)
    assert await field.retry(1) == 1
    assert await other.attempts(failed) == [(1, "failed", 10)]
    assert await other.revision(failed) == 1


async def test_of_several_at_once_one_retries(store: Store, workspace: int, field: Field) -> None:
    names = [await field.fails(f"d{number}", GIVEN_UP, 1) for number in range(3)]
    done = await asyncio.gather(*(field.retry(1) for _ in range(8)))
    assert sorted(done) == [0] * 7 + [3]
    assert [await field.revision(name) for name in names] == [2] * 3
