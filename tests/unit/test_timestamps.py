"""RFC 3339 in and out; protobuf's own Timestamp is the oracle."""

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import example, given
from hypothesis import strategies as st

from headgate_server.core import timestamps
from headgate_server.core.timestamps import FINER, LEAP_SECOND, MAX, MIN

_INSTANTS = st.integers(MIN, MAX)


def protobuf(microseconds: int) -> Timestamp:
    """Return a Timestamp of this instant."""
    seconds, rest = divmod(microseconds, 1_000_000)
    return Timestamp(seconds=seconds, nanos=rest * 1000)


@given(_INSTANTS)
@example(MIN)
@example(MAX)
@example(0)
@example(-1)
def test_an_instant_is_written_as_protobuf_writes_it_and_reads_back(microseconds: int) -> None:
    text = timestamps.format(microseconds)
    assert text == protobuf(microseconds).ToJsonString()
    assert timestamps.parse(text) == (microseconds, None)


@given(
    st.datetimes(),
    st.text("0123456789", max_size=9),
    st.sampled_from("Tt"),
    st.sampled_from(["Z", "+00:00", "-00:00", "+05:30", "-23:59", "+23:59"]),
)
def test_a_text_is_read_as_protobuf_reads_it(moment: object, fraction: str, separator: str, offset: str) -> None:
    seconds = f"{moment:%m-%dT%H:%M:%S}"
    text = f"{getattr(moment, 'year', 0):04}-{seconds.replace('T', separator)}{'.' * bool(fraction)}{fraction}{offset}"
    expected = Timestamp()
    try:
        expected.FromJsonString(text.upper())
    except ValueError:
        with pytest.raises(ValueError, match="outside the years"):
            timestamps.parse(text)
        return
    microseconds = expected.seconds * 1_000_000 + expected.nanos // 1000
    assert timestamps.parse(text) == (microseconds, FINER if expected.nanos % 1000 else None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2024-01-15T10:30:00Z", (1_705_314_600_000_000, None)),
        ("2024-01-15t10:30:00z", (1_705_314_600_000_000, None)),
        ("2024-01-15T12:00:00+01:30", (1_705_314_600_000_000, None)),
        ("2024-01-15T10:30:00.1Z", (1_705_314_600_100_000, None)),
        ("2024-01-15T10:30:00.123456000Z", (1_705_314_600_123_456, None)),
        ("2024-01-15T10:30:00.1234569Z", (1_705_314_600_123_456, FINER)),
        ("2024-01-15T10:30:00.123456000000000000001Z", (1_705_314_600_123_456, FINER)),
        ("1969-12-31T23:59:59.9999999Z", (-1, FINER)),
        ("9999-12-31T23:59:59.999999999Z", (MAX, FINER)),
        ("2024-02-29T00:00:00Z", (1_709_164_800_000_000, None)),
    ],
)
def test_what_is_read_and_what_is_cut_off(text: str, expected: tuple[int, bool]) -> None:
    assert timestamps.parse(text) == expected


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is not an RFC 3339 timestamp"),
        ("2024-01-15", "is not an RFC 3339 timestamp"),
        ("2024-01-15T10:30:00", "is not an RFC 3339 timestamp"),
        ("2024-01-15 10:30:00Z", "is not an RFC 3339 timestamp"),
        ("2024-01-15T10:30Z", "is not an RFC 3339 timestamp"),
        ("20240115T103000Z", "is not an RFC 3339 timestamp"),
        ("2024-W03-1T10:30:00Z", "is not an RFC 3339 timestamp"),
        ("2024-01-15T10:30:00,5Z", "is not an RFC 3339 timestamp"),
        ("2024-01-15T10:30:00.Z", "is not an RFC 3339 timestamp"),
        ("2024-01-15T10:30:00+0100", "is not an RFC 3339 timestamp"),
        ("2024-01-15T10:30:00+10:75", "is not an RFC 3339 timestamp"),
        ("2024-01-15T10:30:00+24:00", "is not an RFC 3339 timestamp"),
        ("2024-01-15T24:00:00Z", "is not an RFC 3339 timestamp"),
        ("٢٠٢٤-01-15T10:30:00Z", "is not an RFC 3339 timestamp"),
        (" 2024-01-15T10:30:00Z", "is not an RFC 3339 timestamp"),
        ("2024-01-15T10:30:00Z\n", "is not an RFC 3339 timestamp"),
        ("1705314600", "is not an RFC 3339 timestamp"),
        ("2023-02-29T00:00:00Z", "is not a time that exists"),
        ("2024-13-01T00:00:00Z", "is not a time that exists"),
        ("2024-01-15T10:60:00Z", "is not a time that exists"),
        ("2016-12-31T23:59:61Z", "is not a time that exists"),
        ("2016-12-31T22:59:60Z", "is not a time that exists: a leap second ends a month in UTC"),
        ("2016-12-31T23:58:60Z", "is not a time that exists: a leap second"),
        ("2016-12-30T23:59:60Z", "is not a time that exists: a leap second"),
        ("2016-12-31T23:59:60+01:00", "is not a time that exists: a leap second"),
        ("2016-12-31T23:59:60.5-00:01", "is not a time that exists: a leap second"),
        ("2015-02-29T23:59:60Z", "is not a time that exists"),
        ("2016-02-28T23:59:60Z", "is not a time that exists: a leap second"),
        ("2016-12-31T23:60:60Z", "is not a time that exists"),
        ("9999-12-05T23:59:60Z", "is not a time that exists: a leap second"),
        ("9999-12-31T23:59:60Z", "is outside the years 1 to 9999"),
        ("0000-01-01T00:00:00Z", "is not a time that exists"),
        ("0001-01-01T00:00:00+00:01", "is outside the years 1 to 9999"),
        ("9999-12-31T23:59:59-00:01", "is outside the years 1 to 9999"),
    ],
)
def test_what_is_no_timestamp_is_refused_with_the_reason(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        timestamps.parse(text)


def test_the_error_quotes_no_more_than_the_beginning() -> None:
    with pytest.raises(ValueError, match="RFC 3339") as refused:
        timestamps.parse("\ud800" * 100_000)
    assert len(str(refused.value)) < 400
    assert str(refused.value).isascii()


@pytest.mark.parametrize(
    ("text", "following"),
    [
        ("2016-12-31T23:59:60Z", "2017-01-01T00:00:00Z"),
        ("2016-12-31t23:59:60z", "2017-01-01T00:00:00Z"),
        ("2015-06-30T23:59:60.999999999Z", "2015-07-01T00:00:00Z"),
        ("2017-01-01T00:59:60+01:00", "2017-01-01T00:00:00Z"),
        ("2016-12-31T15:59:60-08:00", "2017-01-01T00:00:00Z"),
        ("2017-01-01T05:29:60.25+05:30", "2017-01-01T00:00:00Z"),
        ("2016-02-29T23:59:60Z", "2016-03-01T00:00:00Z"),
        ("2015-02-28T23:59:60Z", "2015-03-01T00:00:00Z"),
    ],
)
def test_a_leap_second_is_the_first_microsecond_after_it(text: str, following: str) -> None:
    assert timestamps.parse(text) == (timestamps.parse(following)[0], LEAP_SECOND)
