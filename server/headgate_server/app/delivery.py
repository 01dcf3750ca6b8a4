"""The delivery to destinations: a job of a server, or a process of its own."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import TYPE_CHECKING

from headgate_server.app.shown import describe
from headgate_server.background import measure
from headgate_server.background.leased import Leased
from headgate_server.background.supervisor import Job, Supervisor
from headgate_server.background.wakeup import Wakeup
from headgate_server.config import Settings
from headgate_server.core.model import Lease
from headgate_server.delivery import engine
from headgate_server.delivery.nats_connection import Nats
from headgate_server.delivery.resolver import SystemResolver
from headgate_server.delivery.senders import Senders
from headgate_server.ingest.readiness import Part
from headgate_server.process.identity import process_name
from headgate_server.process.metrics import Metrics
from headgate_server.rpc import wire
from headgate_server.store import Store
from headgate_server.store.opening import open_store

if TYPE_CHECKING:
    from headgate_server.process.tracing.spans import Tracing


def delivery_work(
    store: Store, settings: Settings, metrics: Metrics, wakeup: Wakeup, holder: str, tracing: "Tracing | None"
) -> Leased:
    """Return the work of the job that delivers, under its lease."""
    config = settings.delivery
    pace = engine.EngineConfig()
    pace = replace(pace, stop_grace=min(pace.stop_grace, settings.shutdown_grace))

    async def deliver(lease: Lease) -> None:
        resolver, nats = SystemResolver(), Nats(config.nats)
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(resolver.close)
            stack.push_async_callback(nats.close)
            senders = Senders(config.networks, wire.event_json, resolver, nats, store.ledgers)
            topics = (store.deliveries, store.ledgers, store.matching)
            await engine.Engine(*topics, senders, metrics, wakeup, config=pace, tracing=tracing)(lease)

    return Leased(engine.NAME, store.leases, holder, deliver, changed=metrics.lease_changed)


def delivery_part(delivery: Leased | None) -> Part:
    """Return whether this process delivers."""
    if delivery is None:
        return Part("delivery", "off", "The server runs with --deliver off.")
    return Part("delivery", "delivering" if delivery.held else "waiting")


@contextlib.asynccontextmanager
async def delivering(
    settings: Settings, metrics: Metrics, tracing: "Tracing | None" = None
) -> AsyncIterator[Supervisor]:
    """Only deliver to destinations, until the block ends. Then wait for requests in progress, and close the store.

    Raises `SetupError` if it cannot start.
    """
    store = await open_store(settings.store.location)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(store.close)
        describe(metrics, store)
        supervisor = Supervisor(metrics)
        delivery = delivery_work(store, settings, metrics, Wakeup(), process_name(), tracing)
        measuring = measure.Measure(store.measures, metrics)
        supervisor.start([Job(engine.NAME, delivery), Job(measure.NAME, measuring)])
        stack.push_async_callback(supervisor.stop)
        yield supervisor
