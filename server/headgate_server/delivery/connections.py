"""The connections to one receiver. They are kept between requests.

httpcore's pool serves many origins. At each request it examines all connections several times, which takes a third of
the request's time. Here all connections are alike, so a request takes the newest idle one.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import httpcore


class Connections:
    """Sends requests to one URL. Used on one event loop only."""

    def __init__(
        self,
        url: httpcore.URL,
        *,
        most: int,
        keep_seconds: float,
        tls: ssl.SSLContext,
        backend: httpcore.AsyncNetworkBackend,
    ):
        """At most `most` connections are open; a further request waits. An idle connection is not used after
        `keep_seconds`.
        """
        self._url = url
        self._keep_seconds = keep_seconds
        self._tls = tls
        self._backend = backend
        self._slots = asyncio.Semaphore(most)
        self._idle: list[httpcore.AsyncHTTPConnection] = []
        self._keeps = True

    @asynccontextmanager
    async def post(self, headers: Sequence[tuple[str, str]], body: bytes) -> AsyncIterator[httpcore.Response]:
        """Send a POST request, and yield the response before its body is read. If the body is not read to its end, the
        connection is closed after the block. Raises httpcore's errors.
        """
        async with self._slots:
            connection = await self._connection()
            try:
                async with connection.stream("POST", self._url, headers=headers, content=body) as response:
                    yield response
            finally:
                if not connection.is_closed():
                    await self._return(connection)

    async def close(self) -> None:
        """Keep no connection any more. A request that still ends closes its own. No request follows."""
        self._keeps = False
        await self.close_idle()

    async def close_idle(self) -> None:
        """Close the idle connections."""
        idle, self._idle = self._idle, []
        for connection in idle:
            await connection.aclose()

    async def _connection(self) -> httpcore.AsyncHTTPConnection:
        while self._idle:
            connection = self._idle.pop()
            if not connection.has_expired():
                return connection
            await connection.aclose()
        return httpcore.AsyncHTTPConnection(
            self._url.origin,
            ssl_context=self._tls,
            keepalive_expiry=self._keep_seconds,
            network_backend=self._backend,
        )

    async def _return(self, connection: httpcore.AsyncHTTPConnection) -> None:
        if self._keeps and connection.is_idle():
            self._idle.append(connection)
        else:
            await connection.aclose()
