"""A client of Envoy's admin interface, for the few requests that the bridge needs."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from headgate_bridge.config import STREAMS

# A local answer of a few kilobytes: an Envoy that takes longer hangs.
TIMEOUT_SECONDS = 2.0

REQUESTS = "downstream_rq_active"
UNSENT = "downstream_cx_tx_bytes_buffered"
# Subscriptions have a cluster of their own in envoy.yaml.
SUBSCRIPTIONS = f"cluster.{STREAMS}.upstream_rq_active"


@dataclass(frozen=True)
class Admin:
    """Envoy's admin interface, on a Unix socket or a port of loopback.

    Every method raises `OSError` if Envoy cannot be reached, and its subclass `TimeoutError` if Envoy does not answer.
    """

    address: Path | int

    async def is_ready(self) -> bool:
        """Whether Envoy has started: its listeners are bound and its workers run."""
        return (await self._ask("GET", "/ready")).strip() == "LIVE"

    async def stop_listening(self) -> None:
        """Close the listeners, and each connection after its next answer."""
        # This order matters: a connection that sends a request between the two is also asked to close.
        await self._ask("POST", "/healthcheck/fail")
        await self._ask("POST", "/drain_listeners")

    async def refuse_requests(self) -> None:
        """Make Envoy refuse each new request with 503. A request that it has begun to forward is answered.

        With an envoy.yaml without `layered_runtime`, or without the route that reads the key, Envoy keeps accepting
        requests.
        """
        await self._ask("POST", "/runtime_modify?headgate.closing=100")

    async def is_idle(self) -> bool:
        """Whether no request is in progress except subscriptions, and all answers were sent to the clients.

        While there are subscriptions, waiting bytes are not counted, because they may belong to a subscription.
        """
        gauges = await self._ask("GET", f"/stats?filter=({'|'.join((REQUESTS, UNSENT, SUBSCRIPTIONS))})$")
        requests = unsent = subscriptions = 0
        for line in gauges.splitlines():
            name, _, value = line.partition(": ")
            if name == SUBSCRIPTIONS:
                subscriptions += int(value)
            elif name.startswith("http.admin."):
                pass  # the admin interface counts this request too
            elif name.endswith(REQUESTS):
                requests += int(value)
            elif name.endswith(UNSENT):
                unsent += int(value)
        return requests <= subscriptions and (subscriptions > 0 or unsent == 0)

    async def metrics(self) -> bytes:
        """Return Envoy's own statistics, in Prometheus's text format: those that were counted since its start."""
        return (await self._ask("GET", "/stats/prometheus?usedonly")).encode()

    async def _ask(self, method: str, path: str) -> str:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            if isinstance(self.address, int):
                reader, writer = await asyncio.open_connection("127.0.0.1", self.address)
            else:
                reader, writer = await asyncio.open_unix_connection(self.address)
            try:
                writer.write(f"{method} {path} HTTP/1.1\r\nhost: envoy\r\nconnection: close\r\n\r\n".encode())
                head, _, body = (await reader.read()).partition(b"\r\n\r\n")
            finally:
                writer.close()
        chunked = b"transfer-encoding: chunked" in head.lower()
        return (_unchunk(body) if chunked else body).decode()


def _unchunk(body: bytes) -> bytes:
    """Return the content of a complete body in HTTP/1.1's chunked coding."""
    parts = []
    while body:
        size, _, rest = body.partition(b"\r\n")
        length = int(size, 16)
        parts.append(rest[:length])
        body = rest[length + 2 :]
    return b"".join(parts)
