"""The engine on a real store with senders that the tests control: its bounds, its ends, and the state after a stop."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress

import pytest

from headgate_server.background.wakeup import Wakeup
from headgate_server.core.destinations import Assignment, Ordering, State, Status, Watched
from headgate_server.core.errors import LeaseLost
from headgate_server.core.model import StoredEvent
from headgate_server.delivery.attempt import Attempt, Verdict
from headgate_server.delivery.channel import ChannelConfig
from headgate_server.delivery.engine import Engine, EngineConfig
from headgate_server.process.metrics import Metrics
from headgate_server.store import Deliveries, Store
from tests.support import database
from tests.support.destinations import made
from tests.support.drafts import append, draft
from tests.support.waiting import until

DELIVERED = Attempt(Verdict.DELIVERED, 200, "", None, 0.0)
FAILED = Attempt(Verdict.FAILED, 500, "no", None, 0.0)
GONE = Attempt(Verdict.GONE, 410, "gone", None, 0.0)

Send = Callable[[int], Awaitable[Attempt]]
"""Returns the result for the event with a sequence."""


class CountedDeliveries(Deliveries):
    """Deliveries that count how often an engine looked for new events."""

    looks = 0

    async def watch(self) -> Sequence[Watched]:
        watched = await super().watch()
        self.looks += 1
        return watched

    async def watched(self, times: int = 5) -> None:
        """Wait until the engine has looked so many times again. By then its deliveries have reacted to all events."""
        before = self.looks

        async def state() -> bool:
            return self.looks >= before + times

        await until(state)


class ControlledSender:
    """A sender that returns the results of a function, and records the events that it sent."""

    def __init__(self, send: Send):
        self.result_of = send
        self.sent: list[int] = []
        self.closed = 0

    async def sender_of(self, assignment: Assignment) -> "ControlledSender":
        return self

    async def send(self, events: Sequence[StoredEvent], attempt: int) -> Attempt:
        self.sent += [event.sequence for event in events]
        return await self.result_of(events[0].sequence)

    async def close(self) -> None:
        self.closed += 1


async def delivers(sequence: int) -> Attempt:
    return DELIVERED


async def fails(sequence: int) -> Attempt:
    return FAILED


@pytest.fixture
async def workspace(store: Store) -> int:
    return (await store.directory.create_workspace("acme")).id


@asynccontextmanager
async def running(
    store: Store,
    sender: ControlledSender,
    *,
    holder: str = "one",
    grace: float = 0.2,
    deliveries: Deliveries | None = None,
    **channel: float,
) -> AsyncIterator["asyncio.Task[None]"]:
    """Run an engine under a lease during a block."""
    lease = await store.leases.take("deliver", holder, 60.0)
    assert lease is not None
    config = EngineConfig(channel=ChannelConfig(**channel), stop_grace=grace, change_grace=grace)  # type: ignore[arg-type]
    engine = Engine(
        deliveries or store.deliveries,
        store.ledgers,
        store.matching,
        sender.sender_of,
        Metrics(),
        Wakeup(),
        config=config,
    )
    task = asyncio.create_task(engine(lease))
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError, LeaseLost):
            await task
        await store.leases.release(lease)


async def filled(store: Store, workspace: int, count: int) -> None:
    await append(store, workspace, *(draft() for _ in range(count)))


async def reached(store: Store, status: Status, **expected: object) -> Status:
    """Wait until a destination has these values, and return it."""
    one = status.destination

    async def state() -> Status | None:
        found = await store.destinations.get(one.workspace_id, one.id)
        shown = {"cursor": found.destination.cursor.sequence, "set_aside": found.set_aside}
        shown |= {"state": found.destination.state, "delivered": found.destination.delivered}
        return found if expected.items() <= shown.items() else None

    found = await until(state)
    assert found is not None
    return found


async def test_at_its_bound_a_destination_waits(store: Store, workspace: int) -> None:
    sender = ControlledSender(fails)
    status = await made(store, workspace)
    await filled(store, workspace, 10)
    deliveries = CountedDeliveries(store.database)
    async with running(store, sender, deliveries=deliveries, requests=1, most_retrying=3, failures_in_row=100):
        await reached(store, status, set_aside=3, cursor=3)
        await filled(store, workspace, 1)
        await deliveries.watched()  # perhaps for so long that the three are tried again, and fail again
        assert sorted(set(sender.sent)) == [1, 2, 3]
        sender.result_of = delivers
        await store.destinations.replay_set_aside(workspace, status.destination.id)
        await reached(store, status, set_aside=0, cursor=11, delivered=11)


async def test_a_receiver_that_always_fails_gets_fewer_requests(store: Store, workspace: int) -> None:
    sender = ControlledSender(fails)
    await made(store, workspace)
    await filled(store, workspace, 200)
    deliveries = CountedDeliveries(store.database)
    async with running(store, sender, deliveries=deliveries, requests=4, failures_in_row=4, longest_pause=30.0):

        async def sent_five() -> bool:
            return len(sender.sent) >= 5

        await until(sent_five)
        await deliveries.watched()
    # Four at once, then one at a time after pauses of 0.25 s, 0.5 s …
    assert len(sender.sent) <= 10


async def test_five_days_without_a_success_disable(store: Store, store_url: str, workspace: int) -> None:
    sender = ControlledSender(fails)
    status = await made(store, workspace, ordering=Ordering.ORDERED)
    await filled(store, workspace, 2)
    async with running(store, sender):
        await reached(store, status, set_aside=1)
        five_days = 5 * 24 * 3600 * 1_000_000
        await database.execute(store_url, f"UPDATE destinations SET failing_since = failing_since - {five_days}")
        await store.destinations.retry(workspace, status.destination.id, 1)
        found = await reached(store, status, state=State.DISABLED, cursor=0)
    assert found.destination.why == "All attempts failed for 5 days."


async def test_at_the_end_of_the_schedule_an_event_has_failed(store: Store, store_url: str, workspace: int) -> None:
    sender = ControlledSender(fails)
    status = await made(store, workspace)
    await filled(store, workspace, 1)
    async with running(store, sender):
        await reached(store, status, set_aside=1, cursor=1)
        await database.execute(store_url, "UPDATE failures SET attempts = 9")
        await store.destinations.retry(workspace, status.destination.id, 1)

        async def has_failed() -> bool:
            return [one.state for one in await store.destinations.failures(workspace, status.destination.id, 9)] == [
                "failed"
            ]

        await until(has_failed)
        assert (await store.destinations.get(workspace, status.destination.id)).retry_after is None


async def test_gone_stops_at_once(store: Store, workspace: int) -> None:
    """The events of started requests are set aside. The cursor stays before the others."""

    async def answer(sequence: int) -> Attempt:
        return DELIVERED if sequence < 3 else GONE

    sender = ControlledSender(answer)
    status = await made(store, workspace)
    await filled(store, workspace, 9)
    async with running(store, sender, requests=1):
        found = await reached(store, status, state=State.DISABLED)
    assert sender.sent == [1, 2, 3]
    assert (found.destination.cursor.sequence, found.set_aside) == (3, 1)


async def test_a_stop_records_known_results_and_cancels_the_rest(store: Store, workspace: int) -> None:
    async def answer(sequence: int) -> Attempt:
        if sequence == 3:
            await asyncio.Event().wait()
        return DELIVERED

    sender = ControlledSender(answer)
    status = await made(store, workspace)
    await filled(store, workspace, 8)
    async with running(store, sender, requests=2):

        async def all_sent() -> bool:
            return len(sender.sent) == 8

        await until(all_sent)
    found = await store.destinations.get(workspace, status.destination.id)
    # The outcome of the third is unknown. It and the later ones are sent again.
    assert (found.destination.cursor.sequence, found.destination.delivered) == (2, 2)
    assert sender.closed == 1
    sender.result_of = delivers
    async with running(store, sender, holder="two"):
        await reached(store, status, cursor=8)
    assert sorted(sender.sent) == sorted([*range(1, 9), *range(3, 9)])


async def test_a_sender_that_raises_is_a_visible_failure(store: Store, workspace: int) -> None:
    async def answer(sequence: int) -> Attempt:
        if sequence == 2:
            raise KeyError("x")
        return DELIVERED

    status = await made(store, workspace)
    await filled(store, workspace, 3)
    async with running(store, ControlledSender(answer)):
        found = await reached(store, status, cursor=3, set_aside=1)
    assert "KeyError" in found.destination.last_error


async def test_an_engine_that_lost_its_lease_stops_and_records_nothing(store: Store, workspace: int) -> None:
    waiting = asyncio.Event()

    async def answer(sequence: int) -> Attempt:
        await waiting.wait()
        return DELIVERED

    sender = ControlledSender(answer)
    status = await made(store, workspace)
    await filled(store, workspace, 1)
    async with running(store, sender) as task:

        async def sent() -> bool:
            return sender.sent == [1]

        await until(sent)
        (lease,) = [await store.leases.take("deliver", "two", 60.0)]
        assert lease is None
        await store.database.write(_end_terms)
        assert await store.leases.take("deliver", "two", 60.0) is not None
        waiting.set()
        with pytest.raises(LeaseLost):
            await task
    assert (await store.destinations.get(workspace, status.destination.id)).destination.cursor.sequence == 0


async def test_a_removed_destination_ends(store: Store, workspace: int) -> None:
    sender = ControlledSender(delivers)
    status = await made(store, workspace)
    async with running(store, sender):
        await filled(store, workspace, 1)
        await reached(store, status, cursor=1)
        await store.destinations.delete(workspace, status.destination.id)

        async def closed() -> bool:
            return sender.closed == 1

        await until(closed)


async def test_an_event_that_is_not_in_the_ledger_any_more_has_failed(
    store: Store, store_url: str, workspace: int
) -> None:
    sender = ControlledSender(fails)
    status = await made(store, workspace)
    await filled(store, workspace, 1)
    async with running(store, sender):
        await reached(store, status, set_aside=1)
        await database.execute(store_url, "DELETE FROM events")
        await store.destinations.retry(workspace, status.destination.id, 1)

        async def has_failed() -> bool:
            (one,) = await store.destinations.failures(workspace, status.destination.id, 9)
            return one.state == "failed" and "not in the ledger" in one.error

        await until(has_failed)


def _end_terms(connection: object) -> None:
    from sqlalchemy import Connection, text

    assert isinstance(connection, Connection)
    connection.execute(text("UPDATE leases SET ends_at = 0"))
