"""An attempt to deliver events, and the promise of a sender."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from headgate_server.core.model import StoredEvent

DETAIL_CHARACTERS = 200
"""The longest detail. It is enough to recognise an error page, and does not fill a log or a table."""


class Verdict(Enum):
    """The result of an attempt for its events."""

    DELIVERED = "delivered"
    FAILED = "failed"
    """The events are tried again by the schedule."""
    GONE = "gone"
    """The receiver is gone permanently (HTTP 410). The destination is disabled."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt to deliver events, and its result."""

    verdict: Verdict
    status: int | None
    """The HTTP status; None: there was no answer, or the destination does not speak HTTP."""
    detail: str
    """The receiver's answer, or why there was none: printable, at most `DETAIL_CHARACTERS`."""
    retry_after: float | None
    """The seconds that the receiver asks to wait before the next attempt; None: it did not ask."""
    seconds: float
    """The duration of the attempt."""


class Sender(Protocol):
    """Delivers to one destination. Used on one event loop only."""

    async def send(self, events: Sequence[StoredEvent], attempt: int) -> Attempt:
        """Deliver all events in one attempt. There is at least one. `attempt` is 1 for their first attempt.

        DELIVERED MUST mean that the receiver confirmed all of them. Every fault of the receiver or the network MUST be
        returned as an `Attempt`, not raised. A cancelled call may have delivered the events.
        """
        ...

    async def close(self) -> None:
        """Close all connections. No call follows."""
        ...


def printable(text: str) -> str:
    """Return a text as a detail: on one line, without control characters, at most `DETAIL_CHARACTERS`."""
    # Slice first: a receiver's answer may be long, and only the beginning is kept.
    words = "".join(mark if mark.isprintable() else " " for mark in text[: 4 * DETAIL_CHARACTERS]).split()
    return " ".join(words)[:DETAIL_CHARACTERS]
