"""A server, from its start to its end."""

import contextlib
from collections.abc import AsyncIterator
from functools import partial
from typing import TYPE_CHECKING

from headgate_server.access.limits import RateLimiter
from headgate_server.app.door import Door, make_door
from headgate_server.app.jobs import jobs
from headgate_server.app.methods import methods
from headgate_server.app.parts import Parts, make_parts
from headgate_server.app.shown import describe, watch_core
from headgate_server.background.key_use import NAME as KEY_USE
from headgate_server.background.key_use import KeepKeyUse
from headgate_server.background.rejections import NAME as REJECTIONS
from headgate_server.background.rejections import KeepRejections
from headgate_server.background.supervisor import Job
from headgate_server.config import Settings
from headgate_server.core.audit import NOBODY
from headgate_server.process.clock import system_clock
from headgate_server.process.identity import process_name
from headgate_server.process.metrics import Metrics
from headgate_server.process.renewal import NAME as NAME_OF_RENEWAL
from headgate_server.process.renewal import Renewal
from headgate_server.rpc.encryption import Encryption
from headgate_server.rpc.pipeline import streams
from headgate_server.rpc.pipeline.interceptors import standard
from headgate_server.rpc.server import GrpcServer
from headgate_server.store.opening import open_store

if TYPE_CHECKING:
    from headgate_server.process.tracing.spans import Tracing


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
        describe(metrics, store)
        watch_core()
        holder = process_name()
        parts = make_parts(stack, settings, store, metrics, holder, tracing)
        keep_rejections = KeepRejections(parts.rejections, store.rejections, metrics)
        stack.push_async_callback(keep_rejections.close)
        # It ends before the rejections are written: what it refuses may be kept.
        stack.push_async_callback(parts.committer.close)
        door = make_door(settings, store, metrics)
        server = _server(parts, door, _encryption(renewal), tracing)
        if renewal is not None:
            metrics.add_source(partial(renewal.readings, "grpc"))
        await server.start()
        key_use = KeepKeyUse(door.authenticator, store.directory)
        stack.push_async_callback(key_use.close)
        parts.supervisor.start(
            [
                *([Job(NAME_OF_RENEWAL, renewal.run)] if renewal is not None else ()),
                *jobs(parts, server, holder),
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


def _server(parts: Parts, door: Door, encryption: Encryption | None, tracing: "Tracing | None") -> GrpcServer:
    """Return the server of all methods, behind the door. It is not started yet."""
    config = parts.settings.server
    limiter = RateLimiter(parts.store.limits)
    chain = standard(
        door.authenticator, limiter, parts.metrics, door.load, door.trust, door.streams, config.body_limit, tracing
    )
    return GrpcServer(config, methods(parts), chain, door.load.public, door.streams, encryption)


def _encryption(renewal: Renewal | None) -> Encryption | None:
    """Return the encryption of the port, which follows the certificate's files."""
    if renewal is None:
        return None
    encryption = Encryption(renewal.material)
    renewal.tell(encryption.renew)
    return encryption
