"""Gzip bodies, inflated whole or not at all. Pure."""

import zlib

from headgate_server.errors import BodyTooLarge, InvalidRequest

_GZIP = 16 + zlib.MAX_WBITS


def check_size(size: int, limit: int) -> None:
    """Raise `BodyTooLarge` for a body of more bytes than are taken at once."""
    if size > limit:
        raise BodyTooLarge(f"The body has {size} bytes, more than the {limit} that are taken at once.")


def gunzip(body: bytes, limit: int) -> bytes:
    """Return what a gzip body (RFC 1952, one or more members) holds; no more than `limit` bytes are ever made of it.

    Raises `InvalidRequest` if it is corrupt, cut off, or followed by something else, and `BodyTooLarge` past the
    limit.
    """
    inflated = b""
    rest = body
    while rest:
        member = zlib.decompressobj(_GZIP)
        try:
            inflated += member.decompress(rest, limit + 1 - len(inflated))
        except zlib.error:
            raise _corrupt("it is corrupt") from None
        if len(inflated) > limit:
            raise BodyTooLarge(f"The body inflates to more than the {limit} bytes that are taken at once.")
        if not member.eof:
            raise _corrupt("it is cut off")
        rest = member.unused_data
    return inflated


def _corrupt(why: str) -> InvalidRequest:
    return InvalidRequest(f"The body is not gzip, as its content-encoding says: {why}.", reason="CORRUPT_GZIP")
