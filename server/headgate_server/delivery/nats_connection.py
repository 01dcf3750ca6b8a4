"""The connection to NATS that all JetStream destinations of a process share."""

import asyncio
import json
import ssl
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext

from headgate_server.process.setting import path_of, setting

_CONNECT_SECONDS = 5
_CLOSE_SECONDS = 0.5
_PENDING_BYTES = 256 * 1024 * 1024
"""More than is ever under way (`jetstream.py` bounds that): at this size the client would wait in a way that swallows a
cancellation.
"""
_NO_STREAM = "503"


def urls_of(text: str) -> str:
    """Return the URLs of NATS servers, separated by commas. Raises `ValueError` with a sentence that does not quote
    them, since they may hold a password.
    """
    for url in text.split(","):
        parts = urlsplit(url.strip())
        if parts.scheme not in ("nats", "tls") or not parts.hostname:
            raise ValueError("a NATS URL looks like nats://host:4222 or tls://host:4222")
    return text


@dataclass(frozen=True, slots=True, kw_only=True)
class NatsConfig:
    """Where NATS is. It is the operator's to say; a workspace names only a stream."""

    url: str | None = setting(
        None,
        "nats-url",
        "nats://host:4222, or tls://; several servers of one cluster are separated by commas. Without it there are no "
        "JetStream destinations.",
        metavar="URL",
        read=urls_of,
        secret=True,
    )
    credentials: Path | None = setting(
        None, "nats-credentials", "A credentials file (.creds) for NATS.", metavar="FILE", read=path_of
    )
    ca: Path | None = setting(
        None,
        "nats-ca",
        "Certificate authorities for NATS, as PEM. Without it: the machine's own.",
        metavar="FILE",
        read=path_of,
    )


class NotConnected(Exception):
    """There is no connection to NATS, for the reason that the message says."""


class Ack(NamedTuple):
    """What JetStream says to a published message."""

    sequence: int = 0
    duplicate: bool = False
    """The stream had a message of this id already."""
    error: str = ""
    """Why the message is not stored; empty: it is."""
    code: int = 0
    """JetStream's number for the error."""


class Connection:
    """One connection, from its beginning to its loss. It is never restored: what was under way when it was lost has no
    confirmation, and whoever publishes must look where the stream ends before going on.
    """

    def __init__(self, client: Client):
        self._client = client
        self.stream = JetStreamContext(client, timeout=_CONNECT_SECONDS)
        self._inbox = client.new_inbox()
        self._number = count()
        self._waiting: dict[str, asyncio.Future[Ack]] = {}
        self.complaint = ""
        """What the server said last of its own accord: that it forbids a subject, for example."""

    @property
    def is_open(self) -> bool:
        """Whether it can be used."""
        return self._client.is_connected

    @property
    def largest(self) -> int:
        """The most bytes of a message, headers and body."""
        return self._client.max_payload

    async def complained(self, error: Exception) -> None:
        """Remember what the server said, or what came between."""
        self.complaint = str(error)

    async def listen(self) -> None:
        """Begin to take confirmations."""
        await self._client.subscribe(f"{self._inbox}.*", cb=self._confirmed)

    async def publish(self, subject: str, body: bytes, headers: Mapping[str, str]) -> asyncio.Future[Ack]:
        """Send a message, and return what becomes JetStream's answer. The answer may be an error, and says so too if
        the connection is lost before it comes.
        """
        token = str(next(self._number))
        future: asyncio.Future[Ack] = asyncio.get_running_loop().create_future()
        self._waiting[token] = future
        future.add_done_callback(lambda _: self._waiting.pop(token, None))
        await self._client.publish(subject, body, reply=f"{self._inbox}.{token}", headers=dict(headers))
        return future

    async def close(self) -> None:
        """Close the connection."""
        await _closed(self._client)
        await self.lost()

    async def lost(self) -> None:
        """Answer everything that waits: no confirmation will come."""
        for future in list(self._waiting.values()):
            if not future.done():
                future.set_result(Ack(error="the connection to NATS was lost"))

    async def _confirmed(self, message: Msg) -> None:
        future = self._waiting.get(message.subject.rpartition(".")[2])
        if future is not None and not future.done():
            future.set_result(_ack(message))


async def _closed(client: Client) -> None:
    """Close a client. After a failed TLS handshake it waits for a transport that never says that it is closed."""
    with suppress(Exception):
        async with asyncio.timeout(_CLOSE_SECONDS):
            await client.close()


def _ack(message: Msg) -> Ack:
    if (message.headers or {}).get("Status") == _NO_STREAM:
        return Ack(error="no stream takes the subject")
    try:
        said = json.loads(message.data)
        if "error" in said:
            return Ack(error=str(said["error"].get("description", "")), code=int(said["error"].get("err_code", 0)))
        return Ack(int(said["seq"]), bool(said.get("duplicate", False)))
    except (ValueError, KeyError, TypeError, AttributeError):
        return Ack(error="JetStream's answer cannot be read")


class Nats:
    """Connects when it is first needed, and again after a loss. Lives on one event loop."""

    def __init__(self, config: NatsConfig):
        self._config = config
        self._connection: Connection | None = None
        self._connecting = asyncio.Lock()

    async def connection(self) -> Connection:
        """Return a connection that is open. Raises `NotConnected`."""
        async with self._connecting:
            if self._connection is None or not self._connection.is_open:
                self._connection = await self._connect()
            return self._connection

    async def close(self) -> None:
        """Close the connection, if there is one."""
        if self._connection is not None:
            await self._connection.close()

    def complaint(self) -> str:
        """Return, once, what the server last said of its own accord on this connection; empty: nothing."""
        if self._connection is None:
            return ""
        said, self._connection.complaint = self._connection.complaint, ""
        return said

    async def _connect(self) -> Connection:
        if self._config.url is None:
            raise NotConnected("the service has no --nats-url")
        client = Client()
        connection = Connection(client)
        try:
            async with asyncio.timeout(2 * _CONNECT_SECONDS):
                await client.connect(self._config.url.split(","), **self._options(connection))
                await connection.listen()
        except BaseException as error:
            await _closed(client)
            if not isinstance(error, nats.errors.Error | OSError | ValueError):
                raise
            raise NotConnected(f"no connection to NATS: {connection.complaint or error}") from error
        return connection

    def _options(self, connection: Connection) -> dict[str, Any]:
        config = self._config
        return {
            "name": "headgate",
            "error_cb": connection.complained,
            "closed_cb": connection.lost,
            # A connection that the client restores would send old messages after new ones were planned.
            "allow_reconnect": False,
            "max_reconnect_attempts": 1,
            "reconnect_time_wait": 0,
            "connect_timeout": _CONNECT_SECONDS,
            "pending_size": _PENDING_BYTES,
            "user_credentials": None if config.credentials is None else str(config.credentials),
            "tls": None if config.ca is None else ssl.create_default_context(cafile=config.ca),
        }
