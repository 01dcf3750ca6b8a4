"""The queue: what is sent when, and what becomes of each event. Time is given to it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate_client import InvalidEvent, Problem, QueueFull, Result, Retry
from headgate_client.core.model import EventError
from headgate_client.core.queue import Item, Limits, Queue, size_of

OVERLOADED = Problem("RESOURCE_EXHAUSTED", reason="OVERLOADED", retry_after=7.0)
DOWN = Problem("UNAVAILABLE")
REFUSED = Problem("INVALID_ARGUMENT", reason="DATA_REFUSED")
DENIED = Problem("UNAUTHENTICATED", reason="INVALID_API_KEY")


def queue(keep_denied=False, **limits):
    return Queue(Limits(**{"max_size": 3, **limits}), Retry(first=1.0, most=1.0), keep_denied=keep_denied)


def item(name, at=0.0, size=1):
    return Item(b"x" * size, name, at)


def put(made, *names, at=0.0):
    for name in names:
        made.put(item(name, at))


def names(batch):
    return [one.key for one in batch]


def answer(batch, *statuses):
    statuses = statuses or ("accepted",) * len(batch)
    return [
        Result(index, status, one.key, error=EventError("R"))
        for index, (one, status) in enumerate(zip(batch, statuses, strict=True))
    ]


def test_a_batch_is_sent_when_it_is_full_or_old():
    made = queue(max_age=5.0)
    assert made.next(0.0) is None
    put(made, "a", at=0.0)
    put(made, "b", at=2.0)
    assert made.next(3.0) == 2.0
    put(made, "c", "d", at=3.0)
    assert names(made.next(3.0)) == ["a", "b", "c"]
    assert made.next(3.0) is None, "one batch is under way"
    made.answered(answer([item(name) for name in "abc"]), 3.0)
    assert made.next(3.0) == 5.0
    assert names(made.next(8.0)) == ["d"]


def test_flush_and_close_do_not_wait_for_age():
    made = queue()
    put(made, "a")
    made.hurry()
    put(made, "b")
    assert names(made.next(0.0)) == ["a", "b"]
    made.answered(answer([item("a"), item("b")]), 0.0)
    put(made, "c")
    assert made.next(0.0) == 5.0
    made.close()
    assert names(made.next(0.0)) == ["c"]


def test_a_batch_is_bounded_by_bytes_and_one_large_event_goes_alone():
    made = queue(max_batch_bytes=1_500, max_bytes=100_000)
    for name, size in (("a", 200), ("b", 200), ("c", 9_000)):
        made.put(item(name, size=size))
    assert names(made.next(0.0)) == ["a", "b"]
    made.answered(answer([item("a"), item("b")]), 0.0)
    assert names(made.next(0.0)) == ["c"]


def test_a_failed_call_is_made_again_with_the_same_events_after_the_wait():
    made = queue()
    put(made, "a", "b", "c", "d", "e", "f")
    first = made.next(0.0)
    assert made.failed(OVERLOADED, 0.0) == []
    wait = made.next(0.0)
    assert 7.0 <= wait <= 8.0
    assert made.next(100.0) == first
    assert made.stats().retries == 1
    assert made.last_problem == OVERLOADED
    made.answered(answer(first), 100.0)
    assert made.last_problem is None


def test_close_ends_the_wait_for_a_retry():
    made = queue()
    put(made, "a", "b", "c")
    made.next(0.0)
    made.failed(OVERLOADED, 0.0)
    made.close()
    assert made.retry_in(0.0) == 0.0
    assert names(made.next(0.0)) == ["a", "b", "c"]


def test_events_that_can_be_retried_go_before_all_others():
    made = queue()
    put(made, "a", "b", "c", "d")
    batch = made.next(0.0)
    settled = made.answered(answer(batch, "accepted", "aborted", "rejected"), 0.0)
    assert [(one.item.key, one.outcome.status) for one in settled] == [("a", "accepted"), ("c", "rejected")]
    assert names(made.next(100.0)) == ["b"]
    made.answered(answer([item("b")]), 100.0)
    made.close()
    assert names(made.next(100.0)) == ["d"]


def test_a_refused_batch_is_divided_until_the_event_at_fault_is_alone():
    made = queue(max_size=4)
    put(made, "a", "b", "bad", "d")
    sent, failed = [], []
    while isinstance(batch := made.next(0.0), list):
        sent.append(names(batch))
        if any(one.key == "bad" for one in batch):
            failed += made.failed(REFUSED, 0.0)
        else:
            made.answered(answer(batch), 0.0)
    assert sent == [["a", "b", "bad", "d"], ["a", "b"], ["bad", "d"], ["bad"], ["d"]]
    assert [(one.item.key, one.outcome.reason) for one in failed] == [("bad", "DATA_REFUSED")]
    assert made.stats().accepted == 3
    assert made.stats().failed == 1
    assert made.bytes == 0


def test_a_wrong_key_fails_events_that_wait_in_memory_and_keeps_those_on_disk():
    made = queue()
    put(made, "a", "b", "c")
    made.next(0.0)
    assert [one.outcome.reason for one in made.failed(DENIED, 0.0)] == ["INVALID_API_KEY"] * 3
    kept = queue(keep_denied=True)
    put(kept, "a", "b", "c")
    kept.next(0.0)
    assert kept.failed(DENIED, 0.0) == []
    assert names(kept.next(100.0)) == ["a", "b", "c"]


def test_a_call_that_a_fork_ended_is_made_again_at_once():
    made = queue()
    put(made, "a", "b", "c")
    batch = made.next(0.0)
    made.failed(Problem("CANCELLED", interrupted=True), 0.0)
    assert made.next(0.0) == batch
    assert made.stats().retries == 0


def test_a_full_queue_refuses():
    made = queue(max_items=4)
    put(made, "a", "b", "c")
    made.next(0.0)
    put(made, "d")
    with pytest.raises(QueueFull, match="4 events"):
        put(made, "e")
    assert made.stats().emitted == 4
    small = queue(max_bytes=2_000, max_batch_bytes=2_000)
    small.put(item("a", size=1_000))
    with pytest.raises(QueueFull, match="bytes"):
        small.put(item("b", size=1_000))
    with pytest.raises(InvalidEvent, match="whole queue"):
        small.check_size(size_of(b"x" * 2_000))


def test_the_oldest_make_room_but_not_those_under_way():
    made = queue(max_items=4)
    put(made, "a", "b", "c")
    made.next(0.0)
    put(made, "d")
    assert names(made.make_room(1)) == ["d"]
    put(made, "e")
    made.failed(DOWN, 0.0)
    assert names(made.make_room(1)) == ["a"]
    assert names(made.next(100.0)) == ["b", "c"]
    assert made.stats().dropped == 2


def test_room_that_cannot_be_made_is_refused_before_anything_is_dropped():
    made = queue(max_items=4)
    put(made, "a", "b", "c")
    made.next(0.0)
    put(made, "d")
    made.check_room(1, dropping=True)
    large = queue(max_bytes=3_000, max_batch_bytes=3_000, max_size=1)
    large.put(item("a", size=1_000))
    large.next(0.0)
    large.put(item("b", size=100))
    large.check_room(1_400, dropping=True)
    with pytest.raises(QueueFull, match="2 events"):
        large.check_room(1_500, dropping=True)
    large.reserve(200)
    with pytest.raises(QueueFull):
        large.check_room(1_400, dropping=True)


def test_what_is_left_is_taken_in_order():
    made = queue()
    put(made, "a", "b", "c", "d")
    made.next(0.0)
    assert made.missing(2) == 2
    assert names(made.take_left()) == ["a", "b", "c", "d"]
    assert made.stats().left == 4
    assert (len(made), made.bytes) == (0, 0)


def test_events_on_disk_are_before_new_ones_and_new_ones_stay_on_disk_meanwhile():
    made = queue(max_items=5)
    made.recover(4, 4 * size_of(b"x"))
    made.put_absent(size_of(b"x"))
    with pytest.raises(QueueFull):
        made.put_absent(size_of(b"x"))
    last = made.hurry()
    assert made.missing(last) == 5
    assert made.wants_more
    made.load([item("r1"), item("r2"), item("r3")])
    assert not made.wants_more
    batch = made.next(0.0)
    made.answered(answer(batch), 0.0)
    assert made.missing(last) == 2
    made.load([item("r4"), item("new")])
    assert names(made.next(0.0)) == ["r4", "new"]
    assert made.earliest() == 4
    stats = made.stats()
    assert (stats.recovered, stats.emitted, stats.waiting, stats.accepted) == (4, 1, 2, 3)


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_size": 0},
        {"max_size": 1_001},
        {"max_items": 2},
        {"max_age": -1.0},
        {"max_age": float("nan")},
        {"max_bytes": 0},
        {"when_full": "explode"},
    ],
)
def test_limits_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError, match=r"max_|when_full"):
        queue(**wrong)


_ACTION = st.sampled_from(["put", "drop", "accept", "mixed", "down", "refused", "fork", "later"])


@given(st.lists(_ACTION, max_size=60))
def test_every_event_has_one_fate_and_order_is_kept(actions):
    made = queue(max_items=6)
    now, emitted, fates = 0.0, 0, []
    for action in actions:
        batch = made._under_way
        if action in ("put", "drop"):
            if action == "drop":
                fates += [one.key for one in made.make_room(size_of(b"x"))]
            try:
                put(made, str(emitted), at=now)
                emitted += 1
            except QueueFull:
                assert len(made) == 6
        elif action == "later":
            now += 100.0
            if isinstance(sent := made.next(now), list):
                order = [int(name) for name in names(sent)]
                assert order == sorted(order)
                assert all(int(one.key) > order[-1] for part in (*made._parts, made._waiting) for one in part)
        elif batch:
            if action in ("accept", "mixed"):
                statuses = ("accepted", "aborted", "rejected") if action == "mixed" else ("accepted",) * 3
                settled = made.answered(answer(batch, *statuses[: len(batch)]), now)
            else:
                problem = {"down": DOWN, "refused": REFUSED}.get(action, Problem("CANCELLED", interrupted=True))
                settled = made.failed(problem, now)
            fates += [one.item.key for one in settled]
        stats = made.stats()
        ended = stats.accepted + stats.rejected + stats.failed + stats.dropped
        assert stats.emitted == emitted == ended + stats.waiting
        assert made.bytes == len(made) * size_of(b"x")
        assert made._waiting_bytes == len(made._waiting) * size_of(b"x")
    fates += names(made.take_left())
    assert sorted(fates, key=int) == [str(number) for number in range(emitted)]
