"""The port for metrics of `headgate up`, `serve`, `deliver` and `bridge`."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from types import MappingProxyType

import structlog

from headgate_server.cli.exposed import is_loopback
from headgate_server.config import Settings
from headgate_server.process.metrics import Metrics
from headgate_server.process.metrics.catalogue import RESTARTS
from headgate_server.process.metrics.cells import Reading
from headgate_server.process.metrics.endpoint import Make, serving
from headgate_server.process.metrics.merging import Page
from headgate_server.process.metrics.text import text
from headgate_server.process.renewal import Renewal
from headgate_server.process.workers import Workers

log = structlog.get_logger(__name__)


@contextlib.asynccontextmanager
async def served(settings: Settings, make: Make) -> AsyncIterator[None]:
    """Serve what `make` returns until the block ends, if a port for metrics is set. Raises `SetupError`."""
    if settings.metrics_port is None:
        yield
        return
    if not is_loopback(settings.metrics_host):
        log.warning("metrics_on_network", host=settings.metrics_host, port=settings.metrics_port)
    async with serving(settings.metrics_host, settings.metrics_port, make):
        yield


def of_process(metrics: Metrics) -> Make:
    """Return the page of a service that is this process alone."""

    async def make() -> bytes:
        return await asyncio.to_thread(lambda: text(metrics.read()))

    return make


def of_service(
    workers: Workers | None,
    *,
    envoy: Callable[[], Awaitable[bytes]] | None = None,
    envoy_starts: Callable[[], int] = lambda: 0,
    certificates: Mapping[str, Renewal] = MappingProxyType({}),
) -> Make:
    """Return the page of a service of several processes. `envoy` returns Envoy's metrics, and `envoy_starts` how often
    Envoy was started. `certificates` are those that Envoy shows, by where it does.
    """
    children = workers.children if workers is not None else ()

    def own() -> Sequence[Reading]:
        replaced = sum(max(0, child.generation - 1) for child in children)
        readings: list[Reading] = [(RESTARTS, ("worker",), replaced)] if children else []
        if envoy is not None:
            readings.append((RESTARTS, ("envoy",), max(0, envoy_starts() - 1)))
        for shown, renewal in certificates.items():
            readings.extend(renewal.readings(shown))
        return readings

    return Page(children, own=own, further=envoy)
