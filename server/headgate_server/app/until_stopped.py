"""Runs a server, or the delivery, until SIGINT or SIGTERM."""

import gc
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog

from headgate_server.app.delivery import delivering
from headgate_server.app.server import running
from headgate_server.config import Settings
from headgate_server.core import compiled
from headgate_server.process import notify
from headgate_server.process.metrics import Metrics
from headgate_server.process.signals import stop_signal

if TYPE_CHECKING:
    from headgate_server.process.tracing.spans import Tracing

log = structlog.get_logger(__name__)


async def serve(
    settings: Settings, ready: Callable[[int], None], metrics: Metrics, tracing: "Tracing | None" = None
) -> None:
    """Serve until SIGINT or SIGTERM. `ready` is called with the port when the server accepts calls."""
    stop = stop_signal()
    async with running(settings, metrics, tracing) as server:
        # The objects that exist now are permanent, so the collector skips them. A group's many small tuples contain no
        # cycles, so collect less often: with 20,000 it looked at all of them in vain, mostly while the group had its
        # locks. What is left to it are six small objects of each call, and 50 of one that failed, which are
        # gRPC's or in gRPC's traceback; no request is among them.
        gc.collect()
        gc.freeze()
        gc.set_threshold(100_000, 20, 50)
        # SQLite's writer is a thread. After each statement it waits for the interpreter's lock, by default 5 ms if the
        # event loop is busy. With 1 ms it stores up to 9 % more for many callers; below that, switching costs more.
        sys.setswitchinterval(0.001)
        log.info("serving", host=settings.server.host, port=server.port, core=compiled.found.said)
        ready(server.port)
        await stop.wait()
        log.info("stopping")
        notify.stopping()
    log.info("stopped")


async def deliver(settings: Settings, metrics: Metrics, tracing: "Tracing | None" = None) -> None:
    """Deliver until SIGINT or SIGTERM."""
    stop = stop_signal()
    async with delivering(settings, metrics, tracing):
        log.info("delivering")
        notify.ready("delivering")
        await stop.wait()
        log.info("stopping")
        notify.stopping()
    log.info("stopped")
