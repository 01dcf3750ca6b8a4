"""The methods of a store, without a server."""

import contextlib
from collections.abc import AsyncIterator, Sequence
from ipaddress import ip_network
from pathlib import Path

from headgate_server.access import admin
from headgate_server.app.methods import methods
from headgate_server.app.parts import Parts
from headgate_server.background import heads
from headgate_server.background.heads import Heads
from headgate_server.background.subscription import Subscriptions
from headgate_server.background.supervisor import Job, Supervisor
from headgate_server.background.wakeup import Wakeup
from headgate_server.config import Settings
from headgate_server.delivery.config import DeliveryConfig
from headgate_server.delivery.nats_connection import NatsConfig
from headgate_server.ingest.checker import Checker
from headgate_server.ingest.committer import Committer
from headgate_server.ingest.readiness import Readiness
from headgate_server.ingest.rejections import RejectionQueue
from headgate_server.process.metrics import Metrics
from headgate_server.rpc.pipeline.method import AnyMethod
from headgate_server.store import Directory

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
        parts = Parts(
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
        yield store.directory, methods(parts)
