"""Fixtures for webhooks to receivers on loopback, and for streams of a NATS server."""

import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from headgate_server.core.model import StoredEvent
from headgate_server.delivery import signing
from headgate_server.delivery.jetstream import JetStream, Known
from headgate_server.delivery.nats_connection import Nats, NatsConfig
from headgate_server.delivery.networks import Address, Networks, network_of
from headgate_server.delivery.resolver import SystemResolver
from headgate_server.delivery.url import Url
from headgate_server.delivery.webhook import Webhook, WebhookConfig
from headgate_server.rpc import wire
from headgate_server.rpc.pipeline import printer
from tests.support import jetstream as jetstreams
from tests.support.nats import NatsServer, nats_server

SECRET = signing.new_shared_key()

Make = Callable[..., Webhook]


def render(event: StoredEvent) -> bytes:
    """Return a stored event as JSON, in the same form as REST."""
    return printer.print_json(wire.event_message(event, as_text=True))


@dataclass(slots=True)
class Names:
    """A resolver of invented names. It returns the answers of a list in order, and then always the last one."""

    answers: Mapping[str, Sequence[str]]
    asked: list[str] = field(default_factory=list)

    async def resolve(self, host: str) -> Sequence[Address]:
        """Return the addresses of a name. They are separated by spaces in its answer."""
        turn = self.asked.count(host)
        self.asked.append(host)
        if host not in self.answers:
            return [ip_address(host)]
        texts = self.answers[host]
        return [ip_address(text) for text in texts[min(turn, len(texts) - 1)].split()]


@pytest.fixture
def system_resolver() -> Iterator[SystemResolver]:
    """Return the system's resolver."""
    resolver = SystemResolver()
    yield resolver
    resolver.close()


@pytest.fixture
async def webhook(system_resolver: SystemResolver) -> AsyncIterator[Make]:
    """Return a function that creates a webhook to a port of 127.0.0.1, the only allowed address."""
    async with AsyncExitStack() as closing:

        def make(
            port: int,
            *,
            host: str = "127.0.0.1",
            scheme: str = "http",
            target: str = "/in?a=b",
            allow: Sequence[str] = ("127.0.0.1/32",),
            names: Names | None = None,
            tls: ssl.SSLContext | None = None,
            **more: Any,
        ) -> Webhook:
            more.setdefault("keys", lambda: [signing.read_key(SECRET)])
            made = Webhook(
                WebhookConfig(url=Url(scheme, host, port, target), **more),
                render=render,
                networks=Networks([network_of(text) for text in allow]),
                resolver=names or system_resolver,
                tls=tls,
            )
            closing.push_async_callback(made.close)
            return made

        yield make


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    """Return a new NATS server."""
    with nats_server(tmp_path / "nats") as running:
        yield running


@pytest.fixture
async def jetstream() -> AsyncIterator[jetstreams.Make]:
    """Return a function that creates a sender with a connection of its own, like that of another process."""
    async with AsyncExitStack() as closing:

        def make(
            url: str, owner: str = "dst_1", timeout: float = 5.0, known: Known = jetstreams.every, **config: object
        ) -> JetStream:
            shared = Nats(NatsConfig(url=url, **config))  # type: ignore[arg-type]
            closing.push_async_callback(shared.close)
            return JetStream(
                shared,
                stream="ORDERS",
                subject_prefix="orders",
                owner=owner,
                render=render,
                known=known,
                timeout=timeout,
            )

        yield make
