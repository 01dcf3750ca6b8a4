"""Gzip bodies, inflated whole or not at all. Pure."""

import zlib
from collections.abc import Callable

from headgate_server.core.errors import BodyTooLarge, InvalidRequest
from headgate_server.core.reasons import Reason

_GZIP = 16 + zlib.MAX_WBITS
_SLICE = 64 * 1024
"""Bytes that the inflater is fed at once: what it leaves of a member's last slice is copied, so it must be little.
"""
_PIECE = 1024 * 1024
"""Bytes that are made at once, and are not counted yet."""
_MAX_MEMBERS = 1_000
"""Members of one body. Senders write one; each costs an inflater, and an empty one takes 20 bytes."""


def check_size(size: int, limit: int) -> None:
    """Raise `BodyTooLarge` for a body of more bytes than are taken at once."""
    if size > limit:
        raise BodyTooLarge(f"The body has {size} bytes, more than the {limit} that are taken at once.")


def gunzip(body: bytes, limit: int, hold: Callable[[int], None] = lambda size: None) -> bytes:
    """Return what a gzip body (RFC 1952, one or more members) holds; no more than `limit` bytes are ever made of it.
    `hold` is told how many there are so far, as they become more, and ends it with what it raises.

    Raises `InvalidRequest` if it is corrupt, cut off, followed by something else or of too many members, and
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
    """Append what the member that begins at `at` holds, and return where it ends."""
    member = zlib.decompressobj(_GZIP)
    while not member.eof:
        fed = view[at : at + _SLICE]
        if not fed:
            raise _corrupt("it is cut off")
        try:
            inflated += member.decompress(fed, min(_PIECE, limit + 1 - len(inflated)))
        except zlib.error:
            raise _corrupt("it is corrupt") from None
        if len(inflated) > limit:
            raise BodyTooLarge(f"The body inflates to more than the {limit} bytes that are taken at once.")
        hold(len(inflated))
        at += len(fed) - len(member.unused_data) - len(member.unconsumed_tail)
    return at


def _corrupt(why: str) -> InvalidRequest:
    return InvalidRequest(f"The body is not gzip, as its content-encoding says: {why}.", reason=Reason.CORRUPT_GZIP)
