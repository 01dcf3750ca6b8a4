"""The schedule of retries, and the rule that disables a destination. Pure."""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

_MINUTE, _HOUR, _DAY = 60.0, 3_600.0, 86_400.0

WAITS = (
    5.0,
    5 * _MINUTE,
    30 * _MINUTE,
    2 * _HOUR,
    5 * _HOUR,
    10 * _HOUR,
    14 * _HOUR,
    20 * _HOUR,
    24 * _HOUR,
)
"""The seconds to wait after the first failed attempt, the second, and so on. This is Standard Webhooks' schedule. The
tenth and last attempt is about three days after the first. So a receiver that is down over a weekend gets all events.
"""

JITTER = 0.1
"""A wait is lengthened by at most this part of it, so that events that failed together are not retried together."""

LONGEST_RETRY_AFTER = _DAY
"""A receiver cannot delay an event for longer than the schedule does."""

FAILING_DAYS = 5
"""A destination is disabled after so many days without a success: a long weekend, and a day to repair the receiver."""


def wait(failures: int, *, random: float, retry_after: float | None = None, for_ever: bool = False) -> float | None:
    """Return the seconds to wait after so many failed attempts of an event, None if the schedule is over.

    `random` is between 0 and 1. `retry_after` can lengthen a wait, but not shorten it. Otherwise a receiver that always
    answers "in one second" would get ten attempts in ten seconds, and no more. With `for_ever` the last wait is
    repeated, because an ordered destination cannot continue without the event.
    """
    if failures > len(WAITS) and not for_ever:
        return None
    planned = WAITS[min(failures, len(WAITS)) - 1] * (1 + JITTER * random)
    return max(planned, min(retry_after or 0.0, LONGEST_RETRY_AFTER))


def retry_after(text: str, moment: int) -> float | None:
    """Return the seconds of a `Retry-After` header, which has seconds or an HTTP date. Return None if it has neither.
    The result is at most `LONGEST_RETRY_AFTER`, and 0 for a date in the past. `moment` is the current time in
    microseconds.
    """
    text = text.strip()
    if text.isascii() and text.isdigit():
        # 12 digits are more than a day; the digits after them do not matter.
        return min(float(text[:12]), LONGEST_RETRY_AFTER)
    try:
        date = parsedate_to_datetime(text)
        seconds = (date if date.tzinfo else date.replace(tzinfo=UTC)) - datetime.fromtimestamp(moment / 1e6, UTC)
    except (ValueError, OverflowError):
        return None
    return min(max(seconds.total_seconds(), 0.0), LONGEST_RETRY_AFTER)


def is_dead(failing_since: int | None, moment: int) -> bool:
    """Whether a destination must be disabled, because it had no success for `FAILING_DAYS`.

    `failing_since` is the time of the first failure after the newest success, in microseconds. It is None if the newest
    attempt succeeded or there was none. Call this after a failed attempt only: a destination without events is not
    dead.
    """
    return failing_since is not None and moment - failing_since >= FAILING_DAYS * int(_DAY) * 1_000_000
