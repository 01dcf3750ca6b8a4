"""Rate limits as texts: `100/minute`, or `10/second:30` with a burst. Pure."""

import re

from headgate_server.core.model import RateLimit

PERIODS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}
"""The seconds of each period."""

_RATE = re.compile(r"([1-9][0-9]{0,8})/(second|minute|hour|day)(?::([1-9][0-9]{0,8}))?")


def rate_of(text: str, before: str = "") -> RateLimit:
    """Return the limit of N/PERIOD or N/PERIOD:BURST. Without a burst, N may come at once.

    Raises `ValueError`. Its message shows the text after `before`, such as `flokit=`.
    """
    match = _RATE.fullmatch(text)
    if match is None:
        raise ValueError(
            f"{(before + text)[:80]!r} is not a rate: give N/PERIOD or N/PERIOD:BURST with the periods "
            f"{', '.join(PERIODS)}, such as 100/minute or 10/second:30"
        )
    count = int(match[1])
    return RateLimit(count, PERIODS[match[2]] * 1_000_000, int(match[3] or count))


def text_of(rate: RateLimit) -> str:
    """Return a limit as a text. A burst is only said if it is another number."""
    seconds = rate.period // 1_000_000
    period = next((name for name, each in PERIODS.items() if each == seconds), f"{seconds} seconds")
    return f"{rate.requests}/{period}" + ("" if rate.burst == rate.requests else f":{rate.burst}")
