"""Group commit: when a group is stored, and the answer of each caller. `test_lanes` tests what is in a group."""

import asyncio
from collections.abc import Coroutine
from types import SimpleNamespace

import pytest

from headgate_server.core.errors import InvalidRequest, OutcomeUnknown, Overloaded, Unavailable
from headgate_server.core.model import Decision, Submission
from headgate_server.core.settle import AnswerFailed
from headgate_server.ingest import committer
from headgate_server.ingest.committer import CommitterConfig
from headgate_server.ingest.pace import Pace
from headgate_server.store import DataRefused
from tests.unit.committing import Bench, events
from tests.unit.gatedstore import decision, ends


async def test_a_lone_submission_is_stored_at_once() -> None:
    bench = Bench()
    lone = events(1, 3)
    call = bench.call(lone)
    append = await bench.store.next()
    assert append.submissions == [lone]
    assert not append.wait
    append.finish()
    assert await ends(call) == decision(lone)
    await bench.drain()


async def _some_turns_later(bench: Bench, submitted: Submission, turns: int) -> Decision:
    for _ in range(turns):
        await asyncio.sleep(0)
    return await bench.committer.submit(submitted)


async def test_calls_that_are_on_their_way_join_a_small_group() -> None:
    bench = Bench()
    late = [asyncio.create_task(_some_turns_later(bench, events(1, 1), turns)) for turns in (0, 10, 20, 30)]
    append = await bench.store.next()
    assert len(append.submissions) == 4
    append.finish()
    await asyncio.gather(*map(ends, late))
    await bench.drain()


async def test_a_group_that_is_not_small_waits_for_nobody() -> None:
    bench = Bench(config=CommitterConfig(small_group_events=5))
    calls = [bench.call(events(1, 5)), asyncio.create_task(_some_turns_later(bench, events(1, 1), 5))]
    append = await bench.store.next()
    assert len(append.submissions) == 1
    append.finish()
    (await bench.store.next()).finish()
    await asyncio.gather(*map(ends, calls))
    await bench.drain()


async def test_what_arrives_while_a_group_is_stored_is_the_next_group() -> None:
    bench = Bench()
    (first,) = await bench.calls(events(1, 1))
    append = await bench.store.next()
    later = [events(1, 1), events(2, 2), events(1, 3)]
    calls = await bench.calls(*later)
    assert await bench.store.quiet()
    append.finish()
    await ends(first)
    together = await bench.store.next()
    # Workspaces in turn; within one, in the order of arrival.
    assert together.submissions == [later[0], later[2], later[1]]
    together.finish()
    assert [await ends(call) for call in calls] == [decision(one) for one in later]
    await bench.drain()


async def test_a_skipped_workspace_waits_alone_and_delays_nobody() -> None:
    bench = Bench()
    stuck, free = await bench.calls(events(1, 1), events(2, 1))
    (await bench.store.next()).finish(skipping={1})
    await ends(free)
    alone = await bench.store.next()
    assert (alone.workspaces, alone.wait) == ([1], True)

    more = await bench.calls(events(2, 1), events(1, 1), events(1, 1))
    common = await bench.store.next()
    assert (common.workspaces, common.wait) == ([2], False)
    common.finish()
    await ends(more[0])
    assert not stuck.done()

    alone.finish()
    await ends(stuck)
    together = await bench.store.next()
    assert (together.workspaces, together.wait) == ([1, 1], True)
    together.finish()
    await asyncio.gather(*map(ends, more))

    # When its lane is empty and no calls are on their way, the workspace is back among the others.
    assert await bench.store.quiet()
    await bench.calls(events(1, 1))
    back = await bench.store.next()
    assert (back.workspaces, back.wait) == ([1], False)
    back.finish()
    await bench.drain()


async def test_calls_on_their_way_to_a_skipped_workspace_wait_for_its_lock_too() -> None:
    """Whoever held the lock will most likely hold it again, and an attempt without a wait would be in vain."""
    bench = Bench()
    calls = await bench.calls(events(1, 1))
    (await bench.store.next()).finish(skipping={1})
    waited = await bench.store.next()
    calls.append(asyncio.create_task(_after(calls[0], _some_turns_later(bench, events(1, 2), 8))))
    waited.finish()
    following = await bench.store.next()
    assert (following.workspaces, following.wait) == ([1], True)
    following.finish()
    await asyncio.gather(*map(ends, calls))
    # When no more come, the workspace is in the common lane again.
    assert await bench.store.quiet()
    calls = await bench.calls(events(1, 1))
    again = await bench.store.next()
    assert not again.wait
    again.finish()
    await ends(calls[0])
    await bench.drain()


async def _after(first: "asyncio.Task[Decision]", call: Coroutine[None, None, Decision]) -> Decision:
    await first
    return await call


async def test_several_skipped_workspaces_wait_each_on_its_own() -> None:
    bench = Bench()
    calls = await bench.calls(events(1, 1), events(2, 1))
    (await bench.store.next()).finish(skipping={1, 2})
    alone = [await bench.store.next(), await bench.store.next()]
    assert sorted(append.workspaces for append in alone) == [[1], [2]]
    for append in alone:
        append.finish()
    await asyncio.gather(*map(ends, calls))
    await bench.drain()


async def test_no_more_workspaces_wait_for_their_locks_at_once_than_the_bound() -> None:
    bench = Bench(config=CommitterConfig(parked_lanes=1))
    calls = await bench.calls(events(1, 1), events(2, 1))
    (await bench.store.next()).finish(skipping={1, 2})
    first = await bench.store.next()
    with pytest.raises(asyncio.QueueEmpty):
        bench.store.appends.get_nowait()
    calls += await bench.calls(events(3, 1))  # not delayed by the others
    other = await bench.store.next()
    assert other.workspaces == [3]
    other.finish()
    first.finish()
    second = await bench.store.next()
    assert sorted(first.workspaces + second.workspaces) == [1, 2]
    second.finish()
    await asyncio.gather(*map(ends, calls))
    await bench.drain()


async def test_too_much_waiting_is_refused_at_once_and_taken_again_later() -> None:
    bench = Bench(config=CommitterConfig(waiting_events=10, workspace_share=1.0, quiet_turns=0))
    calls = await bench.calls(events(1, 4), events(2, 4))
    with pytest.raises(Overloaded) as refused:
        await bench.committer.submit(events(3, 3))
    assert refused.value.retry_after is not None
    calls += await bench.calls(events(3, 2))
    append = await bench.store.next()
    with pytest.raises(Overloaded):  # submissions that the store has taken count too
        await bench.committer.submit(events(3, 1))
    append.finish()
    (await bench.store.next()).finish()
    await asyncio.gather(*map(ends, calls))
    calls = await bench.calls(events(3, 10))
    (await bench.store.next()).finish()
    await ends(calls[0])
    await bench.drain()


async def test_room_is_what_a_submission_would_find() -> None:
    bench = Bench(config=CommitterConfig(waiting_events=10, workspace_share=0.5))
    bench.committer.check_room(1, 1_000, 1 << 40)  # an empty queue has room for any submission
    calls = await bench.calls(events(1, 4))
    bench.committer.check_room(1, 1, 0)
    bench.committer.check_room(2, 6, 0)
    for workspace, count, size in ((1, 2, 0), (2, 7, 0), (2, 1, 1 << 40)):
        with pytest.raises(Overloaded):
            bench.committer.check_room(workspace, count, size)
    await bench.drain()
    await asyncio.gather(*map(ends, calls))
    with pytest.raises(Unavailable):
        bench.committer.check_room(1, 1, 0)


async def test_no_more_waits_than_a_slow_store_stores_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups that take long leave room for few events; small groups of few callers do not."""
    clock = SimpleNamespace(now=1_000.0)
    monkeypatch.setattr(committer, "time", SimpleNamespace(monotonic=lambda: clock.now))
    bench = Bench(config=CommitterConfig(group_events=40, waiting_seconds=5.0))
    bench.committer._pace = Pace(lambda: clock.now)
    for count, seconds, most in ((1, 9.0, 40_000), (40, 1.0, 160), (40, 0.001, 40_000)):
        for _ in range(60):
            (call,) = await bench.calls(events(1, count))
            append = await bench.store.next()
            clock.now += seconds
            append.finish()
            await ends(call)
        assert bench.committer.part().detail == f"0 of {most} events wait."
    await bench.drain()


async def test_a_caller_that_is_cancelled_while_it_waits_leaves_the_queue() -> None:
    bench = Bench()
    (first,) = await bench.calls(events(1, 1))
    append = await bench.store.next()
    gone, stays, alone = await bench.calls(events(1, 2), events(1, 3), events(2, 1))
    gone.cancel()
    alone.cancel()
    append.finish()
    following = await bench.store.next()
    assert [len(one.slots) for one in following.submissions] == [3]
    following.finish()
    await asyncio.gather(ends(first), ends(stays))
    assert gone.cancelled()
    await bench.drain()


async def test_a_caller_that_is_cancelled_while_it_is_stored_is_stored_and_disturbs_nobody() -> None:
    bench = Bench()
    gone, stays = await bench.calls(events(1, 1), events(1, 2))
    append = await bench.store.next()
    gone.cancel()
    await asyncio.wait({gone})
    append.finish()
    assert await ends(stays) == decision(append.submissions[1])
    await bench.drain()


async def test_a_cancelled_caller_of_a_skipped_workspace_is_left_out() -> None:
    bench = Bench()
    gone, stays = await bench.calls(events(1, 1), events(1, 2))
    append = await bench.store.next()
    gone.cancel()
    await asyncio.wait({gone})
    append.finish(skipping={1})
    alone = await bench.store.next()
    assert [len(one.slots) for one in alone.submissions] == [2]
    alone.finish()
    await ends(stays)
    await bench.drain()


async def test_when_all_callers_of_a_skipped_workspace_are_gone_nothing_is_stored() -> None:
    bench = Bench()
    (gone,) = await bench.calls(events(1, 1))
    append = await bench.store.next()
    gone.cancel()
    await asyncio.wait({gone})
    append.finish(skipping={1})
    assert await bench.store.quiet()
    await bench.drain()


async def test_after_a_refused_value_each_submission_is_tried_alone() -> None:
    bench = Bench()
    calls = await bench.calls(events(1, 1), events(1, 2), events(2, 3))
    (await bench.store.next()).fail(DataRefused("a value"))
    for size, poisoned in ((1, False), (2, True), (3, False)):
        append = await bench.store.next()
        assert [len(one.slots) for one in append.submissions] == [size]
        append.fail(DataRefused("a value")) if poisoned else append.finish()
    await asyncio.gather(ends(calls[0]), ends(calls[2]))
    with pytest.raises(InvalidRequest) as refused:
        await ends(calls[1])
    assert refused.value.reason == "DATA_REFUSED"
    await bench.drain()


async def test_what_is_skipped_when_tried_alone_waits_for_its_lock() -> None:
    bench = Bench()
    calls = await bench.calls(events(1, 1), events(2, 1))
    (await bench.store.next()).fail(DataRefused("a value"))
    (await bench.store.next()).finish(skipping={1})
    (await bench.store.next()).finish()
    alone = await bench.store.next()
    assert (alone.workspaces, alone.wait) == ([1], True)
    alone.finish()
    await asyncio.gather(*map(ends, calls))
    await bench.drain()


@pytest.mark.parametrize(
    "error", [Unavailable("The store is away."), OutcomeUnknown("Nobody knows."), RuntimeError("a bug of the store")]
)
async def test_every_caller_of_a_group_gets_its_failure_and_the_next_group_is_tried(error: Exception) -> None:
    bench = Bench()
    calls = await bench.calls(events(1, 1), events(2, 1))
    append = await bench.store.next()
    (later,) = await bench.calls(events(1, 1))
    append.fail(error)
    for call in calls:
        with pytest.raises(type(error), match=str(error)):
            await ends(call)
    (await bench.store.next()).finish()
    await ends(later)
    await bench.drain()


async def test_a_bug_met_by_one_caller_is_not_the_others() -> None:
    bench = Bench()
    first, second = await bench.calls(events(1, 1), events(2, 1))
    (await bench.store.next()).fail(AnswerFailed("a bug"))
    (await bench.store.next()).fail(AnswerFailed("a bug"))
    (await bench.store.next()).finish()
    with pytest.raises(AnswerFailed):
        await ends(first)
    await ends(second)
    await bench.drain()


async def test_closing_stores_what_waits_and_takes_no_more() -> None:
    bench = Bench()
    calls = await bench.calls(events(1, 1), events(2, 1))
    first = await bench.store.next()
    calls += await bench.calls(events(2, 2), events(3, 1))
    closing = asyncio.create_task(bench.committer.close())
    await asyncio.sleep(0)
    with pytest.raises(Unavailable) as refused:
        await bench.committer.submit(events(1, 1))
    assert refused.value.reason == "SHUTTING_DOWN"
    first.finish(skipping={1})
    last = [await bench.store.next(), await bench.store.next()]
    assert not closing.done()
    assert sorted(append.workspaces for append in last) == [[1], [2, 3]]
    for append in last:
        append.finish()
    await ends(closing)
    await asyncio.gather(*map(ends, calls))
    assert await bench.store.quiet()


async def test_closing_an_idle_committer_returns_at_once() -> None:
    bench = Bench()
    await bench.committer.close()
    await bench.committer.close()


async def test_waiting_callers_fail_together_with_the_others_when_the_store_hangs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1_000.0
    monkeypatch.setattr(committer, "time", SimpleNamespace(monotonic=lambda: now))
    bench = Bench(config=CommitterConfig(waiting_seconds=5.0))
    first = bench.call(events(1, 1))
    hanging = await bench.store.next()
    behind = await bench.calls(events(1, 1), events(2, 1))
    now += 5.1
    late = bench.call(events(3, 1))
    await asyncio.sleep(0)
    hanging.fail(OutcomeUnknown("lost"))
    for call in behind:
        with pytest.raises(Unavailable, match="nothing of it was stored") as raised:
            await ends(call)
        assert not isinstance(raised.value, OutcomeUnknown)
    append = await bench.store.next()
    assert append.workspaces == [3]
    append.finish()
    await ends(late)
    with pytest.raises(OutcomeUnknown):
        await ends(first)
    await bench.drain()


async def test_a_lane_that_finds_no_place_to_wait_for_its_lock_fails() -> None:
    bench = Bench(config=CommitterConfig(waiting_seconds=0.5, parked_lanes=1))
    calls = await bench.calls(events(1, 1), events(2, 1))
    (await bench.store.next()).finish(skipping={1, 2})
    group = await bench.store.next()
    (locked,) = group.workspaces
    other = calls[0] if locked == 2 else calls[1]
    with pytest.raises(Unavailable, match="nothing of it was stored"):
        await ends(other)
    group.finish()
    await ends(calls[locked - 1])
    await bench.drain()
