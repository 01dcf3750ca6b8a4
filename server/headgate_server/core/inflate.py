"""Decompresses gzip bodies, completely or not at all. Pure."""

import zlib
from collections.abc import Callable

from headgate_server.core.errors import BodyTooLarge, InvalidRequest
from headgate_server.core.reasons import Reason

_GZIP = 16 + zlib.MAX_WBITS
_SLICE = 64 * 1024
"""Bytes that are given to zlib at once. zlib copies what it does not use of a member's last slice, so slices are small.
"""
_PIECE = 1024 * 1024
"""Bytes that zlib makes at once, before they are counted."""
_MAX_MEMBERS = 1_000
"""Members of one body. Senders write one. Each costs a decompressor, though an empty one has only 20 bytes."""


def check_size(size: int, limit: int) -> None:
    """Raise `BodyTooLarge` if a body has more bytes than the limit."""
    if size > limit:
        raise BodyTooLarge(f"The body has {size} bytes, more than the limit of {limit}.")


def gunzip(body: bytes, limit: int, hold: Callable[[int], None] = lambda size: None) -> bytes:
    """Return the content of a gzip body (RFC 1952, one or more members). It never makes more than `limit` bytes.
    `hold` is called with the number of bytes so far whenever it grows; if it raises, decompression ends.

    Raises `InvalidRequest` if the body is corrupt, cut off, followed by other bytes or has too many members, and
    `BodyTooLarge` past the limit.
    """
    inflated = bytearray()
    view = memoryview(body)
    at = 0
    for _ in range(_MAX_MEMBERS):
        if at == len(body):
            return bytes(inflated)
        at = _inflate_member(view, at, inflated, limit, hold)
    raise _corrupt(f"it has more than {_MAX_MEMBERS} members")


def _inflate_member(view: memoryview, at: int, inflated: bytearray, limit: int, hold: Callable[[int], None]) -> int:
    """Append the content of the member that begins at `at`, and return the position of its end."""
    member = zlib.decompressobj(_GZIP)
    while not member.eof:
        chunk = view[at : at + _SLICE]
        if not chunk:
            raise _corrupt("it is cut off")
        try:
            inflated += member.decompress(chunk, min(_PIECE, limit + 1 - len(inflated)))
        except zlib.error:
            raise _corrupt("it is corrupt") from None
        if len(inflated) > limit:
            raise BodyTooLarge(f"The decompressed body has more bytes than the limit of {limit}.")
        hold(len(inflated))
        at += len(chunk) - len(member.unused_data) - len(member.unconsumed_tail)
    return at


def _corrupt(why: str) -> InvalidRequest:
    return InvalidRequest(f"The body is not gzip, as its content-encoding says: {why}.", reason=Reason.CORRUPT_GZIP)
