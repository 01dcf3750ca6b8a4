"""RFC 3339 text to microseconds since the epoch, and back. Pure."""

import re
from datetime import UTC, datetime, timedelta

MIN = -62_135_596_800_000_000
"""0001-01-01T00:00:00Z, the first instant of a protobuf Timestamp."""
MAX = 253_402_300_799_999_999
"""9999-12-31T23:59:59.999999Z, the last one, to the microsecond."""

_RFC3339 = re.compile(
    # Hours and minutes within the RFC's bounds: Python accepts an offset of 10:75, and newer versions accept 24:00.
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt](?:[01][0-9]|2[0-3]):[0-9]{2}:([0-9]{2})(?:\.([0-9]+))?"
    r"([Zz]|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_UTC = _EPOCH.replace(tzinfo=None)
"""The same without an offset, which isoformat would write."""
_MICROSECOND = timedelta(microseconds=1)


FINER = "is finer than a microsecond and was truncated"
LEAP_SECOND = "is a leap second and was taken as the first microsecond after it"


def parse(text: str) -> tuple[int, str | None]:
    """Return the instant in microseconds, and how it was changed: `FINER`, `LEAP_SECOND` or nothing.

    A second :60 is valid at the end of a month in UTC, the place of leap seconds (RFC 3339, 5.7; ITU-R TF.460-6, 2.1).
    Microseconds since the epoch have no place for it, so it becomes the first microsecond of the next month. There is
    no list of the months that had one: it would be out of date within months.

    Raises `ValueError` if the text is not RFC 3339 (a time without an offset is not) or is outside the years 1 to
    9999.
    """
    match = _RFC3339.fullmatch(text)
    if match is None:
        raise ValueError(f"{text[:40]!r} is not an RFC 3339 timestamp such as 2024-01-15T10:30:00Z")
    second, fraction, offset = match.groups()
    if second == "60":
        return _leap_second(text, offset), LEAP_SECOND
    return _microseconds(text, text), FINER if fraction is not None and fraction[6:].strip("0") else None


def _leap_second(text: str, offset: str) -> int:
    following = _microseconds(f"{text[:17]}59{offset}", text) + 1_000_000
    if following > MAX:
        raise ValueError(f"{text[:40]!r} is outside the years 1 to 9999")
    moment = _EPOCH + timedelta(microseconds=following)
    if (moment.day, moment.hour, moment.minute) != (1, 0, 0):
        raise ValueError(f"{text[:40]!r} is not a time that exists: a leap second ends a month in UTC")
    return following


def _microseconds(text: str, quoted: str) -> int:
    try:
        moment = datetime.fromisoformat(text.upper())
    except ValueError:
        raise ValueError(f"{quoted[:40]!r} is not a time that exists") from None
    microseconds = (moment - _EPOCH) // _MICROSECOND
    if not MIN <= microseconds <= MAX:
        raise ValueError(f"{quoted[:40]!r} is outside the years 1 to 9999")
    return microseconds


def format(microseconds: int) -> str:  # noqa: A001 - timestamps.format is what a reader expects
    """Return RFC 3339 in UTC with no, 3 or 6 digits of a second's fraction, as ProtoJSON prints a Timestamp."""
    # An event has two times, and isoformat takes a third of strftime's time. It writes no digits or six.
    text = (_EPOCH_UTC + timedelta(microseconds=microseconds)).isoformat()
    if microseconds % 1000 == 0 and microseconds % 1_000_000:
        text = text[:-3]
    return f"{text}Z"


def month(microseconds: int) -> tuple[int, int]:
    """Return the month (UTC) as a number such as 202611, and the first instant of the next month."""
    moment = _EPOCH + timedelta(microseconds=microseconds)
    after = moment.replace(year=moment.year + moment.month // 12, month=moment.month % 12 + 1, day=1)
    after = after.replace(hour=0, minute=0, second=0, microsecond=0)
    return moment.year * 100 + moment.month, (after - _EPOCH) // _MICROSECOND


def month_start(month: int) -> int:
    """Return the first instant of a month given as a number such as 202611."""
    return (datetime(month // 100, month % 100, 1, tzinfo=UTC) - _EPOCH) // _MICROSECOND
