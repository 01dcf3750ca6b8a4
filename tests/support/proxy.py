"""A socket between a store and PostgreSQL that loses connections at chosen moments, or goes silent."""

import asyncio
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import parse_qs, urlsplit

_SOCKET = ".s.PGSQL.5432"


class Proxy:
    """Forwards bytes both ways until a client sends a message that contains `trigger`; then it loses the connection,
    `times` times. `times` is 0 at first, so that a store can be opened.

    `moment` says when: "before" the message is forwarded, "after" the server answered it (the client never gets the
    answer), or "late": at once for the client, while the server gets the message only when another client sends
    `release`. With `deaf` no connection is accepted after the first loss. With `lingering` a connection that the server
    ended stays open for the client, which gets the server's last bytes and nothing more; `lingered` then counts it.

    `drop` makes all present connections silent for ever, without an error, like a firewall. `freeze` makes all
    connections silent, also new ones, until `thaw`, like a stopped server; with `freeze_at` this happens when a client
    sends it. `refuse` ends all connections, also new ones, until `thaw`.
    """

    def __init__(self, folder: Path, url: str, moment: str = "before", trigger: bytes = b"COMMIT\0"):
        parts = urlsplit(url)
        self.url = f"postgresql://postgres@{parts.path}?host={folder}"
        self.lost = 0
        self.deaf = False
        self.lingering = False
        self.lingered = 0
        self.release = b"FOR NO KEY UPDATE"
        self._path = folder / _SOCKET
        self._upstream = Path(parse_qs(parts.query)["host"][0]) / _SOCKET
        self._moment = moment
        self._trigger = trigger
        self.times = 0
        self.freeze_at: bytes | None = None
        self._released = asyncio.Event()
        self._thawed = asyncio.Event()
        self._thawed.set()
        self._generation = 0
        self._refusing = False
        self._clients: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_unix_server(self._accepted, self._path)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def drop(self) -> None:
        """Forward nothing any more on the present connections."""
        self._generation += 1

    def freeze(self) -> None:
        """Hold back all bytes."""
        self._thawed.clear()

    async def is_frozen(self) -> bool:
        """Whether `freeze_at` was sent."""
        return not self._thawed.is_set()

    def refuse(self) -> None:
        """End every connection at once."""
        self._refusing = True
        for client in self._clients:
            client.transport.abort()

    def thaw(self) -> None:
        """Forward all bytes again."""
        self._refusing = False
        self.freeze_at = None
        self._thawed.set()

    async def _pass(self, generation: int, writer: asyncio.StreamWriter, said: bytes) -> None:
        """Forward the bytes, when and if they may pass."""
        await self._thawed.wait()
        if generation == self._generation:
            writer.write(said)
            await writer.drain()

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:
            writer.transport.abort()
            return
        self._clients.add(writer)
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._tasks.add(task)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream = None
        try:
            if self.deaf and self.lost:
                return
            server, upstream = await asyncio.open_unix_connection(self._upstream)
            answers = asyncio.ensure_future(self._answer(server, writer))
            try:
                await self._forward(reader, writer, server, upstream, answers)
            finally:
                answers.cancel()
        except ConnectionError:
            pass
        finally:
            self._clients.discard(writer)
            ends = [end for end in (writer, upstream) if end is not None]
            for end in ends:
                end.close()
            for end in ends:
                with suppress(ConnectionError):
                    await end.wait_closed()

    async def _forward(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        server: asyncio.StreamReader,
        upstream: asyncio.StreamWriter,
        answers: "asyncio.Future[None]",
    ) -> None:
        generation = self._generation
        while said := await reader.read(65536):
            if self.freeze_at is not None and self.freeze_at in said:
                self.freeze()
            if self.lost and self.release in said:
                self._released.set()
            if self._trigger not in said or self.lost >= self.times:
                await self._pass(generation, upstream, said)
                continue
            self.lost += 1
            if self._moment == "before":
                return
            answers.cancel()
            await asyncio.gather(answers, return_exceptions=True)
            if self._moment == "late":
                writer.close()
                await self._released.wait()
            upstream.write(said)
            await upstream.drain()
            await server.read(65536)
            return

    async def _answer(self, server: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        generation = self._generation
        with suppress(ConnectionError):
            while said := await server.read(65536):
                await self._pass(generation, writer, said)
            if self.lingering:
                self.lingered += 1
            else:
                writer.close()
