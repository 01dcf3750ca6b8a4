"""A sender over HTTP: Standard Webhooks, to one URL."""

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
from headgate_server.delivery.networks import Networks
from headgate_server.delivery.payload import Format, Render, payload
from headgate_server.delivery.resolver import Resolver
from headgate_server.delivery.url import Url
from headgate_server.process.clock import Clock, system_clock

_ANSWER_BYTES = 16 * 1024
"""The most of an answer's body that is read. After a larger one the connection is closed."""
_ANSWER_SECONDS = 2.0
"""How long a body may take after its status has come: the status is the answer, and the body is words for a person."""
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
"""What a receiver and the network between can do to a request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookConfig:
    """One webhook."""

    url: Url
    keys: Callable[[], Sequence[signing.Key]]
    """Returns the keys to sign an attempt with; asked for each, since one that was rotated out ends at its time."""
    format: Format = Format.STANDARD
    several: bool = False
    """Whether a request may carry several events; then it always carries a list."""
    timeout: float = 15.0
    """Seconds for an attempt, from the look-up of the name to the status: a receiver should store and answer, and work
    afterwards.
    """
    headers: Sequence[tuple[str, str]] = ()
    """Further headers; `check_headers` makes them."""
    connections: int = 4
    """The most connections to the receiver at once: few receivers become faster with more."""


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    words: str
    retry_after: str | None


class Webhook:
    """Sends events to one URL. It keeps the promise of `Sender`.

    A 2xx delivers, whatever becomes of the answer's body. A redirect is a failure and is never followed. No proxy is
    used, whatever the environment says.
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
        self._url = httpcore.URL(
            scheme=config.url.scheme, host=config.url.host, port=config.url.port, target=config.url.target
        )
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=tls or default_tls(),
            max_connections=config.connections,
            keepalive_expiry=_KEEP_ALIVE_SECONDS,
            network_backend=CheckedBackend(networks, resolver),
        )
        self._under_way = 0
        self._tidying: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None

    async def send(self, events: Sequence[StoredEvent], attempt: int) -> Attempt:
        """Deliver events in one request. `attempt` makes no difference to a webhook."""
        started = self._timer()
        try:
            async with self._kept(), asyncio.timeout(self._config.timeout) as limit:
                answer = await self._post(events, limit)
        except TimeoutError:
            words = f"no answer within {self._config.timeout:g} s"
            return Attempt(Verdict.FAILED, None, words, None, self._timer() - started)
        except _FAULTS as fault:
            return Attempt(Verdict.FAILED, None, _told(fault), None, self._timer() - started)
        return self._judged(answer, self._timer() - started)

    async def close(self) -> None:
        """Close all connections. No call follows."""
        if self._tidying is not None:
            self._tidying.cancel()
        await self._pool.aclose()

    @asynccontextmanager
    async def _kept(self) -> AsyncIterator[None]:
        """Keep connections for the length of a block, and for a while after the last one. The pool itself closes idle
        connections only when another request comes, and a destination may have no event for days.
        """
        self._under_way += 1
        if self._tidying is not None:
            self._tidying.cancel()
        try:
            yield
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._tidying = asyncio.create_task(self._tidied())

    async def _tidied(self) -> None:
        await asyncio.sleep(_KEEP_ALIVE_SECONDS)
        # A request that comes now gets a connection of its own, and must not cancel this in its middle.
        self._closing, self._tidying = self._tidying, None
        await self._pool.aclose()

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
        async with self._pool.stream("POST", self._url, headers=headers, content=body) as response:
            # The status is there. Its body has a limit of its own, and a slow one undoes no delivery.
            limit.reschedule(None)
            found = {name.lower(): value for name, value in response.headers}
            words = await _words(response)
            if 300 <= response.status < 400:
                words = f"redirects are not followed: {found.get(b'location', b'').decode('latin-1')}"
            after = found.get(b"retry-after")
            return _Answer(response.status, words, None if after is None else after.decode("latin-1"))

    def _judged(self, answer: _Answer, seconds: float) -> Attempt:
        after = None if answer.retry_after is None else schedule.retry_after(answer.retry_after, self._clock())
        verdict = Verdict.FAILED
        if 200 <= answer.status < 300:
            verdict, after = Verdict.DELIVERED, None
        elif answer.status == HTTPStatus.GONE:
            verdict = Verdict.GONE
        return Attempt(verdict, answer.status, printable(answer.words), after, seconds)


async def _words(response: httpcore.Response) -> str:
    """Return the beginning of an answer's body. If it does not end soon, the connection is closed with the answer."""
    body = bytearray()
    with suppress(*_FAULTS):
        async with asyncio.timeout(_ANSWER_SECONDS):
            async for part in response.aiter_stream():
                body += part
                if len(body) >= _ANSWER_BYTES:
                    break
    return bytes(body[:_ANSWER_BYTES]).decode(errors="replace")


def _told(fault: BaseException) -> str:
    """Return why there was no answer, in the words of the error beneath those that wrap it."""
    while (inner := _wrapped(fault)) is not None:
        fault = inner
    words = fault.strerror if isinstance(fault, OSError) and fault.strerror else str(fault)
    return printable(words or "the connection was closed")


def _wrapped(fault: BaseException) -> BaseException | None:
    """Return the error that an error of httpcore or anyio stands for."""
    if fault.args and isinstance(fault.args[0], BaseException):
        return fault.args[0]
    return fault.__cause__ if type(fault) in (OSError, anyio.BrokenResourceError) else None


@cache
def default_tls() -> ssl.SSLContext:
    """Return the machine's own certificate authorities; `SSL_CERT_FILE` and `SSL_CERT_DIR` name others."""
    return ssl.create_default_context()
