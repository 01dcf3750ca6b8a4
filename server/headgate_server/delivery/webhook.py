"""A sender for webhooks: it sends Standard Webhooks requests to one URL."""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import cache
from http import HTTPStatus

import anyio
import httpcore

from headgate_server.core.model import StoredEvent
from headgate_server.delivery import schedule, signing
from headgate_server.delivery.attempt import Attempt, Verdict, printable
from headgate_server.delivery.connecting import CheckedBackend
from headgate_server.delivery.connections import Connections
from headgate_server.delivery.networks import Networks
from headgate_server.delivery.payload import Format, Render, payload
from headgate_server.delivery.resolver import Resolver
from headgate_server.delivery.url import Url
from headgate_server.process.clock import Clock, system_clock
from headgate_server.process.tracing.outgoing import outgoing

_ANSWER_BYTES = 16 * 1024
"""The most of an answer's body that is read. After a larger one the connection is closed."""
_ANSWER_SECONDS = 2.0
"""The time for a body after its status was received. The status is the answer; the body only explains it to people."""
_KEEP_ALIVE_SECONDS = 4.0
"""Common servers close an idle connection after 5 s. A request that is sent at that moment would fail."""

_FAULTS = (
    httpcore.NetworkError,
    httpcore.TimeoutException,
    httpcore.ProtocolError,
    OSError,
    anyio.BrokenResourceError,
    anyio.ClosedResourceError,
    anyio.EndOfStream,
)
"""The errors that a receiver or the network can cause."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookConfig:
    """One webhook."""

    url: Url
    keys: Callable[[], Sequence[signing.Key]]
    """Returns the keys that sign an attempt. It is called for each attempt, because an old key expires after a
    rotation.
    """
    format: Format = Format.STANDARD
    several: bool = False
    """Whether a request may have several events. Then its body is always a list."""
    timeout: float = 15.0
    """The seconds for an attempt, from the look-up of the name to the status. A receiver should store the event,
    answer, and process it afterwards.
    """
    headers: Sequence[tuple[str, str]] = ()
    """Further headers, from `check_headers`."""
    connections: int = 4
    """The most connections to the receiver at once: few receivers become faster with more."""


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    text: str
    retry_after: str | None


class Webhook:
    """Sends events to one URL. It keeps the promise of `Sender`.

    A 2xx status means delivered, even if the answer's body is not received. A redirect is a failure and is never
    followed. No proxy is used, even if the environment has one.
    """

    def __init__(
        self,
        config: WebhookConfig,
        *,
        render: Render,
        networks: Networks,
        resolver: Resolver,
        tls: ssl.SSLContext | None = None,
        clock: Clock = system_clock,
        timer: Callable[[], float] = time.monotonic,
    ):
        self._config = config
        self._render = render
        self._clock = clock
        self._timer = timer
        url = config.url
        self._connections = Connections(
            httpcore.URL(scheme=url.scheme, host=url.host, port=url.port, target=url.target),
            most=config.connections,
            keep_seconds=_KEEP_ALIVE_SECONDS,
            tls=tls or default_tls(),
            backend=CheckedBackend(networks, resolver),
        )
        self._under_way = 0
        self._idle_close: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None

    async def send(self, events: Sequence[StoredEvent], attempt: int) -> Attempt:
        """Deliver events in one request. `attempt` makes no difference to a webhook."""
        started = self._timer()
        try:
            async with self._connections_kept(), asyncio.timeout(self._config.timeout) as limit:
                answer = await self._post(events, limit)
        except TimeoutError:
            text = f"no answer within {self._config.timeout:g} s"
            return Attempt(Verdict.FAILED, None, text, None, self._timer() - started)
        except _FAULTS as fault:
            return Attempt(Verdict.FAILED, None, _cause_text(fault), None, self._timer() - started)
        return self._attempt_of(answer, self._timer() - started)

    async def close(self) -> None:
        """Close all connections. No call follows."""
        if self._idle_close is not None:
            self._idle_close.cancel()
        await self._connections.close()

    @asynccontextmanager
    async def _connections_kept(self) -> AsyncIterator[None]:
        """Keep connections during a block, and for a few seconds after the last block. Otherwise idle connections are
        closed only at the next request, and a destination may have no event for days.
        """
        self._under_way += 1
        if self._idle_close is not None:
            self._idle_close.cancel()
        try:
            yield
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._idle_close = asyncio.create_task(self._close_idle())

    async def _close_idle(self) -> None:
        await asyncio.sleep(_KEEP_ALIVE_SECONDS)
        # A request that starts now must not cancel the close. It gets a new connection.
        self._closing, self._idle_close = self._idle_close, None
        await self._connections.close_idle()

    async def _post(self, events: Sequence[StoredEvent], limit: asyncio.Timeout) -> _Answer:
        config, moment = self._config, self._clock()
        content_type, body = payload(events, config.format, several=config.several, render=self._render)
        headers = [
            ("Host", config.url.authority),
            ("User-Agent", "Headgate"),
            ("Content-Type", content_type),
            ("Content-Length", str(len(body))),
            *signing.headers(signing.message_id(events), moment, body, config.keys()),
            *config.headers,
        ]
        named = {name.lower() for name, _ in config.headers}
        headers += [(name, value) for name, value in outgoing() if name not in named]
        async with self._connections.post(headers, body) as response:
            # The status was received. The body has its own limit, and a slow body does not undo the delivery.
            limit.reschedule(None)
            received = {name.lower(): value for name, value in response.headers}
            text = await _body_text(response)
            if 300 <= response.status < 400:
                text = f"redirects are not followed: {received.get(b'location', b'').decode('latin-1')}"
            after = received.get(b"retry-after")
            return _Answer(response.status, text, None if after is None else after.decode("latin-1"))

    def _attempt_of(self, answer: _Answer, seconds: float) -> Attempt:
        after = None if answer.retry_after is None else schedule.retry_after(answer.retry_after, self._clock())
        verdict = Verdict.FAILED
        if 200 <= answer.status < 300:
            verdict, after = Verdict.DELIVERED, None
        elif answer.status == HTTPStatus.GONE:
            verdict = Verdict.GONE
        return Attempt(verdict, answer.status, printable(answer.text), after, seconds)


async def _body_text(response: httpcore.Response) -> str:
    """Return the beginning of an answer's body. The connection is closed if the body does not end soon."""
    body = bytearray()
    with suppress(*_FAULTS):
        async with asyncio.timeout(_ANSWER_SECONDS):
            async for part in response.aiter_stream():
                body += part
                if len(body) >= _ANSWER_BYTES:
                    break
    return bytes(body[:_ANSWER_BYTES]).decode(errors="replace")


def _cause_text(fault: BaseException) -> str:
    """Return why there was no answer: the message of the innermost error."""
    while (inner := _inner_error(fault)) is not None:
        fault = inner
    text = fault.strerror if isinstance(fault, OSError) and fault.strerror else str(fault)
    return printable(text or "the connection was closed")


def _inner_error(fault: BaseException) -> BaseException | None:
    """Return the error that an error of httpcore or anyio wraps, None if there is none."""
    if fault.args and isinstance(fault.args[0], BaseException):
        return fault.args[0]
    return fault.__cause__ if type(fault) in (OSError, anyio.BrokenResourceError) else None


@cache
def default_tls() -> ssl.SSLContext:
    """Return the machine's certificate authorities, or those of `SSL_CERT_FILE` and `SSL_CERT_DIR`."""
    return ssl.create_default_context()
