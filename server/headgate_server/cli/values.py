"""Reads the texts that operators write for durations, quotas and rates."""

import re

from headgate_server.core import timestamps
from headgate_server.core.errors import SetupError

_LIFETIME = re.compile(r"([1-9][0-9]{0,4})([smhd])")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def lifetime_of(text: str | None) -> int | None:
    """Return a key's lifetime in microseconds. Raises `SetupError` if the text is not a duration."""
    if text is None:
        return None
    match = _LIFETIME.fullmatch(text)
    if match is None:
        raise SetupError(f"{text!r} is not a duration: give a number and s, m, h or d, such as 90d")
    return int(match[1]) * _UNITS[match[2]] * 1_000_000


def overlap_of(text: str) -> int:
    """Return how long two keys overlap, in seconds; 0 is allowed. Raises `SetupError`."""
    return 0 if text in ("0", "0s", "0m", "0h", "0d") else (lifetime_of(text) or 0) // 1_000_000


def time_of(text: str | None, option: str) -> int | None:
    """Return the time of an option in microseconds, None if it was not given. Raises `SetupError`."""
    if text is None:
        return None
    try:
        return timestamps.parse(text)[0]
    except ValueError as error:
        raise SetupError(f"{option}: {error}") from None


def quota_of(text: str) -> int | None:
    """Return the quota of a text, None for 'none'. Raises `SetupError`."""
    if text == "none":
        return None
    if not re.fullmatch(r"[0-9]{1,15}", text):
        raise SetupError(f"{text!r} is not a quota: give a whole number, or 'none'")
    return int(text)


def rate_of(text: str) -> tuple[str, str]:
    """Return receiver and limit of RECEIVER=RATE. Who uses it checks them. Raises `SetupError`."""
    receiver, separator, rate = text.partition("=")
    if not separator or not receiver or not rate:
        raise SetupError(
            f"{text!r} is not a rate: give RECEIVER=N/PERIOD, such as flokit=100/minute or scrip=10/second:30, "
            "RECEIVER=none or RECEIVER=default"
        )
    return receiver, rate
