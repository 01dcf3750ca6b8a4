"""Group commit: who joins a group until the store begins, and what becomes of those who joined."""

import pytest

from headgate_server.core.errors import OutcomeUnknown, Unavailable
from headgate_server.ingest.committer import CommitterConfig
from headgate_server.store import DataRefused
from tests.unit.committing import Bench, events
from tests.unit.gatedstore import ends


async def test_a_group_grows_until_the_store_begins() -> None:
    bench = Bench(config=CommitterConfig(group_events=10), waits=True)
    calls = await bench.calls(events(1, 1))
    append = await bench.store.next()
    calls += await bench.calls(events(2, 4), events(1, 4))
    assert append.workspaces == [1, 2, 1]
    calls += await bench.calls(events(1, 1), events(1, 3), events(3, 1))
    assert [len(one.slots) for one in append.submissions] == [1, 4, 4, 1]  # a group has its bound
    append.begin()
    append.finish()
    following = await bench.store.next()
    calls += await bench.calls(events(4, 1))
    assert following.workspaces == [1, 3, 4]
    following.begin()
    calls += await bench.calls(events(4, 2))
    assert following.workspaces == [1, 3, 4]
    following.finish()
    last = await bench.store.next()
    assert last.workspaces == [4]
    last.begin()
    last.finish()
    for call in calls:
        await ends(call)
    await bench.drain()


async def test_a_group_that_fails_before_the_store_begins_does_not_grow_any_more() -> None:
    bench = Bench(waits=True)
    (call,) = await bench.calls(events(1, 1))
    append = await bench.store.next()
    append.fail(Unavailable("The store is closed."))
    with pytest.raises(Unavailable):
        await ends(call)
    (later,) = await bench.calls(events(1, 2))
    following = await bench.store.next()
    assert len(append.submissions) == 1
    following.begin()
    following.finish()
    await ends(later)
    await bench.drain()


async def test_a_group_that_waits_for_locks_grows_by_calls_of_its_workspaces_alone() -> None:
    bench = Bench(config=CommitterConfig(group_events=10), waits=True, others=False)
    calls = await bench.calls(events(1, 1), events(2, 1))
    append = await bench.store.next()
    calls += await bench.calls(events(3, 1), events(2, 2), events(1, 3), events(3, 2), events(1, 3))
    assert append.workspaces == [1, 2, 2, 1, 1]
    assert [len(one.slots) for one in append.submissions] == [1, 1, 2, 3, 3]
    calls += await bench.calls(events(1, 4), events(2, 1))
    assert append.workspaces == [1, 2, 2, 1, 1]  # a group has its bound
    append.begin()
    append.finish()
    # Lanes that have waited longest come first.
    following = await bench.store.next()
    assert [(one.workspace_id, len(one.slots)) for one in following.submissions] == [(3, 1), (3, 2), (1, 4), (2, 1)]
    following.begin()
    following.finish()
    for call in calls:
        await ends(call)
    await bench.drain()


@pytest.mark.parametrize("nodes", [False, True])
async def test_the_group_of_one_workspace_grows_while_it_waits_for_its_lock(nodes: bool) -> None:
    bench = Bench(config=CommitterConfig(group_events=5), waits=True, nodes=nodes, others=False)
    calls = await bench.calls(events(1, 1))
    if not nodes:
        skipped = await bench.store.next()
        skipped.begin()
        skipped.finish(skipping={1})
    waiting = await bench.store.next()
    assert waiting.wait
    calls += await bench.calls(events(1, 2), events(2, 1), events(1, 3), events(1, 1))
    assert waiting.workspaces == [1, 1, 1]
    assert [len(one.slots) for one in waiting.submissions] == [1, 2, 3]
    other = await bench.store.next()
    assert other.workspaces == [2]
    waiting.begin()
    calls += await bench.calls(events(1, 4))
    assert waiting.workspaces == [1, 1, 1]
    waiting.finish()
    following = await bench.store.next()
    assert [len(one.slots) for one in following.submissions] == [1, 4]
    for append in (other, following):
        append.begin()
        append.finish()
    for call in calls:
        await ends(call)
    await bench.drain()


@pytest.mark.parametrize("alone", [False, True])
async def test_calls_that_join_a_group_that_fails_before_it_begins_are_the_next_group(alone: bool) -> None:
    """They have not waited for as long as the group, so the next attempt may store them."""
    bench = Bench(waits=True, others=False)
    first = await bench.calls(events(1, 1), events(1, 2))
    append = await bench.store.next()
    if alone:
        append.begin()
        append.finish(skipping={1})
        append = await bench.store.next()
    joined = await bench.calls(events(1, 3), events(1, 4))
    assert len(append.submissions) == 4
    append.fail(Unavailable("The head is locked."))
    for call in first:
        with pytest.raises(Unavailable):
            await ends(call)
    joined += await bench.calls(events(1, 5))
    following = await bench.store.next()
    assert [len(one.slots) for one in following.submissions] == [3, 4, 5]
    following.begin()
    following.fail(OutcomeUnknown("lost"))
    for call in joined:
        with pytest.raises(OutcomeUnknown):
            await ends(call)
    await bench.drain()


async def test_when_a_store_begins_and_fails_those_who_joined_fail_too() -> None:
    bench = Bench(waits=True, others=False)
    calls = await bench.calls(events(1, 1))
    append = await bench.store.next()
    calls += await bench.calls(events(1, 1))
    append.begin()
    append.fail(DataRefused("a value"))
    for call in calls:  # each is tried alone
        one = await bench.store.next()
        one.begin()
        assert len(one.submissions) == 1
        one.finish()
        await ends(call)
    await bench.drain()
