"""The connection to NATS that all JetStream destinations of a process share."""

import asyncio
import ssl
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import nats
import orjson
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext

from headgate_server.process.setting import path_of, setting

_CONNECT_SECONDS = 5
_CLOSE_SECONDS = 0.5
_PENDING_BYTES = 256 * 1024 * 1024
"""More than is ever in progress, which `jetstream.py` bounds. At this size the client would wait, and its wait ignores
a cancellation.
"""
_NO_STREAM = "503"


def urls_of(text: str) -> str:
    """Return the URLs of NATS servers, separated by commas. Raises `ValueError` with a sentence that does not quote
    them, since they may contain a password.
    """
    for url in text.split(","):
        parts = urlsplit(url.strip())
        if parts.scheme not in ("nats", "tls") or not parts.hostname:
            raise ValueError("a NATS URL looks like nats://host:4222 or tls://host:4222")
    return text


@dataclass(frozen=True, slots=True, kw_only=True)
class NatsConfig:
    """The address of NATS. Only the operator sets it; a workspace only names a stream."""

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
        "Certificate authorities for NATS, as PEM. Without it the machine's own are used.",
        metavar="FILE",
        read=path_of,
    )


class NotConnected(Exception):
    """There is no connection to NATS. The message is the reason."""


class Ack(NamedTuple):
    """JetStream's answer to a published message."""

    sequence: int = 0
    duplicate: bool = False
    """Whether the stream already had a message with this id."""
    error: str = ""
    """Why the message is not stored; empty if it is stored."""
    code: int = 0
    """JetStream's number for the error."""


class Connection:
    """One connection to NATS. It is not restored after its loss. Messages in progress at that time have no
    confirmation, so the publisher must read the end of the stream before it continues.
    """

    def __init__(self, client: Client):
        self._client = client
        self.stream = JetStreamContext(client, timeout=_CONNECT_SECONDS)
        self._inbox = client.new_inbox()
        self._number = count()
        self._waiting: dict[str, asyncio.Future[Ack]] = {}
        self.complaint = ""
        """The last error that the server reported by itself, for example that a subject is forbidden."""

    @property
    def is_open(self) -> bool:
        """Whether the connection can be used."""
        return self._client.is_connected

    @property
    def largest(self) -> int:
        """The most bytes of a message, headers and body."""
        return self._client.max_payload

    async def complained(self, error: Exception) -> None:
        """Keep the last error of the server or the connection."""
        self.complaint = str(error)

    async def listen(self) -> None:
        """Subscribe to the confirmations."""
        await self._client.subscribe(f"{self._inbox}.*", cb=self._confirmed)

    async def publish(self, subject: str, body: bytes, headers: Mapping[str, str]) -> asyncio.Future[Ack]:
        """Send a message, and return the future of JetStream's answer. The answer is an error if the stream refuses the
        message, or if the connection is lost before the answer.
        """
        token = str(next(self._number))
        future: asyncio.Future[Ack] = asyncio.get_running_loop().create_future()
        self._waiting[token] = future
        future.add_done_callback(lambda _: self._waiting.pop(token, None))
        await self._client.publish(subject, body, reply=f"{self._inbox}.{token}", headers=dict(headers))
        return future

    async def close(self) -> None:
        """Close the connection."""
        await _close_client(self._client)
        await self.lost()

    async def lost(self) -> None:
        """Answer all waiting messages with an error, because no confirmation will come."""
        for future in list(self._waiting.values()):
            if not future.done():
                future.set_result(Ack(error="the connection to NATS was lost"))

    async def _confirmed(self, message: Msg) -> None:
        future = self._waiting.get(message.subject.rpartition(".")[2])
        if future is not None and not future.done():
            future.set_result(_ack(message))


async def _close_client(client: Client) -> None:
    """Close a client. The timeout is needed after a failed TLS handshake, when the client would wait for ever."""
    with suppress(Exception):
        async with asyncio.timeout(_CLOSE_SECONDS):
            await client.close()


def _ack(message: Msg) -> Ack:
    if (message.headers or {}).get("Status") == _NO_STREAM:
        return Ack(error="no stream takes the subject")
    try:
        answer = orjson.loads(message.data)
        if "error" in answer:
            return Ack(error=str(answer["error"].get("description", "")), code=int(answer["error"].get("err_code", 0)))
        return Ack(int(answer["seq"]), bool(answer.get("duplicate", False)))
    except (ValueError, KeyError, TypeError, AttributeError):
        return Ack(error="JetStream's answer cannot be read")


class Nats:
    """Connects at the first use, and again after a loss. Used on one event loop only."""

    def __init__(self, config: NatsConfig):
        self._config = config
        self._connection: Connection | None = None
        self._connecting = asyncio.Lock()

    async def connection(self) -> Connection:
        """Return an open connection. Raises `NotConnected`."""
        async with self._connecting:
            if self._connection is None or not self._connection.is_open:
                self._connection = await self._connect()
            return self._connection

    async def close(self) -> None:
        """Close the connection, if there is one."""
        if self._connection is not None:
            await self._connection.close()

    def complaint(self, concerns: Callable[[str], bool]) -> str:
        """Return the last error that the server reported by itself, and clear it. Empty if there is none, or if it
        does not concern the caller: all destinations share the connection.
        """
        if self._connection is None or not concerns(self._connection.complaint):
            return ""
        complaint, self._connection.complaint = self._connection.complaint, ""
        return complaint

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
            await _close_client(client)
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
            # After a reconnect the client would send old messages behind newer ones.
            "allow_reconnect": False,
            "max_reconnect_attempts": 1,
            "reconnect_time_wait": 0,
            "connect_timeout": _CONNECT_SECONDS,
            "pending_size": _PENDING_BYTES,
            "user_credentials": None if config.credentials is None else str(config.credentials),
            "tls": None if config.ca is None else ssl.create_default_context(cafile=config.ca),
        }
