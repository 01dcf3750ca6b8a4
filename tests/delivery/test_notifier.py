"""Which deliveries are woken for new events: those with a matching event, and no others."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from headgate_server.background.wakeup import Wakeup
from headgate_server.core.destinations import NOW, Assignment, EventFilter, Ordering, Watched
from headgate_server.core.errors import Unavailable
from headgate_server.core.model import Position, StoredEvent
from headgate_server.core.types import WorkspaceId
from headgate_server.delivery import pages as pages_module
from headgate_server.delivery.attempt import Attempt, Verdict
from headgate_server.delivery.channel import ChannelConfig
from headgate_server.delivery.engine import Engine, EngineConfig
from headgate_server.delivery.notifier import Notifier
from headgate_server.delivery.pages import Page, Pages
from headgate_server.process.metrics import Metrics
from headgate_server.store import Deliveries, Matching, Store
from headgate_server.store.matching import Window
from headgate_server.store.opening import open_store
from tests.support.destinations import made
from tests.support.drafts import append, draft
from tests.support.waiting import until

NEVER = EventFilter(("never.*",))


@dataclass
class Recorded:
    """A delivery that waits at a place until its ledger's head, and records what happens to it."""

    filter: EventFilter
    place: Position = field(default_factory=Position)
    head: int = 0
    busy: bool = False
    woken: int = 0

    @property
    def waits_at(self) -> Position | None:
        return self.place if not self.busy and self.place.sequence < self.head else None

    def skips(self, window: Window) -> bool:
        if window.has(self.filter):
            return False
        self.place = window.end
        return True

    def wake(self) -> None:
        self.woken += 1
        self.busy = True


class CountedMatching(Matching):
    """Counts the reads of a ledger, and fails if it is told to."""

    windows = 0
    pages = 0
    error: Exception | None = None

    async def window(self, workspace_id: WorkspaceId, after: Position, limit: int) -> Window:
        self.windows += 1
        if self.error is not None:
            raise self.error
        return await super().window(workspace_id, after, limit)

    async def page(self, *query: object) -> Sequence[StoredEvent]:
        self.pages += 1
        return await super().page(*query)  # type: ignore[arg-type]


@pytest.fixture
async def workspace(store: Store) -> WorkspaceId:
    return (await store.directory.create_workspace("acme")).id


@pytest.fixture
def matching(store: Store) -> CountedMatching:
    return CountedMatching(store.database)


@pytest.fixture
def notifier(matching: CountedMatching, workspace: WorkspaceId) -> Notifier:
    return Notifier(workspace, Pages(matching))


async def told(notifier: Notifier, waiters: Sequence[Recorded], head: int) -> None:
    """Tell deliveries that their ledger has grown, and return when nothing happens any more."""
    for one in waiters:
        one.head = head
    notifier.tell(waiters)

    async def settled() -> bool:
        return all(one.woken or one.place.sequence >= head for one in waiters)

    await until(settled)


async def test_one_read_moves_all_that_match_nothing(
    store: Store, workspace: WorkspaceId, notifier: Notifier, matching: CountedMatching
) -> None:
    await append(store, workspace, *(draft(type="order.paid") for _ in range(3)))
    waiters = [Recorded(EventFilter((f"never.{number}",))) for number in range(10)]
    paid, everywhere = Recorded(EventFilter(("order.*",))), Recorded(EventFilter((), ("test",)))
    await told(notifier, [*waiters, paid, everywhere], 3)
    assert (matching.windows, matching.pages) == (1, 0)
    assert [(one.woken, one.place.sequence) for one in waiters] == [(0, 3)] * 10
    assert [(one.woken, one.place.sequence) for one in (paid, everywhere)] == [(1, 0)] * 2


async def test_a_busy_delivery_is_woken_and_not_moved(
    store: Store, workspace: WorkspaceId, notifier: Notifier, matching: CountedMatching
) -> None:
    await append(store, workspace, draft())
    busy = Recorded(NEVER, busy=True)
    await told(notifier, [busy], 1)
    assert (busy.woken, busy.place, matching.windows) == (1, Position(), 0)


async def test_deliveries_at_other_places_move_on_through_all_windows(
    store: Store, workspace: WorkspaceId, notifier: Notifier, matching: CountedMatching, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages_module, "WINDOW_EVENTS", 2)
    outcomes = await append(store, workspace, *(draft(type="a" if number < 7 else "b") for number in range(9)))
    links = [outcome.link for outcome in outcomes if outcome.link is not None]
    ahead, late = (Position(links[index].sequence, links[index].id) for index in (2, 7))
    waiters = [Recorded(NEVER), Recorded(NEVER, ahead), Recorded(NEVER, late), Recorded(EventFilter(("b",)))]
    await told(notifier, waiters, 9)
    assert [one.woken for one in waiters] == [0, 0, 0, 1]
    assert [one.place.sequence for one in waiters] == [9, 9, 9, 6]
    assert matching.windows == 5


async def test_events_that_are_not_visible_yet_wake(notifier: Notifier) -> None:
    waiter = Recorded(NEVER)
    await told(notifier, [waiter], 1)
    assert (waiter.woken, waiter.place) == (1, Position())


@pytest.mark.parametrize("error", [Unavailable("The store is gone."), ValueError("a bug")])
async def test_an_error_wakes_all_and_the_next_events_are_told(
    store: Store, workspace: WorkspaceId, notifier: Notifier, matching: CountedMatching, error: Exception
) -> None:
    await append(store, workspace, draft(), draft())
    matching.error = error
    failed = [Recorded(NEVER), Recorded(NEVER)]
    await told(notifier, failed, 2)
    assert [one.woken for one in failed] == [1, 1]
    matching.error = None
    moved = Recorded(NEVER)
    await told(notifier, [moved], 2)
    assert (moved.woken, moved.place.sequence) == (0, 2)


class Sent:
    """A sender that records the sequences which each destination got."""

    def __init__(self) -> None:
        self.by_id: dict[str, list[int]] = {}

    async def sender_of(self, assignment: Assignment) -> "_SentTo":
        return _SentTo(self.by_id.setdefault(assignment.destination.id, []))


class _SentTo:
    def __init__(self, sequences: list[int]):
        self._sequences = sequences

    async def send(self, events: Sequence[StoredEvent], attempt: int) -> Attempt:
        self._sequences += [event.sequence for event in events]
        return Attempt(Verdict.DELIVERED, 200, "", None, 0.0)

    async def close(self) -> None:
        pass


class CountedDeliveries(Deliveries):
    """Counts the looks of an engine."""

    looks = 0

    async def watch(self) -> Sequence[Watched]:
        self.looks += 1
        return await super().watch()


@dataclass
class Running:
    """An engine, with what it reads and sends."""

    sent: Sent
    matching: CountedMatching
    deliveries: CountedDeliveries
    config: EngineConfig
    task: "asyncio.Task[None] | None" = None


@pytest.fixture
async def running(store: Store, matching: CountedMatching) -> AsyncIterator[Running]:
    """An engine that a test starts with `start`."""
    one = Running(Sent(), matching, CountedDeliveries(store.database), EngineConfig())
    yield one
    await ended(one)


async def start(store: Store, running: Running) -> None:
    lease = await store.leases.take("deliver", "me", 60.0)
    assert lease is not None
    engine = Engine(
        running.deliveries,
        store.ledgers,
        running.matching,
        running.sent.sender_of,
        Metrics(),
        Wakeup(),
        config=running.config,
    )
    running.task = asyncio.create_task(engine(lease))


async def ended(running: Running) -> None:
    """End an engine."""
    if running.task is not None:
        running.task.cancel()
        await asyncio.gather(running.task, return_exceptions=True)


async def looked(running: Running, until_started: int = 0) -> None:
    """Wait until so many deliveries have started, and the engine has looked three times more. By then its deliveries
    have reacted to all events.
    """

    async def started() -> bool:
        return len(running.sent.by_id) >= until_started

    await until(started)
    before = running.deliveries.looks

    async def state() -> bool:
        return running.deliveries.looks >= before + 3

    await until(state)


async def cursors_at(store: Store, workspace: WorkspaceId, sequence: int) -> None:
    """Wait until the stored cursors of all destinations are at a sequence."""

    async def state() -> bool:
        return {one.destination.cursor.sequence for one in await store.destinations.list(workspace, 50)} == {sequence}

    await until(state)


async def test_idle_destinations_move_without_being_woken(
    store: Store, workspace: WorkspaceId, running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = 0
    look_for_events = Pages.next

    async def counted(self: Pages, *query: Any) -> Page:
        nonlocal reads
        reads += 1
        return await look_for_events(self, *query)

    monkeypatch.setattr(Pages, "next", counted)
    for number in range(10):
        await made(store, workspace, f"idle {number}", filter=EventFilter((f"never.{number}",)), start=NOW)
    running.config = EngineConfig(channel=ChannelConfig(skip_seconds=1e9))
    await start(store, running)
    await looked(running, until_started=10)
    for _ in range(5):
        await append(store, workspace, draft(), draft())
        await looked(running)
    assert reads == 0
    assert running.matching.windows >= 1
    assert running.matching.pages == 0
    await ended(running)
    # At its end a delivery stores its place.
    await cursors_at(store, workspace, 10)
    assert not any(running.sent.by_id.values())


async def test_no_matching_event_is_missed_and_no_other_is_sent(
    store: Store, store_url: str, workspace: WorkspaceId, running: Running
) -> None:
    """Two processes' writers, and destinations that match all, some and none of the events, in both orderings."""
    chance = random.Random(7)
    types = ("order.paid", "order.sent", "user.made", "rare")
    filters = [EventFilter(), NEVER, *(EventFilter((name,)) for name in types), EventFilter(("order.*",))]
    made_ids = {}
    for number, wanted in enumerate(filters * 2):
        ordering = Ordering.ORDERED if number >= len(filters) else Ordering.PARALLEL
        status = await made(store, workspace, f"d{number}", filter=wanted, ordering=ordering)
        made_ids[status.destination.id] = wanted
    running.config = EngineConfig(busy_events=3, busy_spacing=0.02, channel=ChannelConfig(skip_seconds=0.1))
    await start(store, running)
    other = await open_store(store_url)
    stored: dict[int, str] = {}
    try:
        for _ in range(40):
            names = chance.choices(types, (50, 50, 20, 1), k=chance.randint(1, 6))
            writer = chance.choice((store, other))
            for name, outcome in zip(
                names, await append(writer, workspace, *(draft(type=name) for name in names)), strict=True
            ):
                assert outcome.link is not None
                stored[outcome.link.sequence] = name
            await asyncio.sleep(chance.choice((0, 0, 0.005, 0.03)))
        await cursors_at(store, workspace, len(stored))
    finally:
        await other.close()
    for name, wanted in made_ids.items():
        expected = [sequence for sequence in sorted(stored) if wanted.matches("native", stored[sequence], "test")]
        assert sorted(running.sent.by_id[name]) == expected


async def test_looks_are_rarer_while_nothing_matches(store: Store, workspace: WorkspaceId, running: Running) -> None:
    await made(store, workspace, "idle", filter=NEVER, start=NOW)
    running.config = EngineConfig(
        busy_events=2, busy_spacing=600.0, idle_spacing=0.0, channel=ChannelConfig(skip_seconds=0.001)
    )
    await start(store, running)
    for number in range(1, 4):
        await append(store, workspace, draft(), draft())
        await cursors_at(store, workspace, 2 * number)


async def test_looks_are_not_rarer_while_events_match(store: Store, workspace: WorkspaceId, running: Running) -> None:
    await made(store, workspace, "all", start=NOW)
    running.config = EngineConfig(busy_events=2, busy_spacing=0.0, idle_spacing=600.0)
    await start(store, running)
    for number in range(1, 4):
        await append(store, workspace, draft(), draft())
        await cursors_at(store, workspace, 2 * number)
