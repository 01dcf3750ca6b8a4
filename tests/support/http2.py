"""HTTP/2 frames by hand (RFC 9113), for requests that no client library would send."""

import asyncio
import struct
from collections.abc import Iterable
from typing import NamedTuple, Self

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY = 0, 1, 3, 4, 6, 7
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_ACK = END_STREAM = 0x1
_END_HEADERS = 0x4
_CANCEL = struct.pack(">I", 8)


class Frame(NamedTuple):
    """A frame that the other side sent."""

    kind: int
    flags: int
    stream: int
    payload: bytes


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Return the bytes of a frame."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def headers(stream: int, fields: Iterable[tuple[str, str]], *, end: bool = False) -> bytes:
    """Return a request's header block in one frame: literals that enter no table (RFC 7541, 6.2.2), each text shorter
    than 127 bytes.
    """
    block = b"".join(b"\x00" + _text(name) + _text(value) for name, value in fields)
    return frame(HEADERS, _END_HEADERS | (END_STREAM if end else 0), stream, block)


def call_headers(stream: int, method: str, *more: tuple[str, str]) -> bytes:
    """Return the headers of a gRPC call."""
    usual = ((":method", "POST"), (":scheme", "http"), (":path", method), (":authority", "localhost"))
    return headers(stream, (*usual, ("content-type", "application/grpc"), ("te", "trailers"), *more))


def reset(stream: int) -> bytes:
    """Return the frame that cancels a call."""
    return frame(RST_STREAM, 0, stream, _CANCEL)


class Connection:
    """A connection on which the test sends every frame itself. Use as `async with`."""

    def __init__(self, host: str, port: int):
        self._address = (host, port)

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection(*self._address)
        await self.send(_PREFACE + frame(SETTINGS, 0, 0))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()

    async def send(self, frames: bytes) -> None:
        """Send frames, and return when most of them have left."""
        self._writer.write(frames)
        await self._writer.drain()

    async def receive(self) -> Frame | None:
        """Return the next frame, None if the other side has closed the connection."""
        try:
            head = await self._reader.readexactly(9)
            payload = await self._reader.readexactly(int.from_bytes(head[:3]))
        except (asyncio.IncompleteReadError, ConnectionResetError):
            return None
        return Frame(head[3], head[4], int.from_bytes(head[5:]), payload)

    async def ping(self) -> bool:
        """Whether a ping is answered before the other side says GOAWAY or closes."""
        await self.send(frame(PING, 0, 0, b"headgate"))
        while (got := await self.receive()) is not None and got.kind != GOAWAY:
            if got.kind == PING and got.flags & _ACK:
                return True
        return False


def _text(text: str) -> bytes:
    return bytes([len(text)]) + text.encode()
