"""The client of Headgate: it batches, retries only what a retry helps, and says what became of each event.

    with Client("127.0.0.1:8080", api_key="hg_…") as client:
        result = client.ingest({"type": "order.completed", "source": "shop", "data": {"amount": 49.99}})

docs/client.md has recipes.
"""

from headgate_client import environment as environment  # before gRPC is imported
from headgate_client.aio import AsyncClient
from headgate_client.aio_buffered import AsyncBuffered
from headgate_client.buffered import Buffered
from headgate_client.client import Client
from headgate_client.core.errors import (
    CallError,
    Closed,
    Denied,
    Dropped,
    EventConflict,
    EventRejected,
    Forked,
    HeadgateError,
    InvalidEvent,
    NotFound,
    NotSent,
    PartialFailure,
    Problem,
    QueueFull,
    SpoolError,
    SpoolInUse,
    Unavailable,
)
from headgate_client.core.events import Event
from headgate_client.core.model import Break, EventError, Head, Page, Result, StoredEvent, Verification
from headgate_client.core.queue import Stats
from headgate_client.core.retry import Retry
from headgate_client.feed import Failure
from headgate_client.subscription import AsyncSubscription, Subscription
from headgate_client.ticket import Ticket

__all__ = [
    "AsyncBuffered",
    "AsyncClient",
    "AsyncSubscription",
    "Break",
    "Buffered",
    "CallError",
    "Client",
    "Closed",
    "Denied",
    "Dropped",
    "Event",
    "EventConflict",
    "EventError",
    "EventRejected",
    "Failure",
    "Forked",
    "Head",
    "HeadgateError",
    "InvalidEvent",
    "NotFound",
    "NotSent",
    "Page",
    "PartialFailure",
    "Problem",
    "QueueFull",
    "Result",
    "Retry",
    "SpoolError",
    "SpoolInUse",
    "Stats",
    "StoredEvent",
    "Subscription",
    "Ticket",
    "Unavailable",
    "Verification",
]
