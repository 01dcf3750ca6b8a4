"""What the calls of one process work with."""

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headgate_server.app.delivery import delivery_work
from headgate_server.background.heads import Heads
from headgate_server.background.leased import Leased
from headgate_server.background.subscription import Subscriptions
from headgate_server.background.supervisor import Supervisor
from headgate_server.background.wakeup import Wakeups
from headgate_server.config import Settings
from headgate_server.ingest.checker import Checker
from headgate_server.ingest.committer import Committer
from headgate_server.ingest.readiness import Readiness
from headgate_server.ingest.rejections import RejectionQueue
from headgate_server.process.metrics import Metrics
from headgate_server.store import Store

if TYPE_CHECKING:
    from headgate_server.process.tracing.spans import Tracing


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
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


def make_parts(
    stack: contextlib.AsyncExitStack,
    settings: Settings,
    store: Store,
    metrics: Metrics,
    holder: str,
    tracing: "Tracing | None",
) -> Parts:
    """Return the parts of a server. The stack closes them, without the committer."""
    readiness, checker, wakeups = Readiness(store.probe), Checker(), Wakeups()
    metrics.add_source(readiness.readings)
    stack.push_async_callback(readiness.close)
    stack.push_async_callback(checker.close)
    delivers = settings.delivery.deliver == "on"
    delivery = delivery_work(store, settings, metrics, wakeups.add(), holder, tracing) if delivers else None
    watched = Heads(store.ledgers, wakeups.add())
    return Parts(
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
