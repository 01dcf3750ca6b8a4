"""Connects the parts of a server process. No other module does it."""

import contextlib
import gc
import platform
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    """What the calls of one process work with."""

    settings: Settings
    store: Store
    metrics: Metrics
    supervisor: Supervisor
    readiness: Readiness
    committer: Committer
    checker: Checker
    rejections: RejectionQueue
    heads: Heads
    subscriptions: Subscriptions
    delivery: Leased | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Door:
    """What every call passes first."""

    authenticator: Authenticator
    load: Load
    trust: Trust
    streams: Streams


def _methods(parts: _Parts) -> Sequence[AnyMethod]:
    """Return every RPC that Headgate serves."""
    store, settings, metrics = parts.store, parts.settings, parts.metrics
    checks = EventTypeChecks(store.event_types, parts.checker)
    change = ChangeEventTypes(store.event_types, checks, parts.checker)
    ingest = Ingest(store.ledgers, store.limits, parts.committer, checks)
    compat = Compat(store.ledgers, store.proof, store.deliveries, store.destinations, ingest)
    limiter = RateLimiter(store.limits)
    taking = Taking(ingest, limiter, metrics, parts.rejections)
    readers = (RECEIVERS, decode.proto_event, cloudevents.as_kept)
    replaying = Replaying(store.rejections, store.ledgers, ingest, *readers, store.audit)
    shown = (parts.readiness.part, parts.committer.part, partial(_delivery_part, parts.delivery))
    return (
        *IngestServicer(ingest, settings.ingest, taking).methods(),
        *EventServicer(store.ledgers, store.deliveries, parts.subscriptions).methods(),
        *LedgerServicer(store.ledgers, store.proof, metrics).methods(),
        *CloudEventServicer(ingest, settings.ingest, taking).methods(),
        *CompatServicer(compat, RECEIVERS, limiter, metrics, system_clock, parts.rejections).methods(),
        *RejectionServicer(store.rejections, ingest, replaying, RECEIVERS, limiter, metrics).methods(),
        *WorkspaceServicer(store.limits, store.event_types, change).methods(),
        *EventTypeServicer(store.event_types, change, ingest.decoded).methods(),
        *DestinationServicer(store.destinations, settings.delivery).methods(),
        *AdminServicer(store.directory, store.limits, store.managed, checks).methods(),
        *ProbeServicer(parts.readiness, parts.supervisor, shown).methods(),
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
        holder = process_name()
        parts = _parts(stack, settings, store, metrics, holder, tracing)
        keep_rejections = KeepRejections(parts.rejections, store.rejections, metrics)
        stack.push_async_callback(keep_rejections.close)
        # It ends before the rejections are written: what it refuses may be kept.
        stack.push_async_callback(parts.committer.close)
        door = _door(settings, store, metrics)
        server = _server(parts, door, _encryption(renewal), tracing)
        if renewal is not None:
            metrics.add_source(partial(renewal.readings, "grpc"))
        await server.start()
        key_use = KeepKeyUse(door.authenticator, store.directory)
        stack.push_async_callback(key_use.close)
        parts.supervisor.start(
            [
                *([Job(NAME_OF_RENEWAL, renewal.run)] if renewal is not None else ()),
                *_jobs(parts, server, holder),
                Job(REJECTIONS, keep_rejections),
                Job(KEY_USE, key_use),
                Job(streams.NAME, door.streams),
            ]
        )
        # Calls end before the jobs: no call waits for a receiver, and none waits behind a job that gives back its lease
        # and waits for the store's lock.
        stack.push_async_callback(parts.supervisor.stop)
        stack.push_async_callback(server.stop, settings.shutdown_grace)
        yield server


def _parts(
    stack: contextlib.AsyncExitStack,
    settings: Settings,
    store: Store,
    metrics: Metrics,
    holder: str,
    tracing: "Tracing | None",
) -> _Parts:
    """Return the parts of a server. The stack closes them, without the committer."""
    readiness, checker, wakeups = Readiness(store.probe), Checker(), Wakeups()
    metrics.add_source(readiness.readings)
    stack.push_async_callback(readiness.close)
    stack.push_async_callback(checker.close)
    delivers = settings.delivery.deliver == "on"
    delivery = _delivery(store, settings, metrics, wakeups.add(), holder, tracing) if delivers else None
    watched = Heads(store.ledgers, wakeups.add())
    return _Parts(
        settings=settings,
        store=store,
        metrics=metrics,
        supervisor=Supervisor(metrics),
        readiness=readiness,
        committer=Committer(
            store.database, settings.committer, readiness, stored=wakeups.ring, metrics=metrics, tracing=tracing
        ),
        checker=checker,
        rejections=RejectionQueue(settings.rejections, metrics),
        heads=watched,
        subscriptions=Subscriptions(store.ledgers, watched, settings.subscriptions),
        delivery=delivery,
    )


def _door(settings: Settings, store: Store, metrics: Metrics) -> _Door:
    """Return what every call passes first, and show its numbers."""
    door = _Door(
        authenticator=Authenticator(store.directory),
        load=Load(settings.server),
        trust=Trust(settings.server.bridge_token),
        streams=Streams(metrics, settings.server.streams_of_one, settings.server.ingest_streams_of_one),
    )
    metrics.add_source(door.load.readings)
    metrics.add_source(door.authenticator.readings)
    return door


def _server(parts: _Parts, door: _Door, encryption: Encryption | None, tracing: "Tracing | None") -> GrpcServer:
    """Return the server of all methods, behind the door. It is not started yet."""
    config = parts.settings.server
    limiter = RateLimiter(parts.store.limits)
    chain = standard(
        door.authenticator, limiter, parts.metrics, door.load, door.trust, door.streams, config.body_limit, tracing
    )
    return GrpcServer(config, _methods(parts), chain, door.load.public, door.streams, encryption)


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
        metrics, checker, readiness = Metrics(), Checker(), Readiness(store.probe)
        stack.push_async_callback(checker.close)
        stack.push_async_callback(readiness.close)
        committer, supervisor = Committer(store.database), Supervisor(metrics)
        stack.push_async_callback(committer.close)
        watched = Heads(store.ledgers, Wakeup())
        supervisor.start([Job(heads.NAME, watched)])
        stack.push_async_callback(supervisor.stop)
        parts = _Parts(
            settings=_ANY_SERVER,
            store=store,
            metrics=metrics,
            supervisor=supervisor,
            readiness=readiness,
            committer=committer,
            checker=checker,
            rejections=RejectionQueue(_ANY_SERVER.rejections, metrics),
            heads=watched,
            subscriptions=Subscriptions(store.ledgers, watched),
            delivery=None,
        )
        yield store.directory, _methods(parts)


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


def _jobs(parts: _Parts, server: GrpcServer, holder: str) -> Sequence[Job]:
    """Return the background work of a server process that needs only its parts."""
    store, metrics = parts.store, parts.metrics
    purging = purge.Purge(store.answers, store.rejections, parts.settings.rejections.days)
    changed = metrics.lease_changed
    return (
        Job(watch.NAME, watch.Watch(parts.readiness, server.set_serving)),
        Job(purge.NAME, Leased(purge.NAME, store.leases, holder, purging, terms=purge.TERMS, changed=changed)),
        Job(heads.NAME, parts.heads),
        Job(measure.NAME, measure.Measure(store.measures, metrics)),
        *([Job(engine.NAME, parts.delivery)] if parts.delivery is not None else ()),
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
