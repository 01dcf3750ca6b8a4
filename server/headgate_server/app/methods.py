"""Every RPC of Headgate, from the parts of a process."""

from collections.abc import Sequence
from functools import partial

from headgate_server.access.limits import RateLimiter
from headgate_server.app.delivery import delivery_part
from headgate_server.app.parts import Parts
from headgate_server.ingest.change_event_types import ChangeEventTypes
from headgate_server.ingest.compat import Compat
from headgate_server.ingest.event_types import EventTypeChecks
from headgate_server.ingest.ingest import Ingest
from headgate_server.ingest.replay import Replaying
from headgate_server.process.clock import system_clock
from headgate_server.receivers.registry import RECEIVERS
from headgate_server.rpc import cloudevents, decode
from headgate_server.rpc.admin_servicer import AdminServicer
from headgate_server.rpc.cloudevent_servicer import CloudEventServicer
from headgate_server.rpc.compat_servicer import CompatServicer
from headgate_server.rpc.destination_servicer import DestinationServicer
from headgate_server.rpc.docs_servicer import DocsServicer
from headgate_server.rpc.event_servicer import EventServicer
from headgate_server.rpc.event_type_servicer import EventTypeServicer
from headgate_server.rpc.ingest_servicer import IngestServicer
from headgate_server.rpc.ledger_servicer import LedgerServicer
from headgate_server.rpc.pipeline.method import AnyMethod
from headgate_server.rpc.probe_servicer import ProbeServicer
from headgate_server.rpc.rejection_servicer import RejectionServicer
from headgate_server.rpc.taking import Taking
from headgate_server.rpc.workspace_servicer import WorkspaceServicer


def methods(parts: Parts) -> Sequence[AnyMethod]:
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
    shown = (parts.readiness.part, parts.committer.part, partial(delivery_part, parts.delivery))
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
