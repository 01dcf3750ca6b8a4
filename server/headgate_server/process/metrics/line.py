"""The line between a worker and its parent, over which the parent reads the worker's metrics.

It is a pair of connected sockets that the parent makes before it starts the worker. The parent sends an end of line;
the worker answers with one line of JSON. The worker answers on a thread, so an event loop that is busy does not delay
it.
"""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable

import orjson

from headgate_server.process.metrics.cells import Snapshot, packed, unpacked

_MOST_BYTES = 16 * 1024 * 1024
"""The longest answer. A snapshot has some ten kilobytes."""


def answer(descriptor: int, read: Callable[[], Snapshot]) -> None:
    """Answer the parent's questions with what `read` returns, until the parent closes the line. Returns at once."""
    own = socket.socket(fileno=descriptor)
    own.setblocking(True)
    own.set_inheritable(False)
    threading.Thread(target=_answer, args=(own, read), name="headgate-metrics", daemon=True).start()


def _answer(own: socket.socket, read: Callable[[], Snapshot]) -> None:
    with contextlib.suppress(OSError), own, own.makefile("rb") as questions:
        for _ in questions:
            own.sendall(orjson.dumps(packed(read())) + b"\n")


class Line:
    """The parent's end. Use `descriptor` for the worker, and call `sent` when the worker has it."""

    def __init__(self) -> None:
        self._own, self._workers = socket.socketpair()
        self._own.setblocking(False)
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    @property
    def descriptor(self) -> int:
        """The worker's end."""
        return self._workers.fileno()

    def sent(self) -> None:
        """Close the worker's end in this process."""
        self._workers.close()

    async def read(self) -> Snapshot | None:
        """Return the worker's values, None if it has ended. Call it again only when it has returned.

        After a cancelled call the line cannot be used any more.
        """
        try:
            if self._streams is None:
                self._streams = await asyncio.open_connection(sock=self._own, limit=_MOST_BYTES)
            reader, writer = self._streams
            writer.write(b"\n")
            line = await reader.readline()
            return unpacked(orjson.loads(line)) if line.endswith(b"\n") else None
        except (OSError, ValueError):
            return None

    def close(self) -> None:
        """Close both ends."""
        self._workers.close()
        if self._streams is None:
            self._own.close()
        else:
            self._streams[1].close()
