"""The verdict on a failed call, and the waits between attempts."""

import pytest

from headgate_client import Problem, Result, Retry
from headgate_client.core.model import EventError
from headgate_client.core.retry import Verdict, is_open, verdict


@pytest.mark.parametrize(
    ("problem", "expected"),
    [
        (Problem("UNAVAILABLE"), Verdict.AGAIN),
        (Problem("UNAVAILABLE", reason="OUTCOME_UNKNOWN"), Verdict.AGAIN),
        (Problem("DEADLINE_EXCEEDED"), Verdict.AGAIN),
        (Problem("RESOURCE_EXHAUSTED", reason="OVERLOADED", retry_after=1.0), Verdict.AGAIN),
        (Problem("RESOURCE_EXHAUSTED", reason="BODY_TOO_LARGE"), Verdict.DIVIDE),
        (Problem("RESOURCE_EXHAUSTED", "Sent message larger than max (5 vs. 4)"), Verdict.DIVIDE),
        (Problem("ABORTED"), Verdict.AGAIN),
        (Problem("CANCELLED", interrupted=True), Verdict.AGAIN),
        (Problem("INTERNAL", "Received RST_STREAM"), Verdict.AGAIN),
        (Problem("INTERNAL", reason="INTERNAL"), Verdict.DIVIDE),
        (Problem("UNKNOWN"), Verdict.AGAIN),
        (Problem("INVALID_ARGUMENT", reason="TOO_MANY_EVENTS"), Verdict.DIVIDE),
        (Problem("UNAUTHENTICATED", reason="INVALID_API_KEY"), Verdict.DENIED),
        (Problem("PERMISSION_DENIED", reason="MISSING_SCOPE"), Verdict.DENIED),
        (Problem("UNIMPLEMENTED"), Verdict.DENIED),
    ],
)
def test_a_failed_call_asks_for(problem, expected):
    assert verdict(problem) is expected


@pytest.mark.parametrize(
    ("status", "retryable", "expected"),
    [
        ("accepted", False, False),
        ("duplicate", False, False),
        ("conflict", True, False),
        ("rejected", True, False),
        ("aborted", False, True),
        ("invented", True, True),
        ("invented", False, False),
    ],
)
def test_rejected_and_conflict_are_never_sent_again(status, retryable, expected):
    assert is_open(Result(0, status, "k", error=EventError("R", retryable=retryable))) is expected


def test_the_wait_doubles_up_to_the_cap_and_has_full_jitter():
    retry = Retry(first=0.1, most=1.0)
    bounds = []
    delays = [retry.delay(n, None, lambda low, high: bounds.append((low, high)) or high) for n in (1, 2, 3, 4, 5, 5000)]
    assert delays == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    assert {low for low, _ in bounds} == {0.0}


def test_what_the_service_asks_for_is_the_floor_and_is_bounded():
    retry = Retry(first=0.1, most=1.0, longest_floor=60.0)
    assert retry.delay(1, 5.0, lambda low, high: low) == 5.0
    assert retry.delay(1, 5.0, lambda low, high: high) == 5.1
    assert retry.delay(1, 1e9, lambda low, high: low) == 60.0


@pytest.mark.parametrize("wrong", [{"first": 0}, {"first": 2, "most": 1}, {"longest_floor": -1}])
def test_a_retry_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(ValueError, match=r"first|longest_floor"):
        Retry(**wrong)
