"""Reports are recorded completely or not at all: only under the lease, and only at the cursor that was read."""

import pytest

from headgate_server.core.destinations import EventFilter, Fate, Move, Report, SetAside, State
from headgate_server.core.errors import LeaseLost
from headgate_server.core.model import EventQuery, Position
from headgate_server.store import Store, deliveries
from tests.contract.test_destinations import filled, leased
from tests.support.destinations import SECRET, made
from tests.support.drafts import append, draft


def failed(place: Position, attempts: int = 1, delay: float | None = 60.0) -> SetAside:
    """Return a failed attempt to deliver the event at this position."""
    assert place.id is not None
    return SetAside(place.sequence, place.id, attempts, delay, 500, "Internal Server Error")


async def test_only_active_destinations_are_watched(store: Store, workspace: int) -> None:
    one = (await made(store, workspace)).destination
    two = (await made(store, workspace, "two")).destination
    await filled(store, workspace, 2)
    await store.destinations.set_state(workspace, two.id, State.PAUSED)
    assert list(await store.deliveries.watch()) == [(workspace, one.id, 1, 0, 2)]
    assert await store.deliveries.assignment(workspace, two.id) is None
    assert await store.deliveries.assignment(workspace, "dst_none") is None
    assignment = await store.deliveries.assignment(workspace, one.id)
    assert assignment is not None
    assert (assignment.destination, assignment.secrets.current) == (one, SECRET)


async def test_a_success_moves_the_cursor_and_writes_no_row(store: Store, workspace: int) -> None:
    places = await filled(store, workspace, 3)
    lease = await leased(store)
    one = (await made(store, workspace)).destination
    report = Report(workspace, one.id, Move(places[0], places[2]), delivered=2)
    assert await store.deliveries.record([report], lease) == [0.0]
    status = await store.destinations.get(workspace, one.id)
    assert (status.destination.cursor, status.destination.delivered) == (places[2], 2)
    assert (status.lag_events, status.set_aside) == (1, 0)
    assert list(await store.destinations.failures(workspace, one.id, 10)) == []


async def test_events_that_are_set_aside_are_counted_up_to_a_bound(
    store: Store, workspace: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = await filled(store, workspace, 5)
    lease = await leased(store)
    one, other, calm = [(await made(store, workspace, name)).destination.id for name in ("one", "other", "calm")]
    for name, count in ((one, 4), (other, 2)):
        aside = [failed(place, delay=None if place is places[1] else 60.0) for place in places[1 : count + 1]]
        await store.deliveries.record([Report(workspace, name, Move(places[0], places[5]), set_aside=aside)], lease)
    await store.destinations.skip(workspace, other, places[2].sequence)
    assert {name: lag[2] for name, lag in (await store.deliveries.lags()).items()} == {one: 4, other: 1, calm: 0}
    monkeypatch.setattr(deliveries, "MOST_COUNTED", 3)
    assert {name: lag[2] for name, lag in (await store.deliveries.lags()).items()} == {one: 3, other: 1, calm: 0}


async def test_a_cursor_moves_only_from_the_position_that_was_read(store: Store, workspace: int) -> None:
    places = await filled(store, workspace, 3)
    lease = await leased(store)
    one = (await made(store, workspace)).destination
    two = (await made(store, workspace, "two")).destination
    reports = [
        Report(workspace, two.id, Move(places[0], places[1]), delivered=1),
        Report(workspace, one.id, Move(places[1], places[3]), set_aside=[failed(places[3])], delivered=2),
        Report(workspace, "dst_gone", Move(places[0], places[1]), delivered=1),
    ]
    assert await store.deliveries.record(reports, lease) == [0.0, None, None]
    untouched = await store.destinations.get(workspace, one.id)
    assert (untouched.destination.cursor, untouched.set_aside, untouched.destination.delivered) == (places[0], 0, 0)
    assert (await store.destinations.get(workspace, two.id)).destination.cursor == places[1]


async def test_a_holder_that_lost_its_lease_records_nothing(store: Store, workspace: int) -> None:
    places = await filled(store, workspace, 1)
    old = await leased(store)
    one = (await made(store, workspace)).destination
    await store.leases.release(old)
    new = await store.leases.take("deliver", "two", 60.0)
    assert new is not None
    report = Report(workspace, one.id, Move(places[0], places[1]), set_aside=[failed(places[1])])
    with pytest.raises(LeaseLost):
        await store.deliveries.record([report], old)
    status = await store.destinations.get(workspace, one.id)
    assert (status.destination.cursor, status.set_aside) == (Position(), 0)
    assert await store.deliveries.record([report], new) != [None]


async def test_a_failure_has_one_row_and_a_delivery_removes_it(store: Store, workspace: int) -> None:
    places = await filled(store, workspace, 2)
    lease = await leased(store)
    one = (await made(store, workspace)).destination
    first = Report(workspace, one.id, set_aside=[failed(places[1])], failed_attempts=1, error="a")
    assert await store.deliveries.record([first], lease) == [0.0]
    since = (await store.destinations.get(workspace, one.id)).destination.failing_since
    again = Report(workspace, one.id, set_aside=[failed(places[1], 2, None)], failed_attempts=1, error="b")
    (failing,) = await store.deliveries.record([again], lease)
    assert failing is not None
    assert failing > 0
    (row,) = await store.destinations.failures(workspace, one.id, 10)
    assert (row.attempts, row.state, row.next_attempt_at) == (2, "failed", None)
    assert row.first_failed_at == since
    assert (await store.destinations.get(workspace, one.id)).destination.failing_since == since
    settled = Report(workspace, one.id, settled=[1], delivered=1)
    assert await store.deliveries.record([settled], lease) == [0.0]
    status = await store.destinations.get(workspace, one.id)
    assert (status.set_aside, status.destination.failing_since) == (0, None)
    assert (status.destination.delivered, status.destination.failed_attempts) == (1, 2)
    assert status.destination.cursor == Position()


async def test_an_event_that_the_operator_skipped_meanwhile_stays_skipped(store: Store, workspace: int) -> None:
    places = await filled(store, workspace, 1)
    lease = await leased(store)
    one = (await made(store, workspace)).destination
    await store.deliveries.record([Report(workspace, one.id, set_aside=[failed(places[1])])], lease)
    await store.destinations.skip(workspace, one.id, 1)
    await store.deliveries.record([Report(workspace, one.id, set_aside=[failed(places[1], 2)])], lease)
    assert [row.state for row in await store.destinations.failures(workspace, one.id, 10)] == ["skipped"]
    assignment = await store.deliveries.assignment(workspace, one.id)
    assert assignment is not None
    assert [(row.sequence, row.state) for row in assignment.ahead] == [(1, "skipped")]


async def test_a_replay_does_not_move_the_cursor_and_ends(store: Store, workspace: int) -> None:
    places = await filled(store, workspace, 4)
    lease = await leased(store)
    one = (await made(store, workspace, start=5)).destination
    await store.destinations.replay(workspace, one.id, after=1)
    part = Report(workspace, one.id, Move(places[1], places[3], of_replay=True), delivered=2)
    assert await store.deliveries.record([part, part], lease) == [0.0, None]
    destination = (await store.destinations.get(workspace, one.id)).destination
    assert (destination.replay, destination.cursor) == ((places[3], 4), places[4])
    rest = Report(workspace, one.id, Move(places[3], places[4], of_replay=True), delivered=1)
    assert await store.deliveries.record([rest], lease) == [0.0]
    destination = (await store.destinations.get(workspace, one.id)).destination
    assert (destination.replay, destination.cursor) == (None, places[4])


async def test_a_disabled_destination_keeps_its_cursor_and_can_be_resumed(store: Store, workspace: int) -> None:
    places = await filled(store, workspace, 2)
    lease = await leased(store)
    one = (await made(store, workspace)).destination
    gone = Report(workspace, one.id, set_aside=[failed(places[1])], error="gone", disable="It is gone.")
    await store.deliveries.record([gone], lease)
    destination = (await store.destinations.get(workspace, one.id)).destination
    assert (destination.state, destination.why, destination.cursor) == (State.DISABLED, "It is gone.", Position())
    assert list(await store.deliveries.watch()) == []
    resumed = (await store.destinations.set_state(workspace, one.id, State.ACTIVE)).destination
    assert (resumed.state, resumed.why, resumed.failing_since) == (State.ACTIVE, "", None)
    # Set-aside events are tried again at once.
    assert [row.sequence for row in (await store.deliveries.due(one, 2, 10))[0]] == [1]
    assert await store.deliveries.retrying(one) == 1


async def test_the_fate_of_an_event_follows_from_cursors_and_failures(store: Store, workspace: int) -> None:
    places = await filled(store, workspace, 3)
    await append(store, workspace, draft(type="other"))
    events = (await store.ledgers.events(EventQuery(workspace_id=workspace, limit=10))).events
    assert await store.deliveries.fates(workspace, events) == [Fate.NONE] * 4
    lease = await leased(store)
    wanted = EventFilter(("document.*",))
    one = (await made(store, workspace, filter=wanted)).destination
    await made(store, workspace, "two", filter=wanted, start=5)
    assert await store.deliveries.fates(workspace, events) == [*[Fate.PENDING] * 3, Fate.NONE]
    rows = [failed(places[2]), failed(places[3], 10, None)]
    await store.deliveries.record([Report(workspace, one.id, Move(places[0], places[3]), set_aside=rows)], lease)
    assert await store.deliveries.fates(workspace, events) == [Fate.DELIVERED, Fate.PENDING, Fate.FAILED, Fate.NONE]
    await store.deliveries.record([Report(workspace, one.id, settled=[2, 3], delivered=2)], lease)
    assert await store.deliveries.fates(workspace, events) == [*[Fate.DELIVERED] * 3, Fate.NONE]
    assert await store.deliveries.fates(workspace, []) == []
