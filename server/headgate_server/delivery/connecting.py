"""Connects to checked addresses only. This is the network layer below a webhook's HTTP.

The name is looked up once for each connection, and the connection is made to one of the checked addresses. There is no
second look-up that could return other addresses.
"""

import asyncio
import ssl
from collections.abc import Iterable
from typing import Any

import httpcore

from headgate_server.delivery.networks import Address, Networks
from headgate_server.delivery.resolver import Resolver

_CONNECT_SECONDS = 5.0
"""The time for one address to answer, before the next one is tried."""


class Blocked(httpcore.ConnectError):
    """The host has no address that may be reached."""


class CheckedBackend(httpcore.AsyncNetworkBackend):
    """Connects to the addresses that `networks` allows."""

    def __init__(self, networks: Networks, resolver: Resolver):
        self._networks = networks
        self._resolver = resolver
        self._inner = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's interface; one limit holds for the whole attempt
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Return a connection to one of the host's allowed addresses.

        Raises `Blocked` if there is none, and `httpcore.ConnectError` if no connection succeeds.
        """
        addresses = self._checked(host, await self._resolved(host))
        for address in addresses[:-1]:
            try:
                return await self._connect(address, port, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        return await self._connect(addresses[-1], port, socket_options)

    async def sleep(self, seconds: float) -> None:
        """Sleep. httpcore calls this between its own retries, which are not used."""
        await asyncio.sleep(seconds)

    async def _resolved(self, host: str) -> list[Address]:
        try:
            return list(await self._resolver.resolve(host))
        except OSError as error:
            raise httpcore.ConnectError(f"{host} has no address: {error.strerror or error}") from error

    def _checked(self, host: str, addresses: list[Address]) -> list[Address]:
        refusals = {address: self._networks.refusal(address) for address in addresses}
        allowed = [address for address, word in refusals.items() if word is None]
        if not allowed:
            words = ", ".join(sorted({word for word in refusals.values() if word}))
            raise Blocked(f"{host} is in a blocked network ({words}); the setting --webhook-allow permits networks")
        return allowed

    async def _connect(
        self, address: Address, port: int, socket_options: Iterable[httpcore.SOCKET_OPTION] | None
    ) -> httpcore.AsyncNetworkStream:
        stream = await self._inner.connect_tcp(
            str(address), port, timeout=_CONNECT_SECONDS, socket_options=socket_options
        )
        return _Stream(stream)


class _Stream(httpcore.AsyncNetworkStream):
    """A connection that is closed if its TLS handshake is cancelled. httpcore would leave it open."""

    def __init__(self, stream: httpcore.AsyncNetworkStream):
        self._stream = stream

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109
        return await self._stream.read(max_bytes, timeout)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> httpcore.AsyncNetworkStream:
        try:
            return await self._stream.start_tls(ssl_context, server_hostname, timeout)
        except BaseException:
            await self._stream.aclose()
            raise

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
