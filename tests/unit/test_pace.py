"""The times at which refused callers are told to retry."""

import pytest

from headgate_server.ingest.pace import Pace
from tests.unit.closedloop import Clock, Loop


def steady(rate: float) -> tuple[Pace, Clock]:
    """Return the pace of a store that has stored so many events a second for some time."""
    clock = Clock()
    pace = Pace(clock)
    for _ in range(100):
        store(pace, clock, 1_000, 1_000 / rate)
    clock.now += 60
    return pace, clock


def store(pace: Pace, clock: Clock, events: int, seconds: float) -> None:
    """Let a group take so many seconds."""
    started = clock.now
    clock.now += seconds
    pace.stored(events, started)


def test_the_first_comes_when_what_waits_is_stored_and_the_others_one_by_one() -> None:
    pace, _ = steady(20_000)
    times = [pace.retry_after(1, 20_000, 100) for _ in range(3)]
    assert times == pytest.approx([1.005, 1.010, 1.015], rel=1e-3)


def test_callers_that_were_admitted_leave_the_others_the_rest_of_the_rate_but_a_fifth_at_least() -> None:
    for admitted, left in ((0, 1.0), (5_000, 0.75), (14_000, 0.3), (20_000, 0.2), (30_000, 0.2)):
        pace, clock = steady(20_000)
        for _ in range(20):
            clock.now += 0.1
            pace.admitted(admitted // 10)
        first, second = (pace.retry_after(1, 20_000, 100) for _ in range(2))
        assert second - first == pytest.approx(0.005 / left, rel=0.05)


def test_a_burst_is_no_sign_of_callers_that_send_again() -> None:
    pace, _ = steady(20_000)
    for _ in range(200):
        pace.admitted(100)
    first, second = (pace.retry_after(1, 20_000, 100) for _ in range(2))
    assert second - first == pytest.approx(0.005, rel=1e-3)


def test_workspaces_share_the_rate_and_none_waits_behind_the_callers_of_another() -> None:
    pace, clock = steady(20_000)
    many = [pace.retry_after(1, 20_000, 100) for _ in range(1_000)]
    assert many[-1] == pytest.approx(6.0, rel=1e-3)
    first, second = (pace.retry_after(2, 20_000, 100) for _ in range(2))
    assert (first, second) == pytest.approx((1.01, 1.02), rel=1e-3)
    clock.now += 7  # both have no caller left
    first, second = (pace.retry_after(3, 20_000, 100) for _ in range(2))
    assert (first, second) == pytest.approx((1.005, 1.01), rel=1e-3)


def test_times_that_have_passed_are_forgotten() -> None:
    pace, clock = steady(1_000)
    assert pace.retry_after(1, 0, 5_000) == pytest.approx(5.0, rel=1e-3)
    clock.now += 60
    assert pace.retry_after(1, 0, 1_000) == pytest.approx(1.0, rel=1e-3)


def test_no_caller_has_to_wait_for_ever_or_not_at_all() -> None:
    pace, _ = steady(1_000)
    assert pace.retry_after(1, 0, 1) == 0.1
    assert pace.retry_after(1, 1_000_000, 1_000) == 10.0
    assert pace.retry_after(1, 1_000_000, 1_000) == 10.0


def test_the_pace_follows_the_store() -> None:
    pace, clock = steady(20_000)
    for _ in range(30):
        store(pace, clock, 100, 0.1)
    assert pace.rate == pytest.approx(1_000, rel=0.05)
    for _ in range(30):
        store(pace, clock, 4_000, 0.2)
    assert pace.rate == pytest.approx(20_000, rel=0.05)
    store(pace, clock, 1, 0.0)  # a clock that does not move
    assert pace.rate == pytest.approx(20_000, rel=0.05)


def test_groups_that_are_stored_at_the_same_time_do_not_count_it_twice() -> None:
    clock = Clock()
    pace = Pace(clock)
    for _ in range(200):  # each takes 0.1 s, and four are stored at any time
        clock.now += 0.025
        pace.stored(1_000, clock.now - 0.1)
    assert pace.rate == pytest.approx(40_000, rel=0.05)


@pytest.mark.parametrize("callers", [400, 1_000])
def test_callers_that_send_again_at_once_take_all_places_and_few_calls_are_refused(callers: int) -> None:
    """At the full rate 0.7 to 1.0 calls are refused for each accepted one."""
    loop = Loop().arrive(callers).run(60)
    assert loop.refusals(since=10) < 0.32
    assert loop.busy(10, 60) > 0.99


def test_a_burst_is_stored_as_fast_as_it_can_be() -> None:
    loop = Loop(jitter=0, stop_at=0).arrive(800).run(60)
    assert len(loop.accepted) == 800
    assert len(loop.refused) <= 600  # each once
    assert loop.now < 1.05 * 800 * 100 / 20_000


def test_an_overload_that_ends_is_forgotten_in_time() -> None:
    """What was refused is stored within the longest time that callers were told to wait, with their jitter."""
    loop = Loop(stop_at=20).arrive(1_000).run(120)
    assert len(loop.accepted) > 20 * 200
    assert loop.now < 20 + 2 * 10 + 1_000 * 100 / 20_000
    before = len(loop.refused)
    loop.arrive(300).run(240)
    assert len(loop.refused) - before <= 100


def test_callers_that_never_return_delay_nobody_beyond_the_bound() -> None:
    loop = Loop()
    for second in range(20):
        loop.arrive(400, at=second, returns=False)
    loop.run(60)
    assert max(loop.told[1]) <= 10.0
    assert loop.busy(2, 20) > 0.95


def test_a_burst_of_one_workspace_leaves_the_times_of_another() -> None:
    loop = Loop().arrive(2_000, workspace=1).arrive(250, workspace=2, at=1.0).run(1.2)
    assert max(loop.told[1]) > 8
    assert max(loop.told[2]) < 5  # 2 s for what waits, and 50 calls at a fifth of a half of the rate
