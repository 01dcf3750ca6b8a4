"""The times between attempts, the Retry-After header, and the rule that disables a destination."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate_server.delivery import schedule

NOW = 1_796_000_000_000_000  # 2026-11-30T00:53:20Z
DAY = 86_400
HOUR = 3_600


def test_the_schedule_is_the_one_of_standard_webhooks() -> None:
    waits = [schedule.wait(failures, random=0.0) for failures in range(1, 11)]
    hours = [2 * HOUR, 5 * HOUR, 10 * HOUR, 14 * HOUR, 20 * HOUR, 24 * HOUR]
    assert waits == [5, 300, 1800, *hours, None]


def test_an_ordered_destination_is_tried_every_day_after_that() -> None:
    assert schedule.wait(10, random=0.0, for_ever=True) == DAY
    assert schedule.wait(1000, random=0.0, for_ever=True) == DAY
    assert schedule.wait(1, random=0.0, for_ever=True) == 5


def test_jitter_lengthens_a_wait_by_a_tenth_at_most() -> None:
    assert schedule.wait(2, random=0.0) == 300
    assert schedule.wait(2, random=0.5) == pytest.approx(315)
    assert schedule.wait(2, random=1.0) == pytest.approx(330)


def test_a_receiver_can_lengthen_a_wait_and_not_shorten_it() -> None:
    assert schedule.wait(1, random=0.0, retry_after=60.0) == 60
    assert schedule.wait(2, random=0.0, retry_after=60.0) == 300
    assert schedule.wait(1, random=0.0, retry_after=10.0 * DAY) == DAY
    assert schedule.wait(10, random=0.0, retry_after=60.0) is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("120", 120),
        (" 7 ", 7),
        ("86400", DAY),
        ("86401", DAY),
        ("9" * 400, DAY),
        ("Mon, 30 Nov 2026 00:54:20 GMT", 60),
        ("Monday, 30-Nov-26 00:54:20 GMT", 60),
        ("Mon Nov 30 00:54:20 2026", 60),
        ("Mon, 30 Nov 2026 01:54:20 +0100", 60),
        ("Mon, 30 Nov 2026 00:53:19 GMT", 0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", DAY),
        ("", None),
        ("-1", None),
        ("1.5", None),
        ("1e3", None),
        ("soon", None),
        ("٣", None),
        ("Mon, 30 Nov 99999999999 00:54:20 GMT", None),
        ("2026-11-30T00:54:20Z", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(text: str, seconds: float | None) -> None:
    assert schedule.retry_after(text, NOW) == seconds


@given(st.text() | st.from_regex(r"[A-Z][a-z]{2}, [0-9]{1,2} [A-Z][a-z]{2} [0-9]{1,6} [0-9:]{5,8} [A-Z+0-9-]{1,6}"))
def test_any_text_is_a_wait_or_none(text: str) -> None:
    seconds = schedule.retry_after(text, NOW)
    assert seconds is None or 0 <= seconds <= DAY


def test_five_days_without_a_success_disable_a_destination() -> None:
    day = DAY * 1_000_000
    assert not schedule.is_dead(None, NOW)
    assert not schedule.is_dead(NOW - 5 * day + 1, NOW)
    assert schedule.is_dead(NOW - 5 * day, NOW)


def test_one_events_schedule_ends_before_its_destination_counts_as_dead() -> None:
    assert sum(schedule.WAITS) * (1 + schedule.JITTER) < schedule.FAILING_DAYS * DAY
