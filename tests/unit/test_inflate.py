"""Gzip bodies are decompressed completely or not at all, and never beyond the limit."""

import gzip

import pytest

from headgate_server.core.errors import BodyTooLarge, InvalidRequest, Overloaded
from headgate_server.core.inflate import gunzip

TEXT = b"an event " * 50_000


def test_a_body_is_inflated_whole() -> None:
    assert gunzip(gzip.compress(TEXT), len(TEXT)) == TEXT
    assert gunzip(gzip.compress(b""), 10) == b""
    assert gunzip(gzip.compress(b"one ") + gzip.compress(TEXT), len(TEXT) + 4) == b"one " + TEXT


@pytest.mark.parametrize(
    "body",
    [
        gzip.compress(TEXT)[:-9],
        gzip.compress(TEXT)[:-1],
        gzip.compress(TEXT)[:-8] + b"\0" * 8,
        gzip.compress(TEXT) + b"and more",
        b"no gzip",
        gzip.compress(b"") * 1_001,
    ],
    ids=["cut off", "cut off by a byte", "a wrong checksum", "something behind it", "no gzip", "too many members"],
)
def test_what_is_not_gzip_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest) as refused:
        gunzip(body, 1_000_000)
    assert refused.value.reason == "CORRUPT_GZIP"


def test_no_more_is_made_than_may_be() -> None:
    with pytest.raises(BodyTooLarge):
        gunzip(gzip.compress(TEXT), len(TEXT) - 1)
    with pytest.raises(BodyTooLarge):
        gunzip(gzip.compress(b"x" * 600) * 2, 1_000)


def test_what_it_becomes_is_counted_as_it_does() -> None:
    """The decompression of ten kilobytes to ten megabytes ends at the first byte past the limit."""
    held: list[int] = []

    def hold(size: int) -> None:
        held.append(size)
        if size > 3 << 20:
            raise Overloaded("too much")

    with pytest.raises(Overloaded):
        gunzip(gzip.compress(bytes(10 << 20)), 10 << 20, hold)
    assert held == sorted(held)
    assert held[-1] <= 4 << 20
