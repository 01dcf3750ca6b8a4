"""A subscription's place in the ledger, and what it does about the end of a stream."""

import pytest

from headgate_client import CallError, Denied, Problem, Retry
from headgate_client.core.follow import Follow


def following():
    return Follow(Retry(first=0.1, most=1.0), type="", source="", subject="", after_sequence=7, after_id="", start=None)


@pytest.mark.parametrize(
    "problem",
    [
        None,
        Problem("INTERNAL", "Received RST_STREAM with error code 2"),
        Problem("UNAVAILABLE", reason="SHUTTING_DOWN"),
        Problem("UNKNOWN", "Stream removed"),
    ],
)
def test_a_stream_that_breaks_is_begun_again_at_the_same_place_after_a_growing_wait(problem):
    follow = following()
    before = follow.request()
    assert [follow.ended(problem, lambda low, high: high) for _ in range(5)] == [0.1, 0.2, 0.4, 0.8, 1.0]
    assert follow.request() == before


def test_a_fork_interrupts_it_without_a_wait():
    assert following().ended(Problem("CANCELLED", interrupted=True)) == 0.0


def test_what_the_service_asks_for_is_waited_for():
    assert following().ended(Problem("RESOURCE_EXHAUSTED", retry_after=5.0), lambda low, high: low) == 5.0


@pytest.mark.parametrize(
    ("problem", "error"),
    [(Problem("UNAUTHENTICATED"), Denied), (Problem("INTERNAL", reason="INTERNAL"), CallError)],
)
def test_what_a_retry_does_not_help_is_raised(problem, error):
    with pytest.raises(error):
        following().ended(problem)
