"""Callers over HTTP/1.1, as lean as Python allows: the twin of `driver` for Envoy and for the peer.

`HEADGATE_KEYS=hg_...,hg_... python -m bench.http_driver PORT PATH`, a contender: requests are written beforehand, head
and all, one connection for each call in progress. A PATH that ends in "batch" takes batches, any other single events,
and those all fresh: what is to be sent again is stored in batches.
"""

import asyncio
import sys
from collections import deque
from collections.abc import Sequence
from typing import cast

import httptools

from bench import driving
from bench.calls import Call
from bench.lockstep import Assignment, Work, contend
from bench.loops import Refused, Send
from bench.wires import JsonBatch, JsonSingle, Wire

_TOO_MANY_REQUESTS = 429


class _Connection(asyncio.Protocol):
    """One connection, and at most one request on it."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[tuple[int, str, bytes]] | None = None
        self._next_answer()

    def _next_answer(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._body: list[bytes] = []
        self._retry_after = "1"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called when the connection is there."""
        # No isinstance: uvloop's transports do what asyncio.Transport says without being one.
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Called when the connection is gone."""
        self._transport = None
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or ConnectionError("the server closed the connection"))

    def data_received(self, data: bytes) -> None:
        """Called with what comes in."""
        self._parser.feed_data(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by the parser."""
        if name.lower() == b"retry-after":
            self._retry_after = value.decode()

    def on_body(self, body: bytes) -> None:
        """Called by the parser."""
        self._body.append(body)

    def on_message_complete(self) -> None:
        """Called by the parser."""
        assert self._answer is not None
        self._answer.set_result((self._parser.get_status_code(), self._retry_after, b"".join(self._body)))

    @property
    def is_open(self) -> bool:
        """Whether a request may be sent. Servers close connections that have nothing to do for some seconds."""
        return self._transport is not None

    async def call(self, request: bytes) -> tuple[int, str, bytes]:
        """Send a request; return status, Retry-After and body of its answer."""
        assert self._transport is not None
        self._next_answer()
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer


class _HttpClient:
    """Connections to one port; as many as there are calls in progress."""

    def __init__(self, port: int, path: str, keys: Sequence[str]):
        self._port = port
        self._idle: deque[_Connection] = deque()
        self._heads = [
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nX-Api-Key: {key}\r\n"
            "Content-Type: application/json\r\nContent-Length: ".encode()
            for key in keys
        ]
        self._is_batch = path.endswith("batch")

    def wire(self, single: bool) -> Wire:
        """Return the encoding of calls of one event, or of batches."""
        return JsonBatch() if self._is_batch else JsonSingle()

    def senders(self, single: bool) -> Sequence[Send]:
        """Return what makes calls: one, for the port is Envoy's, or shared by the peer's processes."""
        return [self._send]

    async def _send(self, call: Call) -> bytes:
        connection = await self._connection()
        request = b"%b%d\r\n\r\n%b" % (self._heads[call.workspace], len(call.body), call.body)
        status, retry_after, body = await connection.call(request)
        self._idle.append(connection)
        if status == _TOO_MANY_REQUESTS:
            raise Refused(float(retry_after))
        if status != 200:
            raise RuntimeError(f"a call was answered with {status}: {body[:200]!r}")
        return body

    async def _connection(self) -> _Connection:
        while self._idle:
            connection = self._idle.popleft()
            if connection.is_open:
                return connection
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(_Connection, "127.0.0.1", self._port)
        return connection


def main() -> None:
    """Be the contender."""
    client = _HttpClient(int(sys.argv[1]), sys.argv[2], driving.keys())

    async def prepare(assignment: Assignment) -> Work:
        return await driving.prepare(assignment, client)

    contend(prepare)


if __name__ == "__main__":
    main()
