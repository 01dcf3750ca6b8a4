"""Connects the parts of a server process. No other module does it."""

import contextlib
import gc
import platform
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from headgate_server.access import admin
from headgate_server.access.auth import Authenticator
from headgate_server.access.limits import RateLimiter
from headgate_server.background import heads, measure, purge, watch
from headgate_server.background.heads import Heads
from headgate_server.background.key_use import NAME as KEY_USE
from headgate_server.background.key_use import KeepKeyUse
from headgate_server.background.leased import Leased
from headgate_server.background.rejections import NAME as REJECTIONS
from headgate_server.background.rejections import KeepRejections
from headgate_server.background.subscription import Subscriptions
from headgate_server.background.supervisor import Job, Supervisor
from headgate_server.background.wakeup import Wakeup, Wakeups
from headgate_server.config import Settings
from headgate_server.core import compiled
from headgate_server.core.audit import NOBODY
from headgate_server.core.model import Lease
from headgate_server.delivery import engine
from headgate_server.delivery.config import DeliveryConfig
from headgate_server.delivery.nats_connection import Nats, NatsConfig
from headgate_server.delivery.resolver import SystemResolver
from headgate_server.delivery.senders import Senders
from headgate_server.ingest.change_event_types import ChangeEventTypes
from headgate_server.ingest.checker import Checker
from headgate_server.ingest.committer import Committer
from headgate_server.ingest.compat import Compat
from headgate_server.ingest.event_types import EventTypeChecks
from headgate_server.ingest.ingest import Ingest
from headgate_server.ingest.readiness import Part, Readiness
from headgate_server.ingest.rejections import RejectionQueue
from headgate_server.ingest.replay import Replaying
from headgate_server.process import notify
from headgate_server.process.causes import Causes
from headgate_server.process.clock import system_clock
from headgate_server.process.identity import process_name
from headgate_server.process.metrics import Metrics, catalogue
from headgate_server.process.metrics.cells import Reading
from headgate_server.process.renewal import NAME as NAME_OF_RENEWAL
from headgate_server.process.renewal import Renewal
from headgate_server.process.signals import stop_signal
from headgate_server.receivers.registry import RECEIVERS
from headgate_server.rpc import cloudevents, decode, wire
from headgate_server.rpc.admin_servicer import AdminServicer
from headgate_server.rpc.cloudevent_servicer import CloudEventServicer
from headgate_server.rpc.compat_servicer import CompatServicer
from headgate_server.rpc.destination_servicer import DestinationServicer
from headgate_server.rpc.docs_servicer import DocsServicer
from headgate_server.rpc.encryption import Encryption
from headgate_server.rpc.event_servicer import EventServicer
from headgate_server.rpc.event_type_servicer import EventTypeServicer
from headgate_server.rpc.ingest_servicer import IngestServicer
from headgate_server.rpc.ledger_servicer import LedgerServicer
from headgate_server.rpc.pipeline import streams
from headgate_server.rpc.pipeline.interceptors import standard
from headgate_server.rpc.pipeline.load import Load
from headgate_server.rpc.pipeline.method import AnyMethod
from headgate_server.rpc.pipeline.streams import Streams
from headgate_server.rpc.pipeline.trust import Trust
from headgate_server.rpc.probe_servicer import ProbeServicer
from headgate_server.rpc.rejection_servicer import RejectionServicer
from headgate_server.rpc.server import GrpcServer
from headgate_server.rpc.taking import Taking
from headgate_server.rpc.workspace_servicer import WorkspaceServicer
from headgate_server.store import Directory, Store
from headgate_server.store.opening import open_store

if TYPE_CHECKING:
    from headgate_server.process.tracing.spans import Tracing

log = structlog.get_logger(__name__)


def methods(
    store: Store,
    committer: Committer,
    readiness: Readiness,
    supervisor: Supervisor,
    subscriptions: Subscriptions,
    settings: Settings,
    metrics: Metrics,
    rejections: RejectionQueue,
    checker: Checker,
    delivery: Callable[[], Part],
) -> Sequence[AnyMethod]:
    """Return every RPC that Headgate serves."""
    checks = EventTypeChecks(store.event_types, checker)
    change = ChangeEventTypes(store.event_types, checks, checker)
    ingest = Ingest(store.ledgers, store.limits, committer, checks)
    compat = Compat(store.ledgers, store.proof, store.deliveries, store.destinations, ingest)
    limiter = RateLimiter(store.limits)
    taking = Taking(ingest, limiter, metrics, rejections)
    readers = (RECEIVERS, decode.proto_event, cloudevents.as_kept)
    replaying = Replaying(store.rejections, store.ledgers, ingest, *readers, store.audit)
    return (
        *IngestServicer(ingest, settings.ingest, taking).methods(),
        *EventServicer(store.ledgers, store.deliveries, subscriptions).methods(),
        *LedgerServicer(store.ledgers, store.proof, metrics).methods(),
        *CloudEventServicer(ingest, settings.ingest, taking).methods(),
        *CompatServicer(compat, RECEIVERS, limiter, metrics, system_clock, rejections).methods(),
        *RejectionServicer(store.rejections, ingest, replaying, RECEIVERS, limiter, metrics).methods(),
        *WorkspaceServicer(store.limits, store.event_types, change).methods(),
        *EventTypeServicer(store.event_types, change, ingest.decoded).methods(),
        *DestinationServicer(store.destinations, settings.delivery).methods(),
        *AdminServicer(store.directory, store.limits, store.managed, checks).methods(),
        *ProbeServicer(readiness, supervisor, (readiness.part, committer.part, delivery)).methods(),
        *DocsServicer(settings.docs).methods(),
    )


@contextlib.asynccontextmanager
async def running(
    settings: Settings, metrics: Metrics | None = None, tracing: "Tracing | None" = None
) -> AsyncIterator[GrpcServer]:
    """Run a server until the block ends. Then finish the calls in progress, store what waits, and close the store. It
    counts in `metrics`, and makes spans if there is `tracing`.

    Raises `SetupError` if it cannot start.
    """
    files = settings.tls.files()
    renewal = Renewal(files, system_clock) if files is not None else None
    store = (await open_store(settings.store.location, serving=True)).by(NOBODY)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(store.close)
        metrics = metrics or Metrics(settings.metrics_workspaces)
        _describe(metrics, store)
        _watch_core()
        supervisor = Supervisor(metrics)
        readiness = Readiness(store.probe)
        metrics.add_source(readiness.readings)
        stack.push_async_callback(readiness.close)
        rejections = RejectionQueue(settings.rejections, metrics)
        keep_rejections = KeepRejections(rejections, store.rejections, metrics)
        stack.push_async_callback(keep_rejections.close)
        checker = Checker()
        stack.push_async_callback(checker.close)
        wakeups, holder = Wakeups(), process_name()
        delivers = settings.delivery.deliver == "on"
        delivery = _delivery(store, settings, metrics, wakeups.add(), holder, tracing) if delivers else None
        committer = Committer(
            store.database, settings.committer, readiness, stored=wakeups.ring, metrics=metrics, tracing=tracing
        )
        stack.push_async_callback(committer.close)
        watched_heads = Heads(store.ledgers, wakeups.add())
        subscriptions = Subscriptions(store.ledgers, watched_heads, settings.subscriptions)
        open_streams = Streams(metrics, settings.server.streams_of_one, settings.server.ingest_streams_of_one)
        trust = Trust(settings.server.bridge_token)
        load = Load(settings.server)
        metrics.add_source(load.readings)
        authenticator = Authenticator(store.directory)
        metrics.add_source(authenticator.readings)
        encryption = _encryption(renewal)
        server = GrpcServer(
            settings.server,
            methods(
                store,
                committer,
                readiness,
                supervisor,
                subscriptions,
                settings,
                metrics,
                rejections,
                checker,
                partial(_delivery_part, delivery),
            ),
            standard(
                authenticator,
                RateLimiter(store.limits),
                metrics,
                load,
                trust,
                open_streams,
                settings.server.body_limit,
                tracing,
            ),
            load.public,
            open_streams,
            encryption,
        )
        await server.start()
        if renewal is not None:
            metrics.add_source(partial(renewal.readings, "grpc"))
            supervisor.start([Job(NAME_OF_RENEWAL, renewal.run)])
        key_use = KeepKeyUse(authenticator, store.directory)
        stack.push_async_callback(key_use.close)
        supervisor.start(_jobs(store, readiness, server, settings.rejections.days, metrics, holder))
        supervisor.start([Job(REJECTIONS, keep_rejections), Job(KEY_USE, key_use)])
        supervisor.start((Job(heads.NAME, watched_heads), Job(streams.NAME, open_streams)))
        supervisor.start([Job(measure.NAME, measure.Measure(store.measures, metrics))])
        if delivery is not None:
            supervisor.start([Job(engine.NAME, delivery)])
        # Calls end before the jobs: no call waits for a receiver, and none waits behind a job that gives back its lease
        # and waits for the store's lock.
        stack.push_async_callback(supervisor.stop)
        stack.push_async_callback(server.stop, settings.shutdown_grace)
        yield server


_ANY_SERVER = Settings(
    delivery=DeliveryConfig(
        allowed=(ip_network("0.0.0.0/0"), ip_network("::/0")), nats=NatsConfig(url="nats://set-on-the-server:4222")
    )
)
"""At the store all networks and streams are accepted, because only the server has these settings. In a network that it
does not allow, each attempt fails with an error that says so.
"""


@contextlib.asynccontextmanager
async def at_store(location: str | Path) -> AsyncIterator[tuple[Directory, Sequence[AnyMethod]]]:
    """Yield the directory and the methods of a store, without a server: for commands that do the same as a call.
    Servers may use the store meanwhile. Raises `SetupError` if it cannot be opened.
    """
    async with admin.opened(location) as store, contextlib.AsyncExitStack() as stack:
        metrics, checker = Metrics(), Checker()
        stack.push_async_callback(checker.close)
        committer, readiness = Committer(store.database), Readiness(store.probe)
        stack.push_async_callback(readiness.close)
        stack.push_async_callback(committer.close)
        watched = Heads(store.ledgers, Wakeup())
        supervisor = Supervisor(metrics)
        supervisor.start([Job(heads.NAME, watched)])
        stack.push_async_callback(supervisor.stop)
        subscriptions = Subscriptions(store.ledgers, watched)
        rejections = RejectionQueue(_ANY_SERVER.rejections, metrics)
        parts = (store, committer, readiness, supervisor, subscriptions, _ANY_SERVER, metrics, rejections, checker)
        yield store.directory, methods(*parts, partial(_delivery_part, None))


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
        _describe(metrics, store)
        supervisor = Supervisor(metrics)
        delivery = _delivery(store, settings, metrics, Wakeup(), process_name(), tracing)
        supervisor.start([Job(engine.NAME, delivery)])
        supervisor.start([Job(measure.NAME, measure.Measure(store.measures, metrics))])
        stack.push_async_callback(supervisor.stop)
        yield supervisor


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


async def serve(
    settings: Settings, ready: Callable[[int], None], metrics: Metrics, tracing: "Tracing | None" = None
) -> None:
    """Serve until SIGINT or SIGTERM. `ready` is called with the port when the server accepts calls."""
    stop = stop_signal()
    async with running(settings, metrics, tracing) as server:
        # The objects that exist now are permanent, so the collector skips them. A group's many small tuples contain no
        # cycles, so collect less often: a full collection stops every call for about 50 ms.
        gc.collect()
        gc.freeze()
        gc.set_threshold(20_000, 20, 50)
        # SQLite's writer is a thread. After each statement it waits for the interpreter's lock, by default 5 ms if the
        # event loop is busy. With 1 ms it stores up to 9 % more for many callers; below that, switching costs more.
        sys.setswitchinterval(0.001)
        log.info("serving", host=settings.server.host, port=server.port, core=compiled.found.said)
        ready(server.port)
        await stop.wait()
        log.info("stopping")
        notify.stopping()
    log.info("stopped")


def _describe(metrics: Metrics, store: Store) -> None:
    """Show the versions, the core, and the use of the connections."""
    dialect = type(store.database).__name__.removesuffix("Database").lower()
    metrics.build(compiled.version(), platform.python_version(), dialect, "compiled" if compiled.in_use() else "python")

    def pools() -> Iterator[Reading]:
        for name, pool in store.database.pools().items():
            yield catalogue.POOL_IN_USE, (name,), pool.in_use
            yield catalogue.POOL_OPEN, (name,), pool.open
            yield catalogue.POOL_BOUND, (name,), pool.most
        yield catalogue.CORE_FAILURES, (), compiled.failures

    metrics.add_source(pools)


def _watch_core() -> None:
    """Say if the compiled core that is installed cannot be used, and log its failures."""
    if compiled.found.refused:
        log.warning("core_refused", why=compiled.found.said)
    causes = Causes()
    compiled.on_failure = lambda error: causes.tell("core_failed", error)


def _encryption(renewal: Renewal | None) -> Encryption | None:
    """Return the encryption of the port, which follows the certificate's files."""
    if renewal is None:
        return None
    encryption = Encryption(renewal.material)
    renewal.tell(encryption.renew)
    return encryption


def _jobs(
    store: Store, readiness: Readiness, server: GrpcServer, rejection_days: int, metrics: Metrics, holder: str
) -> Sequence[Job]:
    """Return the background work of a server process, without the delivery and the rejections."""
    return (
        Job(watch.NAME, watch.Watch(readiness, server.set_serving)),
        Job(
            purge.NAME,
            Leased(
                purge.NAME,
                store.leases,
                holder,
                purge.Purge(store.answers, store.rejections, rejection_days),
                terms=purge.TERMS,
                changed=metrics.lease_changed,
            ),
        ),
    )


def _delivery(
    store: Store, settings: Settings, metrics: Metrics, wakeup: Wakeup, holder: str, tracing: "Tracing | None"
) -> Leased:
    """Return the work of the job that delivers."""
    config = settings.delivery
    pace = engine.EngineConfig()
    pace = replace(pace, stop_grace=min(pace.stop_grace, settings.shutdown_grace))

    async def work(lease: Lease) -> None:
        resolver, nats = SystemResolver(), Nats(config.nats)
        try:
            senders = Senders(config.networks, wire.event_json, resolver, nats)
            topics = (store.deliveries, store.ledgers, store.matching)
            await engine.Engine(*topics, senders, metrics, wakeup, config=pace, tracing=tracing)(lease)
        finally:
            await nats.close()
            resolver.close()

    return Leased(engine.NAME, store.leases, holder, work, changed=metrics.lease_changed)


def _delivery_part(delivery: Leased | None) -> Part:
    """Return whether this process delivers."""
    if delivery is None:
        return Part("delivery", "off", "The server runs with --deliver off.")
    return Part("delivery", "delivering" if delivery.held else "waiting")
