"""The HTTP endpoint from which Prometheus reads the metrics.

h11 reads the requests. Each connection gets one answer within a bounded time, and few may be open, so a reader that is
slow or sends nothing keeps nothing but its own connection.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from http import HTTPStatus

import h11
import structlog

from headgate_server.core.errors import SetupError
from headgate_server.process.metrics.text import CONTENT_TYPE
from headgate_server.process.ports import shown

log = structlog.get_logger(__name__)

PATH = "/metrics"

_MOST_CONNECTIONS = 16
"""Prometheus opens one; several may scrape, and someone may look at the page."""
_REQUEST_SECONDS = 5.0
"""The time for a request to arrive."""
_ANSWER_SECONDS = 10.0
"""The time to make the answer and for its reader to take it: Prometheus waits as long."""
_LARGEST_REQUEST = 16 * 1024

Make = Callable[[], Awaitable[bytes]]


@contextlib.asynccontextmanager
async def serving(host: str, port: int, make: Make) -> AsyncIterator[int]:
    """Answer `GET /metrics` with what `make` returns, until the block ends. Yields the port.

    Raises `SetupError` if the port is taken.
    """
    endpoint = _Endpoint(make)
    try:
        server = await asyncio.start_server(endpoint.connected, host, port, limit=_LARGEST_REQUEST)
    except OSError as error:
        raise SetupError(f"cannot serve metrics on {shown(host, port)}: {error.strerror or error}") from None
    try:
        number = int(server.sockets[0].getsockname()[1])
        log.info("metrics_served", host=host, port=number)
        yield number
    finally:
        server.close()
        await endpoint.close()


class _Endpoint:
    def __init__(self, make: Make):
        self._make = make
        self._open: set[asyncio.Task[None]] = set()

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection. Past the bound on connections it is closed at once."""
        task = asyncio.current_task()
        if len(self._open) >= _MOST_CONNECTIONS or task is None:
            writer.close()
            return
        self._open.add(task)
        try:
            await self._converse(reader, writer)
        except (OSError, TimeoutError, h11.LocalProtocolError):
            pass  # the reader is gone, or too slow
        except Exception as error:
            log.error("scrape_failed", error=type(error).__name__, exc_info=error)
        finally:
            self._open.discard(task)
            writer.transport.abort()  # what the reader has not taken in time is dropped

    async def close(self) -> None:
        """End all connections."""
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=_LARGEST_REQUEST)
        try:
            async with asyncio.timeout(_REQUEST_SECONDS):
                request = await _request(connection, reader)
        except h11.RemoteProtocolError as error:
            await _send(connection, writer, error.error_status_hint, b"The request cannot be read.\n")
            return
        if request is None:
            return
        await self._reply(connection, reader, writer, request)

    async def _reply(
        self,
        connection: h11.Connection,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        request: h11.Request,
    ) -> None:
        async with asyncio.timeout(_ANSWER_SECONDS):
            status, body, headers = await self._answer(request)
            await _send(connection, writer, status, body, headers, head=request.method == b"HEAD")
            writer.write_eof()
            # Unread bytes of a body would reset the connection at its end, and that may destroy the answer.
            while await reader.read(_LARGEST_REQUEST):
                pass

    async def _answer(self, request: h11.Request) -> tuple[int, bytes, list[tuple[str, str]]]:
        path = request.target.partition(b"?")[0].decode("latin-1")
        if path != PATH:
            return 404, f"The metrics are at {PATH}.\n".encode(), []
        if request.method not in (b"GET", b"HEAD"):
            return 405, b"Use GET.\n", [("Allow", "GET, HEAD")]
        return 200, await self._make(), [("Content-Type", CONTENT_TYPE)]


async def _request(connection: h11.Connection, reader: asyncio.StreamReader) -> h11.Request | None:
    """Return the head of a request, None if there is none. A body is not read."""
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Request):
            return event
        if event is not h11.NEED_DATA:
            return None
        connection.receive_data(await reader.read(_LARGEST_REQUEST))


async def _send(
    connection: h11.Connection,
    writer: asyncio.StreamWriter,
    status: int,
    body: bytes,
    headers: list[tuple[str, str]] | None = None,
    *,
    head: bool = False,
) -> None:
    """Send an answer and wait until its reader has taken it."""
    all_headers = [
        *(headers or []),
        *([] if headers else [("Content-Type", "text/plain; charset=utf-8")]),
        ("Content-Length", str(len(body))),
        ("Connection", "close"),
    ]
    parts = [
        connection.send(
            h11.Response(status_code=status, reason=HTTPStatus(status).phrase.encode(), headers=all_headers)
        )
    ]
    if not head:
        parts.append(connection.send(h11.Data(data=body)))
    parts.append(connection.send(h11.EndOfMessage()))
    writer.transport.set_write_buffer_limits(0)  # `drain` returns when the kernel has all bytes
    writer.write(b"".join(part for part in parts if part))
    await writer.drain()
