"""The ingest of a test, without a server."""

from headgate_server.ingest.checker import Checker
from headgate_server.ingest.committer import Committer
from headgate_server.ingest.event_types import EventTypeChecks
from headgate_server.ingest.ingest import Ingest
from headgate_server.store import Store


async def admit(_: int) -> None:
    """Admit any number of events, as a key without limits does."""


def ingest_of(store: Store, committer: Committer) -> Ingest:
    """Return the ingest of a store. The process that makes costly checks is started only if a check is costly."""
    return Ingest(store.ledgers, store.limits, committer, EventTypeChecks(store.event_types, Checker()))
