"""The background work of a server."""

from collections.abc import Sequence

from headgate_server.app.parts import Parts
from headgate_server.background import heads, measure, purge, watch
from headgate_server.background.leased import Leased
from headgate_server.background.supervisor import Job
from headgate_server.delivery import engine
from headgate_server.rpc.server import GrpcServer


def jobs(parts: Parts, server: GrpcServer, holder: str) -> Sequence[Job]:
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
