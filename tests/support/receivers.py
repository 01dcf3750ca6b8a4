"""Receivers of webhooks on loopback: real servers that answer correctly, wrongly, slowly or never."""

import asyncio
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field

_LINE = 64 * 1024


@dataclass(frozen=True, slots=True)
class Received:
    """A received request."""

    line: str
    headers: dict[str, str]
    """By name in lower case."""
    body: bytes
    is_over: Callable[[], bool]
    """Whether the sender has closed the connection."""


Answer = Callable[[Received, asyncio.StreamWriter], Awaitable[None]]
"""Answers a request. The connection stays open unless it closes the writer."""


@dataclass(slots=True)
class Receiver:
    """A server, its requests, and its answers."""

    answer: Answer
    port: int = 0
    requests: list[Received] = field(default_factory=list)
    connections: int = 0
    """The number of accepted connections."""
    open: int = 0
    """The number of open connections."""
    most_open: int = 0
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a request was received."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        self.connections += 1
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            while (request := await _read(reader)) is not None and not writer.is_closing():
                self.requests.append(request)
                self.arrived.set()
                await self.answer(request, writer)
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            pass
        finally:
            self.open -= 1
            writer.close()
            with suppress(ConnectionError, ssl.SSLError):
                await writer.wait_closed()


async def _read(reader: asyncio.StreamReader) -> Received | None:
    line = await reader.readline()
    if not line:
        return None
    headers: dict[str, str] = {}
    while (header := await reader.readline()) not in (b"\r\n", b""):
        name, _, value = header.decode("latin-1").partition(":")
        headers[name.lower()] = value.strip()
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Received(line.decode().rstrip(), headers, body, reader.at_eof)


@asynccontextmanager
async def receiver(
    answer: Answer, *, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None
) -> AsyncIterator[Receiver]:
    """Run a receiver on a free port."""
    one = Receiver(answer)
    running: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        running.add(task)
        try:
            await one.serve(reader, writer)
        except asyncio.CancelledError:
            writer.close()
        finally:
            running.discard(task)

    server = await asyncio.start_server(serve, host, 0, ssl=tls, limit=_LINE)
    one.port = server.sockets[0].getsockname()[1]
    try:
        yield one
    finally:
        server.close()
        for task in list(running):
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


def answers(status: int = 200, body: bytes = b"", **headers: str) -> Answer:
    """Answer with a status, a body and headers (`retry_after` is `Retry-After`)."""
    lines = [f"HTTP/1.1 {status} x", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return says("\r\n".join([*lines, "", ""]).encode() + body)


def says(raw: bytes, *, then_close: bool = False) -> Answer:
    """Answer with these bytes. They need not be HTTP."""

    async def answer(request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(raw)
        await writer.drain()
        if then_close:
            writer.close()

    return answer


async def hangs(request: Received, writer: asyncio.StreamWriter) -> None:
    """Do not answer, until the sender closes the connection."""
    while not request.is_over():  # noqa: ASYNC110 - only the reader of a stream learns of its end
        await asyncio.sleep(0.01)


def trickles(before: bytes, byte: bytes = b"x", every: float = 0.01) -> Answer:
    """Answer with some bytes at once, and then a byte at a time for ever."""

    async def answer(request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(before)
        while True:
            writer.write(byte)
            await writer.drain()
            await asyncio.sleep(every)

    return answer


def floods(size: int) -> Answer:
    """Answer 500 with a body of so many bytes, as fast as they are read."""

    async def answer(request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 500 x\r\nContent-Length: {size}\r\n\r\n".encode())
        for _ in range(0, size, 65_536):
            writer.write(b"x" * 65_536)
            await writer.drain()

    return answer


@contextmanager
def beside(answer: Answer) -> Iterator[Receiver]:
    """Run a receiver in a thread of its own, for tests that block."""
    ready: Future[Receiver] = Future()
    over = threading.Event()

    async def run() -> None:
        async with receiver(answer) as one:
            ready.set_result(one)
            await asyncio.to_thread(over.wait)

    thread = threading.Thread(target=asyncio.run, args=(run(),))
    thread.start()
    try:
        yield ready.result(20)
    finally:
        over.set()
        thread.join()
