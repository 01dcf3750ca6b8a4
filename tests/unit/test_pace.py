"""The times at which refused callers are told to retry."""

import pytest

from headgate_server.ingest.pace import Pace


class Clock:
    """A clock that only changes when it is set."""

    now = 1_000.0

    def __call__(self) -> float:
        return self.now


def steady(rate: float) -> tuple[Pace, Clock]:
    """Return the pace of a store that has stored so many events a second for some time."""
    clock = Clock()
    pace = Pace(clock)
    for _ in range(100):
        pace.stored(1_000, 1_000 / rate)
    return pace, clock


def test_the_first_comes_when_what_waits_is_stored_and_the_others_one_by_one() -> None:
    pace, _ = steady(20_000)
    times = [pace.retry_after(20_000, 100) for _ in range(3)]
    assert times == pytest.approx([1.005, 1.010, 1.015], rel=1e-3)


def test_times_that_have_passed_are_forgotten() -> None:
    pace, clock = steady(1_000)
    assert pace.retry_after(0, 5_000) == pytest.approx(5.0, rel=1e-3)
    clock.now += 60
    assert pace.retry_after(0, 1_000) == pytest.approx(1.0, rel=1e-3)


def test_no_caller_has_to_wait_for_ever_or_not_at_all() -> None:
    pace, _ = steady(1_000)
    assert pace.retry_after(0, 1) == 0.1
    assert pace.retry_after(1_000_000, 1_000) == 10.0
    assert pace.retry_after(1_000_000, 1_000) == 10.0


def test_the_pace_follows_the_store() -> None:
    pace, _ = steady(20_000)
    for _ in range(30):
        pace.stored(100, 0.1)
    assert pace.retry_after(1_000, 0) == pytest.approx(1.0, rel=0.05)
    pace.stored(1, 0.0)  # a clock that did not move
