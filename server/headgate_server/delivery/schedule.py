"""When a delivery is tried again, and when a destination is disabled. Pure."""

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
"""Seconds to wait after the first failed attempt, the second, and so on: Standard Webhooks' schedule. The first attempt
is at once, the tenth and last some three days later: a receiver that was down over a weekend gets everything.
"""

JITTER = 0.1
"""The most that a wait is lengthened by, as a part of it: what failed together is not tried again together."""

LONGEST_RETRY_AFTER = _DAY
"""No receiver can hold an event back for longer than the schedule itself does."""

FAILING_DAYS = 5
"""Days of nothing but failures after which a destination is disabled: a long weekend, and a day to mend it."""


def wait(failures: int, *, random: float, retry_after: float | None = None, for_ever: bool = False) -> float | None:
    """Return how many seconds to wait after this many failed attempts of an event; None: the schedule is over.

    `random` is between 0 and 1. What the receiver asked for lengthens a wait and never shortens it: a receiver that
    says "in one second" to every attempt would otherwise be asked ten times in ten seconds, and never again. With
    `for_ever` the last wait is repeated: an ordered destination cannot go on without the event.
    """
    if failures > len(WAITS) and not for_ever:
        return None
    planned = WAITS[min(failures, len(WAITS)) - 1] * (1 + JITTER * random)
    return max(planned, min(retry_after or 0.0, LONGEST_RETRY_AFTER))


def retry_after(text: str, moment: int) -> float | None:
    """Return the seconds that a `Retry-After` header asks to wait: it holds seconds or an HTTP date. None: it holds
    neither. At most `LONGEST_RETRY_AFTER`, and 0 for what has passed. `moment` is the time now, in microseconds.
    """
    text = text.strip()
    if text.isascii() and text.isdigit():
        # So many digits are more than a day, however many follow.
        return min(float(text[:12]), LONGEST_RETRY_AFTER)
    try:
        date = parsedate_to_datetime(text)
        seconds = (date if date.tzinfo else date.replace(tzinfo=UTC)) - datetime.fromtimestamp(moment / 1e6, UTC)
    except (ValueError, OverflowError):
        return None
    return min(max(seconds.total_seconds(), 0.0), LONGEST_RETRY_AFTER)


def is_dead(failing_since: int | None, moment: int) -> bool:
    """Whether a destination has had nothing but failures for so long that it is disabled.

    `failing_since` is when the first attempt failed after the newest success, in microseconds; None: the newest attempt
    succeeded, or there was none. Ask after a failed attempt: a destination without events is not dead.
    """
    return failing_since is not None and moment - failing_since >= FAILING_DAYS * int(_DAY) * 1_000_000
