"""Reads the texts that operators write for durations, quotas and rates."""

import re
from types import EllipsisType

from headgate_server.core import timestamps
from headgate_server.core.errors import SetupError
from headgate_server.core.model import RateLimit

_LIFETIME = re.compile(r"([1-9][0-9]{0,4})([smhd])")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_RATE = re.compile(
    r"(?P<receiver>[a-z]+)="
    r"(?:none|(?P<default>default)|(?P<count>[1-9][0-9]{0,8})/(?P<period>second|minute|hour|day)(?::(?P<burst>[1-9][0-9]{0,8}))?)"
)
PERIODS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}
"""The seconds of each period of a rate."""


def lifetime_of(text: str | None) -> int | None:
    """Return a key's lifetime in microseconds. Raises `SetupError` if the text is not a duration."""
    if text is None:
        return None
    match = _LIFETIME.fullmatch(text)
    if match is None:
        raise SetupError(f"{text!r} is not a duration: give a number and s, m, h or d, such as 90d")
    return int(match[1]) * _UNITS[match[2]] * 1_000_000


def time_of(text: str | None, option: str) -> int | None:
    """Return the time of an option in microseconds, None if it was not given. Raises `SetupError`."""
    if text is None:
        return None
    try:
        return timestamps.parse(text)[0]
    except ValueError as error:
        raise SetupError(f"{option}: {error}") from None


def quota_of(text: str | None) -> int | EllipsisType | None:
    """Return the quota of a text: ... if no text was given, None for 'none'. Raises `SetupError`."""
    if text is None:
        return ...
    if text == "none":
        return None
    if not re.fullmatch(r"[0-9]{1,15}", text):
        raise SetupError(f"{text!r} is not a quota: give a whole number, or 'none'")
    return int(text)


def rate_of(text: str) -> tuple[str, RateLimit | EllipsisType | None]:
    """Return receiver and limit of RECEIVER=N/PERIOD[:BURST]. Without a burst, N requests may come at once. None means
    no limit, and `...` the receiver's default. Raises `SetupError`.
    """
    match = _RATE.fullmatch(text)
    if match is None:
        raise SetupError(
            f"{text!r} is not a rate: give RECEIVER=N/PERIOD, such as flokit=100/minute or scrip=10/second:30, "
            "RECEIVER=none or RECEIVER=default"
        )
    if match["count"] is None:
        return match["receiver"], ... if match["default"] else None
    count = int(match["count"])
    return match["receiver"], RateLimit(count, PERIODS[match["period"]] * 1_000_000, int(match["burst"] or count))
