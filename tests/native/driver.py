"""What asyncpg sends when it copies rows of `events`, with the compiled core and with its own encoders.

asyncpg talks to a socket that answers as PostgreSQL does and keeps what was copied, so that many thousand rows can be
compared. Tests on the stores hold both to a real PostgreSQL.
"""

import asyncio
import struct
import tempfile
from asyncio import StreamReader, StreamWriter
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import asyncpg

from headgate_server.core import compiled
from headgate_server.core.model import StoredEvent
from headgate_server.store.postgres.append import copy_events
from tests.native import twins

TYPES = {
    **dict.fromkeys(("workspace_id", "sequence", "created_at", "occurred_at"), "bigint"),
    **dict.fromkeys(("receiver", "type", "source", "subject", "scope", "key"), "text"),
    **dict.fromkeys(("data", "dedupe", "salt", "commitment", "event_hash", "attributes"), "bytea"),
    "id": "uuid",
}
"""The type of each column of `events`. A test on a real PostgreSQL holds them to the table's."""
_NUMBERS = {"bigint": 20, "text": 25, "bytea": 17, "uuid": 2950}


def _message(kind: bytes, *content: bytes) -> bytes:
    body = b"".join(content)
    return kind + struct.pack("!i", 4 + len(body)) + body


_CANCEL = struct.pack("!i", 80877102)
_IDLE = _message(b"Z", b"I")
_LOGGED_IN = (
    _message(b"R", bytes(4))
    + _message(b"S", b"client_encoding\0UTF8\0")
    + _message(b"S", b"server_version\x0018.0\0")
    + _message(b"K", bytes(8))
    + _IDLE
)
_COLUMNS = [
    name.encode() + b"\0" + struct.pack("!ihihih", 0, 0, _NUMBERS[TYPES[name]], -1, -1, 1)
    for name in StoredEvent._fields
]
_ANSWERS = {
    b"D": _message(b"1") + _message(b"t", bytes(2)) + _message(b"T", struct.pack("!h", len(_COLUMNS)), *_COLUMNS),
    b"Q": _message(b"G", struct.pack("!bh", 1, len(_COLUMNS)), struct.pack("!h", 1) * len(_COLUMNS)),
    b"c": _message(b"C", b"COPY 1\0") + _IDLE,
    b"f": _message(b"E", b"SERROR\0VERROR\0C57014\0Mthe client gave up\0\0") + _IDLE,
}


class Driver:
    """A connection of asyncpg to a database that keeps only what is copied."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._folder = tempfile.TemporaryDirectory(prefix="hg-")
        self._copied: list[bytes] = []
        self._connection: Any = self._runner.run(self._connect())

    def close(self) -> None:
        """End the connection."""
        self._runner.run(self._end())
        self._runner.close()
        self._folder.cleanup()

    async def _connect(self) -> Any:
        path = Path(self._folder.name) / ".s.PGSQL.5432"
        self._server = await asyncio.start_unix_server(self._serve, path, limit=1 << 24)
        return await self._connected()

    async def _connected(self) -> Any:
        return await asyncpg.connect(host=self._folder.name, port=5432, user="u", database="d", password="p")

    async def _end(self) -> None:
        await self._connection.close()
        self._server.close()
        if others := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(others, timeout=5)

    async def _serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        with closing(writer), suppress(asyncio.IncompleteReadError, ConnectionError):
            # asyncpg may give a connection up in the middle of a message.
            size = int.from_bytes(await reader.readexactly(4)) - 4
            if not (await reader.readexactly(size)).startswith(_CANCEL):
                writer.write(_LOGGED_IN)
                await self._answer(reader, writer)

    async def _answer(self, reader: StreamReader, writer: StreamWriter) -> None:
        while (head := await reader.read(1)) not in (b"", b"X"):
            size = int.from_bytes(await reader.readexactly(4)) - 4
            content = await reader.readexactly(size)
            if head == b"Q":
                self._copied.clear()  # what a copy sent before it was refused may still have been on its way
            elif head == b"d":
                self._copied.append(content)
            writer.write(_ANSWERS.get(head, b""))

    def given_up(self, sent: bytes) -> list[BaseException | None]:
        """Give a connection up after these bytes. Return how what served it ended."""
        return self._runner.run(self._given_up(sent))

    async def _given_up(self, sent: bytes) -> list[BaseException | None]:
        before = asyncio.all_tasks()
        async with asyncio.timeout(30):
            _, writer = await asyncio.open_unix_connection(f"{self._folder.name}/.s.PGSQL.5432")
            while not (serving := asyncio.all_tasks() - before):  # noqa: ASYNC110 - the server begins it by itself
                await asyncio.sleep(0)
            writer.write(sent)
            writer.close()
            await asyncio.wait(serving)
        return [task.exception() for task in serving]

    def sent(self, rows: Sequence[StoredEvent], core: Any) -> bytes | str:
        """Return what is sent for these rows with a core, or without one; the error's class if they are refused."""
        with compiled.using(core):
            try:
                self._runner.run(copy_events(self._connection, rows))
            except Exception as error:
                # A new connection: asyncpg cancels a copy that it gives up, and may wait for that for ever here.
                self._connection.terminate()
                self._connection = self._runner.run(self._connected())
                return type(error).__name__
        return b"".join(self._copied)

    def compare(self, rows: Sequence[StoredEvent]) -> bool:
        """Compare what both send. Return whether the core wrote the rows. Raises `twins.Different`."""
        before = compiled.failures
        ours, theirs = self.sent(rows, twins.FOUND.core), self.sent(rows, None)
        if ours != theirs:
            raise twins.Different(f"compiled: {ours!r}\nPython:   {theirs!r}")
        if compiled.failures != before:
            raise twins.Different("the compiled core failed")
        return twins.FOUND.core is not None and twins.FOUND.core.copy_rows(rows) is not None
