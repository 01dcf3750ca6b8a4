"""The operator's side of destinations: stored values, refused values, and cursors that do not move."""

import asyncio

import pytest

from headgate_server.core.destinations import (
    NOW,
    EventFilter,
    FailureState,
    Format,
    JetStream,
    Move,
    Ordering,
    Report,
    Secrets,
    SetAside,
    Signature,
    State,
    Webhook,
)
from headgate_server.core.errors import AlreadyExists, InvalidRequest, NotFound
from headgate_server.core.model import Lease, Position
from headgate_server.store import Store
from headgate_server.store.destinations import copy
from tests.support.destinations import SECRET, made
from tests.support.drafts import append, draft


async def filled(store: Store, workspace: int, count: int) -> list[Position]:
    """Append so many events, each in a call of its own. Return their positions, after position 0 before the first."""
    places = [Position()]
    for _ in range(count):
        link = (await append(store, workspace, draft()))[0].link
        assert link is not None
        places.append(Position(link.sequence, link.id))
    return places


async def leased(store: Store) -> Lease:
    lease = await store.leases.take("deliver", "one", 60.0)
    assert lease is not None
    return lease


async def test_a_created_destination_reads_back(store: Store, workspace: int) -> None:
    webhook = Webhook(
        url="https://example.com/é", max_events=7, timeout=3.5, format=Format.CLOUDEVENTS, signature=Signature.ED25519
    )
    kept = Secrets(current="whsk_x", headers=(("x-token", "t"),))
    wanted = EventFilter(("order.*", "ping"), ("shop",), ("native",))
    status = await made(store, workspace, target=webhook, filter=wanted, ordering=Ordering.ORDERED, secrets=kept)
    found = status.destination
    assert (found.target, found.filter, found.ordering) == (webhook, wanted, Ordering.ORDERED)
    assert (found.state, found.why, found.cursor, found.replay) == (State.ACTIVE, "", Position(), None)
    assert found.id.startswith("dst_")
    assert await store.destinations.get(workspace, found.id) == status
    assert await store.destinations.secrets(workspace, found.id) == kept
    bus = JetStream(stream="ORDERS", subject_prefix="orders")
    assert (await made(store, workspace, "bus", target=bus)).destination.target == bus


async def test_a_name_is_unique_also_for_concurrent_calls(store: Store, workspace: int) -> None:
    results = await asyncio.gather(*(made(store, workspace) for _ in range(4)), return_exceptions=True)
    assert sum(isinstance(result, AlreadyExists) for result in results) == 3
    other = (await store.directory.create_workspace("other")).id
    await made(store, other)
    second = (await made(store, workspace, "second")).destination
    with pytest.raises(AlreadyExists):
        await store.destinations.update(workspace, second.id, lambda old: copy(old, name="crm"))


async def test_the_number_of_destinations_is_bounded(
    store: Store, workspace: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headgate_server.store.destinations.MOST_DESTINATIONS", 2)
    await made(store, workspace, "a")
    one = (await made(store, workspace, "b")).destination
    with pytest.raises(InvalidRequest, match="at most 2 destinations"):
        await made(store, workspace, "c")
    await store.destinations.delete(workspace, one.id)
    await made(store, workspace, "c")


async def test_every_start(store: Store, workspace: int) -> None:
    places = await filled(store, workspace, 5)
    for name, start, cursor in (("a", 0, 0), ("b", 1, 0), ("c", 4, 3), ("d", 6, 5), ("e", NOW, 5)):
        status = await made(store, workspace, name, start=start)
        assert status.destination.cursor == places[cursor], name
        assert (status.destination.start, status.lag_events) == (cursor, 5 - cursor)
    with pytest.raises(InvalidRequest, match="ends at 5"):
        await made(store, workspace, "f", start=7)


async def test_the_place_of_every_sequence_is_found(store: Store, workspace: int) -> None:
    """This includes events of one transaction, which are microseconds apart."""
    await filled(store, workspace, 3)
    outcomes = await append(store, workspace, *(draft() for _ in range(50)))
    ids = {outcome.link.sequence: outcome.link.id for outcome in outcomes if outcome.link is not None}
    for sequence, event_id in ids.items():
        status = await made(store, workspace, str(sequence), start=sequence + 1)
        assert status.destination.cursor == Position(sequence, event_id)


async def test_destinations_of_another_workspace_are_not_found(store: Store, workspace: int) -> None:
    found = (await made(store, workspace)).destination
    other = (await store.directory.create_workspace("other")).id
    topic = store.destinations
    for call in (
        lambda: topic.get(other, found.id),
        lambda: topic.update(other, found.id, lambda old: old),
        lambda: topic.delete(other, found.id),
        lambda: topic.set_state(other, found.id, State.PAUSED),
        lambda: topic.secrets(other, found.id),
        lambda: topic.set_secrets(other, found.id, lambda secrets, *_: secrets),
        lambda: topic.replay(other, found.id, after=0),
        lambda: topic.replay_set_aside(other, found.id),
        lambda: topic.failures(other, found.id, 10),
        lambda: topic.retry(other, found.id, 1),
        lambda: topic.skip(other, found.id, 1),
    ):
        with pytest.raises(NotFound):
            await call()  # type: ignore[no-untyped-call]
    assert list(await topic.list(other, 10)) == []
    assert (await topic.get(workspace, found.id)).destination == found


async def test_pages_of_destinations(store: Store, workspace: int) -> None:
    names = [(await made(store, workspace, name)).destination.name for name in ("b", "a", "c")]
    first = await store.destinations.list(workspace, 2)
    rest = await store.destinations.list(workspace, 2, first[-1].destination.id)
    assert [status.destination.name for status in (*first, *rest)] == names


async def test_a_change_moves_no_cursor_and_increases_the_revision(store: Store, workspace: int) -> None:
    places = await filled(store, workspace, 3)
    made_ = (await made(store, workspace, start=3)).destination
    topic = store.destinations
    changed = await topic.update(workspace, made_.id, lambda old: copy(old, name="new", filter=EventFilter(("t",))))
    assert (changed.destination.name, changed.destination.filter) == ("new", EventFilter(("t",)))
    paused = (await topic.set_state(workspace, made_.id, State.PAUSED)).destination
    resumed = (await topic.set_state(workspace, made_.id, State.ACTIVE)).destination
    rotated = await topic.set_secrets(workspace, made_.id, lambda old, *_: Secrets(current="b", previous=old.current))
    assert (await topic.secrets(workspace, made_.id)).previous == SECRET
    revisions = [one.revision for one in (made_, changed.destination, paused, resumed, rotated.destination)]
    assert revisions == [1, 2, 3, 4, 5]
    assert rotated.destination.cursor == places[2]
    await topic.delete(workspace, made_.id)
    with pytest.raises(NotFound):
        await topic.get(workspace, made_.id)


async def test_a_replay_moves_no_cursor(store: Store, workspace: int) -> None:
    places = await filled(store, workspace, 5)
    one = (await made(store, workspace, start=NOW)).destination
    await filled(store, workspace, 1)
    topic = store.destinations
    with pytest.raises(InvalidRequest, match="cursor is at 5"):
        await topic.replay(workspace, one.id, after=6)
    assert (await topic.replay(workspace, one.id, after=5)).destination.replay is None
    replayed = (await topic.replay(workspace, one.id, after=3)).destination
    assert (replayed.cursor, replayed.replay) == (places[5], (places[3], 5))
    (second,) = await store.ledgers.fetch(workspace, [places[2].id or b""])
    widened = (await topic.replay(workspace, one.id, since=second.created_at)).destination
    assert (widened.cursor, widened.replay) == (places[5], (places[1], 5))
    assert (await topic.replay(workspace, one.id, after=4)).destination.replay == (places[1], 5)


async def test_failures_are_retried_and_skipped(store: Store, workspace: int) -> None:
    places = await filled(store, workspace, 3)
    lease = await leased(store)
    one = (await made(store, workspace)).destination
    rows = [SetAside(n, places[n].id or b"", 10, None if n == 1 else 60.0, 500, "no") for n in (1, 2, 3)]
    report = Report(workspace, one.id, Move(places[0], places[3]), set_aside=rows, failed_attempts=3, error="no")
    assert await store.deliveries.record([report], lease) != [None]
    status = await store.destinations.get(workspace, one.id)
    assert (status.set_aside, status.lag_events, status.destination.last_error) == (3, 0, "no")
    found = await store.destinations.failures(workspace, one.id, 10)
    assert [(each.sequence, each.state) for each in found] == [(1, "failed"), (2, "retrying"), (3, "retrying")]
    assert [each.sequence for each in await store.destinations.failures(workspace, one.id, 1, 1)] == [2]
    assert status.retry_after == found[1].next_attempt_at
    skipped = await store.destinations.skip(workspace, one.id, 2)
    assert (skipped.state, skipped.next_attempt_at) == (FailureState.SKIPPED, None)
    assert (await store.destinations.get(workspace, one.id)).set_aside == 2
    assert await store.deliveries.due(one, 3, 10) != ([], None)
    retried = await store.destinations.retry(workspace, one.id, 1)
    assert retried.state is FailureState.RETRYING
    ready, following = await store.deliveries.due(one, 3, 10)
    assert [each.sequence for each in ready] == [1]
    assert following is not None
    assert 50 < following <= 60
    with pytest.raises(NotFound, match="sequence 9"):
        await store.destinations.retry(workspace, one.id, 9)
    await store.destinations.replay_set_aside(workspace, one.id)
    ready, following = await store.deliveries.due(one, 3, 10)
    assert ([(each.sequence, each.attempts) for each in ready], following) == ([(1, 0), (3, 0)], None)
    assert (await store.destinations.get(workspace, one.id)).destination.cursor == places[3]
